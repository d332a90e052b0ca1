"""Data sets for metric learning: train and test share no class.

``load("glyphs")``, ``load("digits")`` and ``load("cub_features")`` need no download; ``snr data list`` shows all.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from snrlib.data.base import LabelledImages, Split
from snrlib.data.fetch.source import Source, data_root, find, missing
from snrlib.data.image_files import ImageFiles
from snrlib.data.sets import (
    cars196,
    cars_features,
    cifar10,
    cifar100,
    cub200,
    cub_features,
    digits,
    folder,
    glyphs,
    omniglot,
    sop,
    tinyimagenet,
)
from snrlib.data.splits import validation_split
from snrlib.data.traits import DataSet

__all__ = [
    "DATASETS",
    "SOURCES",
    "DataSet",
    "ImageFiles",
    "LabelledImages",
    "files_state",
    "load",
    "training_classes",
    "validation_split",
]

_MODULES = (glyphs, digits, omniglot, cifar10, cifar100, cub200, cub_features, cars196, sop, tinyimagenet, folder)
_OTHERS = (cifar10.PUBLISHED, cub_features.FORTY, cars_features.DATASET)  # the same images, otherwise presented
DATASETS: dict[str, DataSet] = {one.name: one for one in (*(module.DATASET for module in _MODULES), *_OTHERS)}
"""What each data set is, by its name."""
SOURCES: dict[str, Source] = {name: one.source for name, one in DATASETS.items() if one.source is not None}
"""Where those come from that are downloaded."""


def files_state(name: str, root: str | Path | None = None, weights: Path | None = None) -> str:
    """A digest of the names, sizes and times of the files that a training reads; "" if the code alone makes its images.

    Cheap: no file is opened. It tells whether one may have changed since. Names count from the folder that holds all
    files, so that the folder may move.

    Args:
        name: one of `DATASETS`.
        root: as for `load`.
        weights: the file of a network's weights, see `snrlib.backbones.weights_path`; None is no file of the user's.

    Raises:
        ValueError, FileNotFoundError: as `load`; they are damaged, or not there.
    """
    data, files = DATASETS[name], set()
    if data.kind == "photographs":
        for split in ("train", "test"):
            files |= {*data.load(split=split, root=root).files}
        if root is not None and Path(root).is_file():  # the table that lists them
            files.add(Path(root).absolute())
    elif data.file is not None:
        files.add(data.file())
    elif data.source is not None:
        places = [data.folder(place) for name in data.source.places if (place := find(root, name)) is not None]
        if not places:
            raise missing(data.source, root)
        files |= {file for place in places for file in (place.rglob("*") if place.is_dir() else [place])}
    lines = _states(files)
    if weights is not None:
        lines += _states({weights})
    if not lines:
        return ""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def training_classes(name: str, root: str | Path | None = None) -> tuple[int, int]:
    """How many classes an experiment trains on, validation classes included, and how many images the middle one has.

    The files of photographs tell, if they are there; of other data sets it is known.

    Args:
        name: one of `DATASETS`.
        root: as for `load`.

    Raises:
        ValueError, FileNotFoundError: as `load`; of published photographs only that they are damaged.
    """
    return _training_classes(name, None if root is None else str(root), str(data_root()))


@lru_cache(maxsize=8)  # the cells of a grid ask for the same ones
def _training_classes(name: str, root: str | None, usual_root: str) -> tuple[int, int]:
    """``usual_root`` is part of the key: where the files are looked for if ``root`` is None."""
    data = DATASETS[name]
    if data.kind == "photographs":
        try:
            counts = data.load(split="train", root=root).labels.bincount()
            return len(counts), int(counts.median())
        except FileNotFoundError:
            if data.training is None:
                raise
    assert data.training is not None
    return data.training


def _states(files: set[Path]) -> list[str]:
    """Name below their common folder, bytes and time of each."""
    if not files:
        return []
    folder = os.path.commonpath([path.parent for path in files])
    known = [(path.relative_to(folder).as_posix(), path.stat()) for path in sorted(files)]
    return [f"{name} {about.st_size} {about.st_mtime_ns}" for name, about in known]


def load(name: str, split: Split = "train", root: str | Path | None = None, **options: Any) -> Any:
    """A data set by name.

    Args:
        name: one of `DATASETS`.
        split: "train" or "test"; no class is in both, unless the data set's note says so.
        root: the folder of downloaded data, else ``SNR_DATA``, else ``data/raw``; those that need no download do not
            look at it.
        **options: the data set's own, see the function of its name in the module of its name.

    Returns:
        `LabelledImages`, or `ImageFiles` for photographs that stay in their files.

    Raises:
        ValueError: unknown name, split or option value; files that are damaged or do not match.
        TypeError: unknown option.
        FileNotFoundError: the data set is not there; the message says which file to put where.

    >>> load("digits", split="test").classes
    ('5', '6', '7', '8', '9')
    """
    if not isinstance(name, str) or name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; choose from {', '.join(DATASETS)}")
    return DATASETS[name].load(split=split, root=root, **options)
