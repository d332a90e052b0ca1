"""Is the SNR distance the robust one that the paper's title promises? Images are spoiled, at test time or in training.

Networks that were trained on clean images answer spoiled queries from a clean gallery; networks that were trained on
spoiled images, or with wrong labels, are judged on clean ones. ``snr reference robustness`` measures;
``data/reference/robustness.csv`` and ``robustness.json`` hold what came out.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from snrlib.backbones import embed, embedder
from snrlib.data import LabelledImages, load
from snrlib.distances import Distance
from snrlib.evaluate import knn
from snrlib.experiment import default_settings, fit, tuned
from snrlib.stats import holm, mean_interval, t_test, verdict
from snrlib.study.fitted_maps import photographs
from snrlib.study.reference import STUDIES, run_processes
from snrlib.utils.checks import check_choice, check_labels, check_number
from snrlib.utils.files import data_folder, write_atomically, write_json, write_table
from snrlib.utils.provenance import cpu, provenance

__all__ = [
    "CORRUPTIONS",
    "DISTANCES",
    "LEVELS",
    "SEEDS",
    "compare_drops",
    "corrupt",
    "measure_robustness",
    "mislabel",
    "spoiled_recall",
]

DISTANCES: tuple[str, ...] = ("euclidean", "snr", "mahalanobis")
"""What is compared."""
SEEDS: tuple[int, ...] = (0, 1, 2, 3, 4)
"""Of the networks."""
_LOSS = "triplet"
_IN_TRAINING = slice(None, None, 2)  # of the levels of a corruption
_STUDIES = {"glyphs": "glyphs_losses", "photographs": "cub_features_losses"}  # whose networks these are


def _noise(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    return images + level * torch.randn(images.shape, generator=generator)


def _blur(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    sigma = level * images.shape[-1] / 32
    reach = math.ceil(3 * sigma)
    weights = torch.exp(-torch.arange(-reach, reach + 1, dtype=images.dtype).square() / (2 * sigma**2))
    channels = images.shape[1]
    kernel = (weights / weights.sum()).view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    for k, padding in ((kernel, (reach, reach, 0, 0)), (kernel.transpose(2, 3), (0, 0, reach, reach))):
        images = F.conv2d(F.pad(images, padding, mode="replicate"), k, groups=channels)
    return images


def _occlude(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    images = images.clone()
    height, width = images.shape[2:]
    h, w = round(height * level**0.5), round(width * level**0.5)
    top = torch.randint(height - h + 1, (len(images),), generator=generator).tolist()
    left = torch.randint(width - w + 1, (len(images),), generator=generator).tolist()
    for image, y, x in zip(images, top, left, strict=True):
        image[:, y : y + h, x : x + w] = 0.5
    return images


CORRUPTIONS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "noise": _noise,
    "blur": _blur,
    "occlusion": _occlude,
}
LEVELS: dict[str, tuple[float, ...]] = {
    "noise": (0.1, 0.2, 0.4),
    "blur": (0.5, 0.75, 1.0),
    "occlusion": (0.1, 0.2, 0.3),
    "wrong labels": (0.1, 0.2, 0.4),
}
"""What is measured beside the clean images: at test time every level of a corruption, in training every second one, and
the shares of wrong labels."""


def corrupt(images: Tensor, kind: str, level: float, seed: int = 0) -> Tensor:
    """Spoiled copies of images in about [0, 1].

    - noise: Gaussian, of standard deviation ``level``, on every pixel;
    - blur: Gaussian, of standard deviation ``level`` in units of 1/32 of the width, cut off at three of them;
    - occlusion: a grey rectangle (0.5) of ``level`` of the area, at a random place.

    Args:
        images: (n, C, H, W), floating point.
        kind: one of `CORRUPTIONS`.
        level: how much; 0 is a plain copy.
        seed: of noise and places.

    Raises:
        ValueError: images of another shape or type, an unknown kind, a negative level, or more than all of the area.

    >>> corrupt(torch.zeros(1, 1, 2, 2), "occlusion", 1.0)
    tensor([[[[0.5000, 0.5000],
              [0.5000, 0.5000]]]])
    """
    check_choice(kind, "kind", tuple(CORRUPTIONS))
    check_number(level, "level", at_least=0, at_most=1 if kind == "occlusion" else math.inf)
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"images must be (n, C, H, W), floating point, got {images.dtype}, {tuple(images.shape)}")
    if level == 0:
        return images.clone()
    return CORRUPTIONS[kind](images, level, torch.Generator().manual_seed(seed))


def mislabel(labels: Tensor, share: float, seed: int = 0) -> Tensor:
    """Labels of which a share is replaced by another class, drawn evenly.

    Args:
        labels: (n,), integers.
        share: in [0, 1]; of n labels the nearest whole number.
        seed: of the draw.

    Raises:
        ValueError: labels that are no row of integers, a share outside [0, 1], or a single class.
    """
    check_labels(labels)
    check_number(share, "share", at_least=0, at_most=1)
    classes, members = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError("wrong labels need a second class, got 1 class")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    step = torch.randint(1, len(classes), (len(chosen),), generator=generator)
    members = members.clone()
    members[chosen] = (members[chosen] + step) % len(classes)
    return classes[members]


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


def compare_drops(table: pd.DataFrame, level: float = 0.95, relative: bool = True) -> pd.DataFrame:
    """What each distance keeps of its own clean R@1, against what Euclid keeps, paired by seed.

    Who starts higher has more to lose, so shares are compared: spoiled over clean R@1 of the same seed, averaged over
    the levels of one kind.

    Args:
        table: of `measure_robustness`.
        level: of confidence.
        relative: compare shares; False compares the change in R@1 itself, which is negative where R@1 falls.

    Returns:
        Index ``data``, ``when``, ``kind``, ``distance``; ``mean`` and ``half_width`` of what is kept, over the seeds;
        ``difference`` and ``difference_half_width``, to Euclid, over the ``seeds`` that both have; ``verdict``, where
        "higher" is the more robust; ``p`` of the paired t-test and ``p_holm``, corrected for all rows of this table.
        Euclid's own rows have no difference, verdict "" and no p.

    Raises:
        ValueError: several losses, no row of Euclid, or a run without its clean R@1, or where that is 0.
    """
    if table.loss.nunique() != 1:
        raise ValueError(f"one loss is compared at a time, got {', '.join(sorted(set(table.loss))) or 'none'}")
    if "euclidean" not in set(table.distance):
        raise ValueError(f"the baseline euclidean is not among {', '.join(sorted(set(table.distance)))}")
    run, group = ["data", "distance", "seed"], ["data", "when", "kind"]
    clean = table[table.when == "never"].set_index(run).precision_at_1.rename("clean")
    spoiled = table[table.when != "never"].join(clean, on=run)
    if not (spoiled.clean > 0).all():
        raise ValueError(
            f"{(~(spoiled.clean > 0)).sum()} of {len(spoiled)} rows have no clean R@1 above 0 of their run"
        )
    less = spoiled.precision_at_1 / spoiled.clean if relative else spoiled.precision_at_1 - spoiled.clean
    spoiled = spoiled.assign(kept=less)
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

    The networks and settings of the studies ``glyphs_losses`` and ``cub_features_losses`` (`snrlib.study.reference`),
    triplet loss, with what was tuned for each distance. Of photographs, the features of a pretrained network are what a
    linear layer is trained on; the photographs are spoiled, not the features. Spoiled images are the same for all
    distances and seeds, wrong labels for all distances. A training on spoiled images or labels that diverges has R@1 0;
    a clean one that does fails.

    Args:
        jobs: processes, one thread each.
        weights: file with the ImageNet weights of SqueezeNet 1.1.

    Returns:
        The path; beside it lies ``robustness.json``. Each distance and seed is kept in ``data/runs/robustness`` under
        a digest of its settings and levels; what is there is not measured again.

    Raises:
        FileNotFoundError: CUB, the weights or a tuned margin is not there.
        ChildProcessError: some failed, the message says which and why; the others are kept.
    """
    sha = None
    if weights is not None:
        weights = Path(weights).expanduser().resolve(strict=True)
        sha = hashlib.sha256(weights.read_bytes()).hexdigest()
    datasets = ["glyphs"] if sha is None else ["glyphs", "photographs"]
    cells = [_cell(data, distance, seed, sha) for data in datasets for distance in DISTANCES for seed in SEEDS]
    if weights is not None and sha is not None:
        _spoil_photographs(weights, sha, jobs)
    paths = [_cell_path(cell) for cell in cells]
    missing = [(cell, path) for cell, path in zip(cells, paths, strict=True) if not path.exists()]
    print(f"robustness: {len(cells)} distances and seeds, {len(cells) - len(missing)} finished before", flush=True)
    lines = run_processes(_run_cell, missing, jobs)
    failed = [line for (_, path), line in zip(missing, lines, strict=True) if not path.exists()]
    if failed:
        raise ChildProcessError(f"{len(failed)} of {len(cells)} failed, the others are kept: {'; '.join(failed)}")
    results = [json.loads(path.read_text()) for path in paths]
    table = pd.DataFrame([row for result in results for row in result["rows"]])
    path = data_folder("reference") / "robustness.csv"
    write_json(path.with_suffix(".json"), _about(cells, results, sha))
    write_table(path, table)
    return path


def _about(cells: list[dict[str, Any]], results: list[dict[str, Any]], sha: str | None) -> dict[str, Any]:
    varied = ("distance", "margin", "seed", "learning_rate", "trunk_learning_rate")
    return {
        "command": "snr reference robustness" + " --weights FILE" * (sha is not None),
        "not_measured": "" if sha else "photographs, which need --weights, the file of SqueezeNet's ImageNet weights",
        "seeds": SEEDS,
        "levels": LEVELS,
        "trained": [
            {"data": cell["data"]} | {key: cell["settings"][key] for key in ("distance", "margin", "learning_rate")}
            for cell in cells
            if cell["settings"]["seed"] == SEEDS[0]
        ],
        "settings": {
            cell["data"]: {key: value for key, value in cell["settings"].items() if key not in varied} for cell in cells
        },
        "weights_sha256": sha,
        "rows": sum(len(result["rows"]) for result in results),
        "data": {name: fingerprint for result in results for name, fingerprint in result["data"].items()},
        "cpu": cpu(),
        "threads_per_process": 1,
        "core_minutes_of_networks": round(sum(result["seconds"] for result in results) / 60, 1),
        **provenance(),
    }


def _cell(data: str, distance: str, seed: int, sha: str | None) -> dict[str, Any]:
    """All that the measurements of one distance and seed depend on."""
    study = STUDIES[_STUDIES[data]]
    (backbone,) = study.backbones
    chosen = {**study.settings, "loss": _LOSS, "distance": distance, "seed": seed, "validation_share": 0.0}
    settings = default_settings(study.data, backbone, **chosen)
    found = tuned(study.data, backbone, _LOSS, distance, settings["embedding_size"])
    if "margin" not in found:
        raise FileNotFoundError(f"{distance} has no tuned margin; `snr reference {_STUDIES[data]}` finds it")
    settings = default_settings(study.data, backbone, **(chosen | found))
    settings["every"] = settings["steps"]  # nothing validates
    return {"data": data, "settings": settings, "levels": LEVELS, "weights": sha if data == "photographs" else None}


def _cell_path(cell: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest()[:16]
    name = "-".join([cell["data"], *(str(cell["settings"][key]) for key in ("loss", "distance", "seed")), digest])
    return data_folder("runs") / "robustness" / f"{name}.json"


def _run_cell(cell: dict[str, Any], path: Path) -> str:
    """Measure and keep; returns a line that says how it went, also if it did not."""
    started = time.perf_counter()
    label = f"{cell['data']} {cell['settings']['distance']} {cell['settings']['seed']}"
    try:
        train, test = _images(cell, "train"), _images(cell, "test")
        same = {"data": cell["data"]} | {key: cell["settings"][key] for key in ("loss", "distance", "seed")}
        rows = [same | row for row in _measure(cell, train, test)]
        result: dict[str, Any] = {"rows": rows, "data": {images.name: images.fingerprint for images in (train, test)}}
        result["seconds"] = time.perf_counter() - started
        write_json(path, result)
    except Exception as error:
        return f"{label} failed: {type(error).__name__}: {error}"
    return f"{label}: clean R@1 {rows[0]['precision_at_1']:.3f}, {result['seconds']:.0f} s"


def _measure(cell: dict[str, Any], train: LabelledImages, test: LabelledImages) -> Iterator[dict[str, Any]]:
    def row(when: str, kind: str, level: float, recall: float) -> dict[str, Any]:
        return {"when": when, "kind": kind, "level": level, "precision_at_1": recall}

    settings, levels = cell["settings"], cell["levels"]
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
        wrong = replace(train, labels=mislabel(train.labels, share, settings["seed"]))
        yield row("training", "wrong labels", share, _recall_after(settings, wrong, test))


def _recall_after(settings: dict[str, Any], train: LabelledImages, test: LabelledImages) -> float:
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
        stored = torch.load(_feature_path(cell["weights"], split, kind, level), weights_only=True)
        return LabelledImages(f"photographs, {split}", stored["images"], stored["labels"], tuple(stored["classes"]))
    images = load(cell["settings"]["data"], split, size=cell["settings"]["image_size"])
    return images if kind == "clean" else replace(images, images=corrupt(images.images, kind, level))


def _feature_path(sha: str, split: str, kind: str, level: float) -> Path:
    return data_folder("runs") / "robustness" / f"features-{sha[:16]}-{split}-{kind}-{level:g}.pt"


def _spoil_photographs(weights: Path, sha: str, jobs: int) -> None:
    """Keep SqueezeNet's features of all photographs of `snrlib.data.sets.cub_features`, clean and spoiled."""
    wanted = [
        (split, kind, level)
        for split, chosen in (("train", _IN_TRAINING), ("test", slice(None)))
        for kind, level in [("clean", 0.0), *((kind, level) for kind in CORRUPTIONS for level in LEVELS[kind][chosen])]
    ]
    tasks = [(weights, *one, path) for one in wanted if not (path := _feature_path(sha, *one)).exists()]
    print(f"robustness: {len(wanted)} sets of features, {len(wanted) - len(tasks)} finished before", flush=True)
    run_processes(_keep_features, tasks, jobs)


def _keep_features(weights: Path, split: Literal["train", "test"], kind: str, level: float, path: Path) -> str:
    images, labels, classes = photographs(split)
    model = embedder("squeezenet1_1", None, weights)
    parts = [  # spoiled part by part, which takes less memory
        embed(model, part if kind == "clean" else corrupt(part, kind, level, seed=number))
        for number, part in enumerate(images.split(50))
    ]
    kept = {"images": torch.cat(parts)[:, :, None, None], "labels": labels, "classes": list(classes)}
    write_atomically(path, partial(torch.save, kept))
    return f"photographs, {split}: {kind} {level:g}"
