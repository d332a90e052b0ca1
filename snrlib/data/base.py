"""What every data set returns: images, labels, class names and the factors that made each image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal, get_args

import pandas as pd
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["LabelledImages", "Split", "check_split"]

Split = Literal["train", "test"]


@dataclass(eq=False)
class LabelledImages(Dataset):
    """Images in memory with their classes.

    Args:
        name: data set and split, for captions.
        images: (n, channels, height, width), float32, about [0, 1].
        labels: (n,), int64, an index into ``classes``.
        classes: name of each class.
        factors: one row an image: what varied besides the class (face, rotation, ...); may have no columns.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    factors: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    def __repr__(self) -> str:
        return f"{self.name}: {len(self)} images {tuple(self.images.shape[1:])} of {len(self.classes)} classes"

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of images and labels: same fingerprint, same bits."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.labels):
            digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def check_split(split: str) -> None:
    """Refuse any split but the known ones."""
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}, got {split!r}")
