"""Data sets for metric learning: train and test share no class.

``load("glyphs")``, ``load("digits")`` and ``load("cub_features")`` need no download; ``snr data list`` shows all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from snrlib.data.base import LabelledImages, Split
from snrlib.data.fetch.source import Source
from snrlib.data.image_files import ImageFiles
from snrlib.data.sets.cars196 import CARS196, cars196
from snrlib.data.sets.cifar10 import CIFAR10, cifar10
from snrlib.data.sets.cifar100 import CIFAR100, cifar100
from snrlib.data.sets.cub200 import CUB200, cub200
from snrlib.data.sets.cub_features import cub_features
from snrlib.data.sets.digits import digits
from snrlib.data.sets.folder import folder
from snrlib.data.sets.glyphs import glyphs
from snrlib.data.sets.omniglot import OMNIGLOT, omniglot
from snrlib.data.sets.sop import SOP, sop
from snrlib.data.splits import validation_split

__all__ = ["DATASETS", "SOURCES", "ImageFiles", "LabelledImages", "load", "validation_split"]

_LOADERS: dict[str, Callable[..., LabelledImages | ImageFiles]] = {
    "glyphs": glyphs,
    "digits": digits,
    "omniglot": omniglot,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "cub200": cub200,
    "cub_features": cub_features,
    "cars196": cars196,
    "sop": sop,
    "folder": folder,
}
DATASETS: tuple[str, ...] = tuple(_LOADERS)
SOURCES: dict[str, Source] = {source.name: source for source in (OMNIGLOT, CIFAR10, CIFAR100, CUB200, CARS196, SOP)}


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
    if name not in _LOADERS:
        raise ValueError(f"unknown data set {name!r}; choose from {', '.join(DATASETS)}")
    return _LOADERS[name](split=split, root=root, **options)
