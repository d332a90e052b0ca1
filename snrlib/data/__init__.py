"""Data sets for metric learning: train and test share no class.

``load("glyphs")`` and ``load("digits")`` need no download.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from snrlib.data.base import LabelledImages, Split
from snrlib.data.digits import digits
from snrlib.data.glyphs import glyphs

__all__ = ["DATASETS", "LabelledImages", "load"]

_LOADERS: dict[str, Callable[..., LabelledImages]] = {"glyphs": glyphs, "digits": digits}
DATASETS: tuple[str, ...] = tuple(_LOADERS)


def load(name: str, split: Split = "train", root: str | Path | None = None, **options: Any) -> LabelledImages:
    """A data set by name.

    Args:
        name: one of `DATASETS`.
        split: "train" or "test"; no class is in both.
        root: the folder of downloaded data; glyphs and digits need none and do not look at it.
        **options: the data set's own, see `snrlib.data.glyphs.glyphs` and `snrlib.data.digits.digits`.

    Raises:
        ValueError: unknown name, split or option value.
        TypeError: unknown option.

    >>> load("digits", split="test").classes
    ('5', '6', '7', '8', '9')
    """
    if name not in _LOADERS:
        raise ValueError(f"unknown data set {name!r}; choose from {', '.join(DATASETS)}")
    return _LOADERS[name](split=split, root=root, **options)
