"""Photographs of birds as a pretrained network sees them, and its features of them: the data set ``cub_features``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snrlib.backbones import embed, embedder, transforms
from snrlib.data import load
from snrlib.utils.files import data_folder, write_atomically

__all__ = ["features", "measure_features", "photographs", "write_features"]


def features(split: Literal["train", "test"]) -> tuple[NDArray, NDArray]:
    """512 features of 750 photographs, see `snrlib.data.sets.cub_features`."""
    images = load("cub_features", split)
    return images.images.flatten(1).double().numpy(), images.labels.numpy()


@lru_cache(maxsize=2)
def photographs(
    split: Literal["train", "test"], root: str | Path | None = None, per_class: int = 30
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Some photographs of the first 50 classes of CUB, as SqueezeNet takes them.

    Args:
        split: "train", classes 1-25, or "test", 26-50.
        root: the folder of CUB-200-2011.
        per_class: how many of each class, drawn with seed 0.

    Returns:
        Images (25 per_class, 3, 224, 224), their centre crops in [0, 1]; labels (n,), from 0; the names of the classes.

    Raises:
        FileNotFoundError: CUB is not there.
        ValueError: a class with fewer photographs, or fewer than 50 classes.
    """
    crop, numbers = transforms("squeezenet1_1", 224), range(1, 26) if split == "train" else range(26, 51)
    images: list[Tensor] = []
    labels: list[int] = []
    names: list[str] = []
    generator = torch.Generator().manual_seed(0)
    for part in (load("cub200", "train", root, size=256), load("cub200", "test", root, size=256)):
        for index, name in enumerate(part.classes):
            rows = (part.labels == index).nonzero()[:, 0]
            if int(name[:3]) <= 50:  # for both splits, so that the draws of one do not depend on the split asked for
                rows = rows[torch.randperm(len(rows), generator=generator)[:per_class]].sort().values
            if int(name[:3]) not in numbers:
                continue
            if len(rows) < per_class:
                raise ValueError(f"{name} has {len(rows)} photographs, {per_class} are wanted")
            images += [crop(part[row][0]) for row in rows.tolist()]
            labels += [len(names)] * per_class
            names.append(name)
    if len(names) != 25:
        raise ValueError(f"classes {numbers[0]} to {numbers[-1]} of CUB are wanted, {len(names)} of them are there")
    return torch.stack(images), torch.tensor(labels), tuple(names)


def measure_features(weights: str | Path, root: str | Path | None = None) -> Path:
    """Make ``data/reference/cub_features.npz``, which `snrlib.data.sets.cub_features` reads, from `photographs`.

    The mean of every feature map behind SqueezeNet's last convolutions.

    Args:
        weights: file with the ImageNet weights of torchvision's squeezenet1_1.
        root: the folder of CUB-200-2011.

    Raises:
        FileNotFoundError, ValueError: CUB or the weights are not there, or not whole.
    """
    model = embedder("squeezenet1_1", None, weights)
    both = [photographs(split, root) for split in ("train", "test")]
    labels = torch.cat([both[0][1], both[1][1] + len(both[0][2])])
    pooled = torch.cat([embed(model, images) for images, _, _ in both])
    return write_features(data_folder("reference") / "cub_features.npz", pooled, labels, [*both[0][2], *both[1][2]])


def write_features(path: Path, pooled: Tensor, labels: Tensor, classes: Sequence[str]) -> Path:
    """Write what `snrlib.data.sets.cub_features.stored_features` reads: each feature in 256 steps of its root.

    Args:
        path: of the file.
        pooled: features (n, F), never negative.
        labels: (n,), from 0.
        classes: their names.

    Returns:
        The path.
    """
    roots = pooled.sqrt()
    step = float(roots.max()) / 255
    arrays: dict[str, Any] = {"steps": (roots / step).round().to(torch.uint8).numpy(), "labels": labels.numpy()}
    arrays |= {"classes": np.array(classes), "step": np.float32(step)}
    write_atomically(path, lambda temporary: np.savez_compressed(temporary, **arrays))
    return path
