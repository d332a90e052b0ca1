"""Is the SNR distance the robust one that the paper's title promises? Images are spoiled, at test time or in training.

Networks that were trained on clean images answer spoiled queries from a clean gallery; networks that were trained on
spoiled images, or with wrong labels, are judged on clean ones. A margin that suits clean images need not suit spoiled
ones: each distance is tuned twice, with equal trials, on clean and on spoiled training images. ``snr measure
robustness`` measures; ``data/reference/robustness.csv`` and ``robustness.json`` hold what came out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from snrlib.backbones import embed, embedder
from snrlib.data import LabelledImages, load, training_classes
from snrlib.data.corruptions import CORRUPTIONS, corrupt, mislabel
from snrlib.data.splits import usual_validation_share
from snrlib.distances import Distance
from snrlib.evaluate import knn
from snrlib.experiment import Settings, default_settings, fit
from snrlib.stats import holm, mean_interval, t_test, verdict
from snrlib.study import stored
from snrlib.study.bird_features import photographs
from snrlib.study.steps import Step, finish
from snrlib.study.tuning import TRIAL_SEEDS, storage, tune_one
from snrlib.utils.checks import check_choice, check_labels
from snrlib.utils.files import data_folder, digest, identified, write_atomically, write_json
from snrlib.utils.provenance import cpu, provenance

__all__ = [
    "DISTANCES",
    "LEVELS",
    "MEASURES",
    "SEEDS",
    "TUNED_ON",
    "compare_drops",
    "keep_features",
    "measure_one",
    "measure_robustness",
    "spoiled_recall",
    "tune_on",
]

DISTANCES: tuple[str, ...] = ("euclidean", "snr", "mahalanobis", "cosine")
"""What is compared; the map of Mahalanobis follows the training."""
TUNED_ON: tuple[str, ...] = ("clean", "spoiled")
"""The training images on which margins and rates were chosen; the spoiled ones are each spoiled in one way, in turn."""
_TRIALS = 8  # of each
MEASURES: dict[str, str] = {
    "score": "R@1 itself",
    "share": "the share of its own clean R@1 that it keeps",
    "change": "the change from its own clean R@1",
}
"""What `compare_drops` compares. Who starts higher has more to lose and keeps a smaller share of more: look at all."""
SEEDS: tuple[int, ...] = (0, 1, 2)
"""Of the networks."""
_NETWORKS: dict[str, dict[str, Any]] = {  # those of the profiles boards and cub_features_losses
    "glyphs": {"data": "glyphs", "backbone": "conv4", "steps": 150, "precision": "bfloat16"},
    "photographs": {
        "data": "cub_features",
        "backbone": "linear",
        "steps": 300,
        "embedding_size": 128,
        "precision": "float32",
    },
}
_LOSS = "triplet"
_IN_TRAINING = slice(None, None, 2)  # of the levels of a corruption
LEVELS: dict[str, tuple[float, ...]] = {
    "noise": (0.1, 0.2, 0.4),
    "blur": (0.5, 0.75, 1.0),
    "occlusion": (0.1, 0.2, 0.3),
    "wrong labels": (0.1, 0.2, 0.4),
}
"""What is measured beside the clean images: at test time every level of a corruption, in training every second one, and
the shares of wrong labels."""


def spoiled_recall(query: Tensor, gallery: Tensor, labels: Tensor, distance: Distance) -> float:
    """R@1 of spoiled queries among clean images, the query's own clean copy left out.

    Args:
        query: (n, M), embeddings of the spoiled images.
        gallery: (n, M), of the same images, clean.
        labels: (n,).
        distance: the one that searches.

    Raises:
        ValueError: queries, gallery and labels that are not as many, or fewer than two of them.
    """
    if not len(query) == len(gallery) == len(check_labels(labels)):
        raise ValueError(f"need a query and a label an image, got {len(query)}, {len(labels)} and {len(gallery)}")
    _, nearest = knn(query, 2, gallery, distance)
    itself = nearest[:, 0] == torch.arange(len(query))
    found = torch.where(itself, nearest[:, 1], nearest[:, 0])
    return float((labels[found] == labels).double().mean())


def compare_drops(table: pd.DataFrame, level: float = 0.95, measure: str = "share") -> pd.DataFrame:
    """What spoiling does to each distance, against what it does to Euclid, paired by seed.

    Args:
        table: of `measure_robustness`.
        level: of confidence.
        measure: one of `MEASURES`, each averaged over the levels of one kind: "score" is R@1 itself; "share" is spoiled
            over clean R@1 of the same seed; "change" is spoiled minus clean, which is negative where R@1 falls.

    Returns:
        Index ``data``, ``tuned_on``, ``when``, ``kind``, ``distance``; ``mean`` and ``half_width`` of the measure, over
        the seeds; ``difference`` and ``difference_half_width``, to Euclid, over the ``seeds`` that both have;
        ``verdict``, where "higher" is the more robust; ``p`` of the paired t-test and ``p_holm``, corrected for all
        rows of this table. Euclid's own rows have no difference, verdict "" and no p.

    Raises:
        ValueError: an unknown measure, several losses, no row of Euclid, or a run without its clean R@1, or where that
            is 0.
    """
    check_choice(measure, "measure", MEASURES)
    if table.loss.nunique() != 1:
        raise ValueError(f"one loss is compared at a time, got {', '.join(sorted(set(table.loss))) or 'none'}")
    if "euclidean" not in set(table.distance):
        raise ValueError(f"the baseline euclidean is not among {', '.join(sorted(set(table.distance)))}")
    run, group = ["data", "tuned_on", "distance", "seed"], ["data", "tuned_on", "when", "kind"]
    clean = table[table.when == "never"].set_index(run).precision_at_1.rename("clean")
    spoiled = table[table.when != "never"].join(clean, on=run)
    if not (spoiled.clean > 0).all():
        raise ValueError(
            f"{(~(spoiled.clean > 0)).sum()} of {len(spoiled)} rows have no clean R@1 above 0 of their run"
        )
    score = spoiled.precision_at_1
    kept = {"score": score, "share": score / spoiled.clean, "change": score - spoiled.clean}[measure]
    spoiled = spoiled.assign(kept=kept)
    wide = spoiled.pivot_table("kept", index=[*group, "seed"], columns="distance", sort=False)  # the mean over levels
    rows = {}
    for key, part in wide.groupby(group, sort=False):
        for distance in wide.columns[part.notna().any()]:
            own, less = part[distance].dropna(), (part[distance] - part["euclidean"]).dropna()
            mean, half = mean_interval(own, level)
            row = {"mean": mean, "half_width": half, "seeds": len(own), "verdict": ""}
            if distance != "euclidean":
                mean, half = mean_interval(less, level)
                row |= {"difference": mean, "difference_half_width": half, "seeds": len(less)}
                row |= {"verdict": verdict(mean, half), "p": t_test(less)}
            rows[(*key, distance)] = row
    found = pd.DataFrame.from_dict(rows, orient="index").rename_axis([*group, "distance"])
    names = ["mean", "half_width", "difference", "difference_half_width", "seeds", "verdict", "p"]
    return found.reindex(columns=names).assign(p_holm=lambda found: holm(found.p))


def measure_robustness(jobs: int = 2, weights: str | Path | None = None) -> Path:
    """Measure glyphs, and photographs where ``weights`` are given; write ``data/reference/robustness.csv``.

    The networks of the profiles *boards* and *cub_features_losses*, triplet loss, all training classes of the usual
    division. Margin and learning rate of each distance are tuned here, on validation classes, with equal trials: once
    with clean training images, once with spoiled ones. Of photographs, the features of a pretrained network are what a
    linear layer is trained on; the photographs are spoiled, not the features. Spoiled images are the same for all
    distances and seeds, wrong labels for all distances. A training on spoiled images or labels that diverges has R@1 0;
    a clean one that does fails.

    Args:
        jobs: processes, one thread each.
        weights: file with the ImageNet weights of SqueezeNet 1.1.

    Returns:
        The path; beside it lies ``robustness.json``. Each tuning, and each distance and seed, is kept in
        ``data/runs/robustness`` under a digest of its settings and levels; what is there is not measured again.

    Raises:
        FileNotFoundError: CUB or the weights are not there.
        ChildProcessError: some failed, the message says which and why; the others are kept.
    """
    weights, sha = identified(weights)
    datasets = ["glyphs"] if sha is None else ["glyphs", "photographs"]
    if weights is not None and sha is not None:
        finish("spoiled photographs", list(_feature_steps(weights, sha)), jobs)
    folder = data_folder("runs") / "robustness"
    storage(folder)  # makes its tables, which two processes must not do at once
    asked = [(data, on, distance) for data in datasets for on in TUNED_ON for distance in DISTANCES]
    trials = [_trial(*one, sha) for one in asked]
    tuned = finish("margins", [Step(f"{__name__}:tune_on", {"trial": one}, _path(one)) for one in trials], jobs)
    found = dict(zip(asked, tuned, strict=True))
    cells = [_cell(*one, seed, sha, found[one]) for one in asked for seed in SEEDS]
    results = finish(
        "robustness", [Step(f"{__name__}:measure_one", {"cell": cell}, _path(cell)) for cell in cells], jobs
    )
    table = pd.DataFrame([row for result in results for row in result["rows"]])
    return stored.write_tables("robustness", {"": table}, _about(cells, results, tuned, sha))


def _about(
    cells: list[dict[str, Any]], results: list[dict[str, Any]], tuned: list[dict[str, Any]], sha: str | None
) -> dict[str, Any]:
    varied = ("distance", "map", "margin", "seed", "learning_rate", "trunk_learning_rate")
    chosen = ("distance", "map", "margin", "learning_rate")
    command = "snr measure robustness"
    return {
        "command": command if sha is None else f"{command} --weights FILE",
        "not_measured": "" if sha else "photographs, which need --weights, the file of SqueezeNet's ImageNet weights",
        "seeds": SEEDS,
        "levels": LEVELS,
        "trials": _TRIALS,
        "trained": [
            {"data": cell["data"], "tuned_on": cell["tuned_on"]} | {key: cell["settings"][key] for key in chosen}
            for cell in cells
            if cell["settings"]["seed"] == SEEDS[0]
        ],
        "at_bound": [f"{one['data']}, {one['distance']}: {name}" for one in tuned for name in one["at_bound"]],
        "settings": {
            cell["data"]: {key: value for key, value in cell["settings"].items() if key not in varied} for cell in cells
        },
        "weights_sha256": sha,
        "data": {name: fingerprint for result in results for name, fingerprint in result["data"].items()},
        "cpu": cpu(),
        "threads_per_process": 1,
        "core_minutes_of_tuning": round(sum(t["seconds"] for one in tuned for t in one["trials"]) / 60, 1),
        "core_minutes_of_networks": round(sum(result["seconds"] for result in results) / 60, 1),
        **provenance(),
    }


def _usual(data: str, distance: str, **chosen: Any) -> dict[str, Any]:
    """Settings of a network, as a dictionary; nothing validates before the last step."""
    usual = default_settings(**_NETWORKS[data], loss=_LOSS, distance=distance, **chosen)
    return asdict(replace(usual, every=usual.steps))


def _trial(data: str, tuned_on: str, distance: str, sha: str | None) -> dict[str, Any]:
    """All that the tuning of one distance depends on."""
    share = usual_validation_share(training_classes(_NETWORKS[data]["data"])[0])
    settings = _usual(data, distance, seed=TRIAL_SEEDS[0], validation_share=share)
    levels = {kind: LEVELS[kind][len(LEVELS[kind]) // 2] for kind in CORRUPTIONS} if tuned_on == "spoiled" else {}
    weights = sha if data == "photographs" else None
    return {"data": data, "settings": settings, "levels": levels, "weights": weights, "trials": _TRIALS}


def tune_on(trial: dict[str, Any], path: Path) -> str:
    """Tune margin and learning rate of one distance on clean or spoiled training images, and keep what is found.

    Args:
        trial: all that it depends on.
        path: of the result.

    Returns:
        A line that says what was chosen.
    """
    images = _images(trial, "train")
    if trial["levels"]:  # each image is spoiled in one way, in turn
        parts = [_images(trial, "train", kind, trial["levels"][kind]).images for kind in CORRUPTIONS]
        turn = torch.arange(len(images)) % len(parts)
        images = replace(images, images=torch.stack(parts)[turn, torch.arange(len(images))])
    return tune_one(trial["settings"], ["margin", "learning_rate"], trial["trials"], path, "cpu", images)


def _cell(data: str, tuned_on: str, distance: str, seed: int, sha: str | None, found: dict[str, Any]) -> dict[str, Any]:
    """All that the measurements of one distance and seed depend on."""
    chosen = {name: found[name] for name in ("margin", "learning_rate")}
    settings = _usual(data, distance, seed=seed, validation_share=0.0, **chosen)
    levels = {kind: list(levels) for kind, levels in LEVELS.items()}
    weights = sha if data == "photographs" else None
    return {"data": data, "tuned_on": tuned_on, "settings": settings, "levels": levels, "weights": weights}


def _path(cell: dict[str, Any]) -> Path:
    named = [cell["settings"][key] for key in ("loss", "distance", "seed")]
    what = cell.get("tuned_on", "tuning")
    name = "-".join([cell["data"], *map(str, named), what, digest(cell)])
    return data_folder("runs") / "robustness" / f"{name}.json"


def measure_one(cell: dict[str, Any], path: Path) -> str:
    """Measure one distance and seed, and keep it.

    Args:
        cell: all that it depends on.
        path: of the result.

    Returns:
        A line that says how it went.
    """
    started = time.perf_counter()
    train, test = _images(cell, "train"), _images(cell, "test")
    named = {key: cell["settings"][key] for key in ("loss", "distance", "map", "seed")}
    same = {"data": cell["data"], "tuned_on": cell["tuned_on"]} | named | {"map": named["map"] or ""}
    rows = [same | row for row in _measure(cell, train, test)]
    seconds = time.perf_counter() - started
    data = {images.name: images.fingerprint for images in (train, test)}
    write_json(path, {"rows": rows, "data": data, "seconds": seconds})
    return f"{path.stem}: clean R@1 {rows[0]['precision_at_1']:.3f}, {seconds:.0f} s"


def _measure(cell: dict[str, Any], train: LabelledImages, test: LabelledImages) -> Iterator[dict[str, Any]]:
    def row(when: str, kind: str, level: float, recall: float) -> dict[str, Any]:
        return {"when": when, "kind": kind, "level": level, "precision_at_1": recall}

    settings, levels = Settings(**cell["settings"]), cell["levels"]
    clean = fit(settings, device="cpu", images=train)
    gallery = embed(clean.model, test, transform=clean.crop)
    yield row("never", "clean", 0.0, spoiled_recall(gallery, gallery, test.labels, clean.distance))
    for kind in CORRUPTIONS:
        for level in levels[kind]:
            query = embed(clean.model, _images(cell, "test", kind, level), transform=clean.crop)
            yield row("test", kind, level, spoiled_recall(query, gallery, test.labels, clean.distance))
    for kind in CORRUPTIONS:
        for level in levels[kind][_IN_TRAINING]:
            yield row("training", kind, level, _recall_after(settings, _images(cell, "train", kind, level), test))
    for share in levels["wrong labels"]:
        wrong = replace(train, labels=mislabel(train.labels, share, settings.seed))
        yield row("training", "wrong labels", share, _recall_after(settings, wrong, test))


def _recall_after(settings: Settings, train: LabelledImages, test: LabelledImages) -> float:
    """R@1 on clean images of a network trained on these; 0 if the training diverges."""
    try:
        done = fit(settings, device="cpu", images=train)
    except FloatingPointError:
        return 0.0
    embeddings = embed(done.model, test, transform=done.crop)
    return spoiled_recall(embeddings, embeddings, test.labels, done.distance)


def _images(cell: dict[str, Any], split: Literal["train", "test"], kind: str = "clean", level: float = 0.0) -> Any:
    """Images, or features of photographs, clean or spoiled."""
    if cell["data"] == "photographs":
        kept = torch.load(_feature_path(cell["weights"], split, kind, level), weights_only=True)
        return LabelledImages(f"photographs, {split}", kept["images"], kept["labels"], tuple(kept["classes"]))
    images = load(cell["settings"]["data"], split, size=cell["settings"]["image_size"])
    return images if kind == "clean" else replace(images, images=corrupt(images.images, kind, level))


def _feature_path(sha: str, split: str, kind: str, level: float) -> Path:
    return data_folder("runs") / "robustness" / f"features-{sha[:16]}-{split}-{kind}-{level:g}.pt"


def _feature_steps(weights: Path, sha: str) -> Iterator[Step]:
    """SqueezeNet's features of all photographs of `snrlib.data.sets.cub_features`, clean and spoiled."""
    for split in ("train", "test"):
        spoiled = [(kind, level) for kind in CORRUPTIONS for level in LEVELS[kind]]
        for kind, level in [("clean", 0.0), *spoiled]:
            arguments = {"weights": str(weights), "split": split, "kind": kind, "level": level}
            yield Step(f"{__name__}:keep_features", arguments, _feature_path(sha, split, kind, level))


def keep_features(weights: str, split: Literal["train", "test"], kind: str, level: float, path: Path) -> str:
    """Keep SqueezeNet's features of photographs that are spoiled before it sees them.

    Args:
        weights: file of its weights.
        split: "train" or "test".
        kind: one of `CORRUPTIONS`, or "clean".
        level: of the corruption.
        path: of the result.
    """
    images, labels, classes = photographs(split)
    model = embedder("squeezenet1_1", None, weights)
    parts = [  # spoiled part by part, which takes less memory
        embed(model, part if kind == "clean" else corrupt(part, kind, level, seed=number))
        for number, part in enumerate(images.split(50))
    ]
    kept = {"images": torch.cat(parts)[:, :, None, None], "labels": labels, "classes": list(classes)}
    write_atomically(path, partial(torch.save, kept))
    return f"photographs, {split}: {kind} {level:g}"
