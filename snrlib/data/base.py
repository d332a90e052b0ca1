"""What every data set returns: images, labels, class names and the factors that made each image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, get_args

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = [
    "Described",
    "LabelledImages",
    "Split",
    "check_split",
    "description",
    "rows_of_classes",
    "take_rows",
]

Split = Literal["train", "test"]


class Described(Protocol):
    """What `description` needs of a data set."""

    name: str
    classes: tuple[str, ...]
    note: str

    def __len__(self) -> int: ...


@dataclass(eq=False)
class LabelledImages(Dataset):
    """Images in memory with their classes. What is taken out of it is float32, however it is stored.

    Args:
        name: data set and split, for captions.
        images: (n, channels, height, width), float32, about [0, 1]; or uint8, 0 to 255, a quarter of the memory.
        labels: (n,), int64, an index into ``classes``.
        classes: name of each class.
        factors: one row an image: what varied besides the class (face, rotation, ...); may have no columns.
        note: what a reader must know of this copy or split (a part of the classes only, say); shown in the repr.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    factors: pd.DataFrame = field(default_factory=pd.DataFrame)
    note: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return _as_float(self.images[index]), self.labels[index]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """A whole batch at once; torch's DataLoader calls it."""
        rows = torch.as_tensor(indices)
        return list(zip(_as_float(self.images[rows]), self.labels[rows], strict=True))

    def __repr__(self) -> str:
        return description(self, tuple(self.images.shape[1:]))

    def of_classes(self, indices: Sequence[int]) -> LabelledImages:
        """Only these classes, relabelled 0, 1, ... in the order given.

        Raises:
            ValueError: no class, a class named twice, or one that does not exist.
        """
        rows, labels = rows_of_classes(self.labels, len(self.classes), indices)
        return replace(
            self,
            images=self.images[rows],
            labels=labels,
            classes=tuple(self.classes[i] for i in indices),
            factors=take_rows(self.factors, rows),
        )

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of images and labels: same fingerprint, same bits."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.labels):
            digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def _as_float(images: Tensor) -> Tensor:
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def description(data: Described, shape: tuple[int, ...]) -> str:
    """One line on a data set for a notebook: name, size, image shape, classes, and its note."""
    note = f" ({data.note})" if data.note else ""
    return f"{data.name}: {len(data)} images {shape} of {len(data.classes)} classes{note}"


def rows_of_classes(labels: Tensor, n_classes: int, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The rows whose label is among ``indices``, in their order, and their new labels: positions in ``indices``.

    Args:
        labels: (n,), int64.
        n_classes: how many classes there are.
        indices: the classes wanted, each once.

    Raises:
        ValueError: no class, a class named twice, or one that does not exist.
    """
    wanted = [int(i) for i in indices]
    if not wanted or len(set(wanted)) < len(wanted) or min(wanted) < 0 or max(wanted) >= n_classes:
        raise ValueError(f"class indices must be one or more of 0 to {n_classes - 1}, each once, got {wanted}")
    position = torch.full((n_classes,), -1)
    position[torch.tensor(wanted)] = torch.arange(len(wanted))
    new = position[labels]
    rows = (new >= 0).nonzero()[:, 0]
    return rows, new[rows]


def take_rows(factors: pd.DataFrame, rows: Tensor) -> pd.DataFrame:
    """These rows of a table of factors, numbered anew; a table without rows stays as it is."""
    return factors.iloc[rows.numpy()].reset_index(drop=True) if len(factors) else factors


def check_split(split: str) -> None:
    """Refuse any split but the known ones."""
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}, got {split!r}")
