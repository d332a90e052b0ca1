"""Does the SNR distance help where codes of bits are wanted? Eight methods, by mean average precision over Hamming.

``snr measure hashing`` measures; ``data/reference/hashing.csv``, ``hashing_curves.csv`` and ``hashing.json`` hold what
came out. The protocol, written down before the first run:

- *Data*: glyphs (100 characters; queries of the same and of 100 unseen ones) and, where it is there, CIFAR-10 by the
  protocol "cifar10" (`snrlib.hashing.PROTOCOLS`). One draw of the images, seed 0, for all.
- *Network*: conv4 from random weights, its last layer with one output per bit; no augmentation. Glyphs 100 steps of 96
  images, 8 a character; CIFAR-10 80 steps of 100 images, 10 a class. AdamW at 0.004, one-cycle. Every method the same.
- *Methods*: `snrlib.hashing.METHODS`; beside them the network without a training.
- *Tuning*: each method has four trials, the same four margins as shares of the bits (`SHARES`), at 32 bits on glyphs
  and 48 on CIFAR-10, 40 steps, one seed of its own. A quarter of the training images of each character (a fifth of
  those of each class of CIFAR-10) are then queries in the others; the highest mAP chooses, and holds for all lengths.
  Weights are not tuned: 0.01 of the margin, and those of DSH and DTSH as published. That weight, where 0.1 froze the
  first signs under Euclid, and the range of the margins come from a pilot on glyphs with one seed, which did look at
  the queries that judge.
- *Bits*: 16, 32, 64 on glyphs; 48 on CIFAR-10, since the hours of two cores are few. Three seeds.
- *Scores*: `snrlib.hashing.score_codes`, mAP with averaged ties first; mAP of the relaxed codes under the distance that
  trained them, to say what binarisation costs. Differences are paired by seed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from snrlib.backbones import Embedder, embed
from snrlib.data import LabelledImages
from snrlib.hashing import (
    METHODS,
    Gallery,
    HashingSets,
    Method,
    get_method,
    hasher,
    hashing_sets,
    pack,
    relaxed_map,
    score_codes,
    tie_groups,
    unpack,
)
from snrlib.hashing.protocols import Protocol, all_images, rows_of, split
from snrlib.stats import mean_interval, verdict
from snrlib.study import stored
from snrlib.study.steps import Step, finish
from snrlib.train import train
from snrlib.utils.files import data_folder, digest, write_atomically, write_json
from snrlib.utils.provenance import cpu, provenance

__all__ = [
    "PLANS",
    "RIVALS",
    "SEEDS",
    "SHARES",
    "UNTRAINED",
    "Codes",
    "against",
    "answers",
    "keep_images",
    "measure_hashing",
    "measure_one",
    "tune_one",
    "validation_sets",
]

SEEDS: tuple[int, ...] = (0, 1, 2)
SHARES: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5)
"""Margins that are tried, as shares of the bits."""
UNTRAINED = "untrained"
"""Beside the methods: the network with its first weights."""
PLANS: dict[str, dict[str, Any]] = {
    "glyphs": {"protocol": "glyphs", "bits": [16, 32, 64], "steps": 100, "batch_size": 96, "m": 8}
    | {"tuned_at": 32, "tuning_steps": 40, "validation": 4, "at": [1, 10, 100]},
    "cifar10": {"protocol": "cifar10", "bits": [48], "steps": 80, "batch_size": 100, "m": 10}
    | {"tuned_at": 48, "tuning_steps": 40, "validation": 100, "at": [1, 10, 100]},
}
"""By data set: everything but method and seed."""
_TUNING_SEED = 100


def measure_hashing(jobs: int = 2) -> Path:
    """Tune, train and judge every method; CIFAR-10 where ``SNR_DATA`` has it.

    Args:
        jobs: processes, one thread each.

    Returns:
        The path of ``hashing.csv``: a row per ``data``, ``gallery``, ``method``, ``bits`` and ``seed``. Every trial and
        every method and seed is kept in ``data/runs/hashing`` under a digest of all that it depends on.

    Raises:
        ChildProcessError: some failed, the message says which and why; the others are kept.
    """
    plans = {data: plan | {"images": _images_of(data)} for data, plan in PLANS.items()}
    plans = {data: plan for data, plan in plans.items() if plan["images"] is not None}
    tuning = [{"data": data, "plan": plan, "method": method} for data, plan in plans.items() for method in METHODS]
    tried = finish("hashing, tuning", [_step("tune_one", cell) for cell in tuning], jobs)
    trials = pd.DataFrame([row for result in tried for row in result["trials"]])
    best = trials.loc[trials.groupby(["data", "method"], sort=False).mAP.idxmax()]
    shares = {(row.data, row.method): row.share for row in best.itertuples()}
    cells = [
        {"data": data, "plan": plan, "method": method, "share": shares.get((data, method)), "seed": seed}
        for data, plan in plans.items()
        for seed in SEEDS
        for method in (*METHODS, UNTRAINED)
    ]
    results = finish("hashing", [_step("measure_one", cell) for cell in cells], jobs)
    rows = pd.DataFrame([row for result in results for row in result["rows"]])
    curves = pd.DataFrame([row for result in results for row in result["curves"]])
    key = ["data", "gallery", "method", "bits", "radius"]
    curves = curves.groupby(key, sort=False)[["precision", "recall", "empty", "retrieved"]].mean().reset_index()
    about = {
        "command": "snr measure hashing",
        "not_measured": "" if "cifar10" in plans else "cifar10, which is not there",
        "seeds": SEEDS,
        "plans": {data: {k: v for k, v in plan.items() if k != "images"} for data, plan in plans.items()},
        "trials": trials.to_dict("records"),
        "chosen": best.to_dict("records"),
        "data": {name: mark for result in results for name, mark in result["data"].items()},
        "cpu": cpu(),
        "threads_per_process": 1,
        "core_minutes_of_networks": round(sum(result["core_seconds"] for result in results) / 60, 1),
        **provenance(),
    }
    return stored.write_tables("hashing", {"": rows, "curves": curves}, about)


def against(
    rows: pd.DataFrame, method: str, baseline: str, by: Sequence[str] = ("data", "gallery", "bits")
) -> pd.DataFrame:
    """mAP of a method minus that of another, paired by seed.

    Args:
        rows: of `measure_hashing`.
        method: one of `METHODS`.
        baseline: another.
        by: the columns that are told apart; over the others each seed is averaged first.

    Returns:
        Index ``by``; ``mean`` and ``half_width`` of the 95 % t-interval over the seeds, and
        ``verdict``: higher, lower, or no difference shown.

    Raises:
        ValueError: a method that was not measured.
    """
    if missing := {method, baseline} - set(rows.method):
        raise ValueError(f"not measured: {', '.join(sorted(missing))}; there are {', '.join(rows.method.unique())}")
    wide = rows.pivot(index=["data", "gallery", "bits", "seed"], columns="method", values="mAP")
    less = (wide[method] - wide[baseline]).groupby([*by, "seed"], sort=False).mean()
    found = {}
    for key, values in less.groupby(list(by), sort=False):
        mean, half = mean_interval(values)
        found[key if len(by) > 1 else key[0]] = {"mean": mean, "half_width": half, "verdict": verdict(mean, half)}
    return pd.DataFrame.from_dict(found, orient="index").rename_axis(list(by))


RIVALS: tuple[tuple[str, str], ...] = (
    *((f"snr_{loss}", f"{distance}_{loss}") for distance in ("euclidean", "cosine") for loss in ("pair", "triplet")),
    ("snr_pair", "dsh"),
    ("snr_triplet", "dtsh"),
)
"""Methods with SNR, and what each is compared with."""


def answers(rows: pd.DataFrame) -> dict[str, str]:
    """What the table says, in words that follow its numbers: a text for each question.

    Args:
        rows: of `measure_hashing`.
    """
    trained = rows[rows.method != UNTRAINED]
    texts = {}
    for question, chosen in {
        "Does SNR train better codes than Euclid?": [pair for pair in RIVALS if pair[1].startswith("euclidean")],
        "Than the cosine?": [pair for pair in RIVALS if pair[1].startswith("cosine")],
        "Than the published methods?": RIVALS[-2:],
    }.items():
        texts[question] = "; ".join(f"{ours} minus {theirs}: {_said(rows, ours, theirs)}" for ours, theirs in chosen)
    means = trained.groupby(["data", "gallery", "method"], sort=False).mAP.mean()
    best = means.groupby(level=[0, 1], sort=False).idxmax()
    texts["Which is highest?"] = "; ".join(
        f"{data}, {gallery} classes: {name} ({means[data, gallery, name]:.3f})" for data, gallery, name in best
    )
    cost = (trained.mAP_relaxed - trained.mAP).groupby(trained.method.str.split("_").str[0], sort=False).mean()
    texts["What does the sign cost?"] = "mAP, on average: " + ", ".join(f"{k} {v:.3f}" for k, v in cost.items())
    return texts


def _said(rows: pd.DataFrame, ours: str, theirs: str) -> str:
    each, pooled = against(rows, ours, theirs), against(rows, ours, theirs, by=("data",))
    up, down = ((each.verdict == word).sum() for word in ("higher", "lower"))
    means = ", ".join(
        f"{data} {row['mean']:+.3f} ± {row.half_width:.3f} ({row.verdict})" for data, row in pooled.iterrows()
    )
    return f"{means}; by itself higher in {up} of {len(each)} rankings, lower in {down}"


def _images_of(data: str) -> str | None:
    """Where the images of a data set are kept, as a file that is read at once; "" if the code alone makes them."""
    if data == "glyphs":
        return ""
    step = Step(f"{__name__}:keep_images", {"data": data}, data_folder("runs") / "hashing" / f"{data}.pt")
    try:
        finish(f"hashing, images of {data}", [step], 1)
    except ChildProcessError as error:
        if "is not there" not in str(error):
            raise
        print(f"hashing: {data} is left out, since it is not there", flush=True)
        return None
    return str(step.path)


def keep_images(data: str, path: Path) -> str:
    """Keep all images of a data set in one file: thousands of small ones take as long to read as a training.

    Args:
        data: its name.
        path: of the result.
    """
    images = all_images(data)
    kept = {"images": images.images, "labels": images.labels, "classes": list(images.classes), "note": images.note}
    write_atomically(path, partial(torch.save, kept))
    return f"{data}: {len(images)} images"


def _sets(plan: dict[str, Any], data: str) -> HashingSets:
    images = None
    if plan["images"]:
        kept = torch.load(plan["images"], weights_only=True)
        images = LabelledImages(data, kept["images"], kept["labels"], tuple(kept["classes"]), note=kept["note"])
    return hashing_sets(plan["protocol"], images=images)


def _step(function: str, cell: dict[str, Any]) -> Step:
    named = [str(cell[key]) for key in ("data", "method", "seed") if key in cell]
    decides = {**cell, "plan": {key: value for key, value in cell["plan"].items() if key != "images"}}
    name = "-".join([function.partition("_")[0], *named, digest(decides)])
    return Step(f"{__name__}:{function}", {"cell": cell}, data_folder("runs") / "hashing" / f"{name}.json")


def validation_sets(train: LabelledImages, query: int) -> HashingSets:
    """Part of the training images as queries in the rest of them, which train.

    Args:
        train: as many images of each class.
        query: of each class, that become queries.
    """
    per_class = len(train) // len(train.classes)
    part = split(train.labels, Protocol("", query, per_class - query, "train", per_class), seed=1)
    rest = rows_of(train, part.train, "train")
    return HashingSets(rest, {"validation": Gallery(rows_of(train, part.query, "query"), rest)})


def tune_one(cell: dict[str, Any], path: Path) -> str:
    """The trials of one method: train on part of the training images, ask with the others.

    Args:
        cell: all that it depends on.
        path: of the result.

    Returns:
        A line that says how it went.
    """
    plan, method = cell["plan"], cell["method"]
    sets = validation_sets(_sets(plan, cell["data"]).train, plan["validation"])
    trials = []
    for share in SHARES:
        model, _ = _trained(method, plan["tuned_at"], share, sets.train, plan, plan["tuning_steps"], _TUNING_SEED)
        scores = score_codes(*Codes(model, sets.galleries["validation"]).packed, at=())
        trials.append({"data": cell["data"], "method": method, "share": share, "mAP": scores["mAP"]})
    write_json(path, {"trials": trials})
    return f"{path.stem}: mAP {max(trial['mAP'] for trial in trials):.3f}"


def measure_one(cell: dict[str, Any], path: Path) -> str:
    """One method and seed, with codes of every length.

    Args:
        cell: all that it depends on.
        path: of the result.

    Returns:
        A line that says how it went.
    """
    started = time.process_time()
    plan = cell["plan"]
    sets = _sets(plan, cell["data"])
    rows, curves = [], []
    for bits in plan["bits"]:
        steps = 0 if cell["method"] == UNTRAINED else plan["steps"]
        model, method = _trained(cell["method"], bits, cell["share"], sets.train, plan, steps, cell["seed"])
        for name, gallery in sets.galleries.items():
            named = {"data": cell["data"], "gallery": name, "method": cell["method"], "bits": bits}
            found = Codes(model, gallery)
            rows.append(named | {"seed": cell["seed"]} | dict(found.scores(method, plan["at"])))
            curve = tie_groups(*found.packed).curve().iloc[: bits + 1].reset_index()
            curves += [named | row for row in curve.to_dict("records")]
    data = {images.name: images.fingerprint for images in _all_parts(sets)}
    seconds = time.process_time() - started
    write_json(path, {"rows": rows, "curves": curves, "data": data, "core_seconds": seconds})
    return f"{path.stem}: mAP {rows[0]['mAP']:.3f}, {seconds:.0f} s of one core"


def _trained(
    name: str, bits: int, share: float | None, images: LabelledImages, plan: dict[str, Any], steps: int, seed: int
) -> tuple[Embedder, Method]:
    """The network of a method, trained for so many steps."""
    method = get_method("snr_pair" if name == UNTRAINED else name, bits, 0.5 if share is None else share)
    torch.manual_seed(seed)
    model = hasher("conv4", bits, method.relax, channels=images[0][0].shape[0])
    if steps:
        size = {"batch_size": plan["batch_size"], "m": plan["m"]}
        train(model, images, method.loss, steps=steps, every=steps, seed=seed, precision="float32", **size)
    return model, method


class Codes:
    """Relaxed codes of a gallery, and packed ones as `score_codes` takes them."""

    def __init__(self, model: Embedder, gallery: Gallery):
        self.query, self.database = (embed(model, side) for side in (gallery.query, gallery.database))
        self.labels = gallery.query.labels, gallery.database.labels
        self.packed = pack(self.query), self.labels[0], pack(self.database), self.labels[1]

    def scores(self, method: Method, at: list[int]) -> Iterator[tuple[str, float]]:
        """What stands in a row of ``hashing.csv``."""
        yield from score_codes(*self.packed, at=at, by_index=True).items()
        relaxed = self.query, self.labels[0], self.database, self.labels[1]
        yield "mAP_relaxed", relaxed_map(*relaxed, distance=method.distance)
        codes = unpack(self.packed[2], self.query.shape[1])
        yield "row_mean", codes.mean(dim=1).abs().mean().item()
        yield "bit_mean", codes.mean(dim=0).abs().mean().item()
        yield "off_sign", (self.database - codes).square().mean().item()
        yield "distinct", len(self.packed[2].unique(dim=0)) / len(codes)


def _all_parts(sets: HashingSets) -> Iterator[LabelledImages]:
    yield sets.train
    for gallery in sets.galleries.values():
        yield gallery.query
        yield gallery.database
