"""Spoiled images and wrong labels, to ask how much a distance minds them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from snrlib.utils.checks import check_choice, check_labels, check_number

__all__ = ["CORRUPTIONS", "corrupt", "mislabel"]


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
