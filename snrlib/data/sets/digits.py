"""scikit-learn's 1,797 real handwritten digits (8 x 8): classes 0-4 to train, 5-9 to test."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from snrlib.data.base import LabelledImages, Split, check_split
from snrlib.data.traits import DataSet

__all__ = ["DATASET", "digits"]


def digits(split: Split = "train", root: str | Path | None = None, size: int = 32) -> LabelledImages:
    """Handwritten digits (E. Alpaydin and C. Kaynak, UCI Optical Recognition of Handwritten Digits), class-disjoint.

    Args:
        split: "train" is the digits 0-4 (901 images), "test" 5-9 (896).
        root: not used, the data come with scikit-learn.
        size: side in pixels, at least 8; the 8 x 8 originals are enlarged bilinearly.

    Raises:
        ValueError: unknown split, or size below 8.
    """
    check_split(split)
    if size < 8:
        raise ValueError(f"size must be at least 8 pixels, the size of the originals, got {size}")
    source = load_digits()
    labels = torch.from_numpy(source.target).long()
    chosen = labels < 5 if split == "train" else labels >= 5
    images = torch.from_numpy(source.images).float()[chosen, None] / 16
    if size != 8:
        images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    first = 0 if split == "train" else 5
    classes = tuple(str(digit) for digit in range(first, first + 5))
    return LabelledImages(f"digits, {split}", images, labels[chosen] - first, classes)


DATASET = DataSet("digits", digits, training=(5, 181))
