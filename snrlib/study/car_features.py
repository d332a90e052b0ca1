"""Photographs of cars as EfficientNet-lite0 sees them: the data set ``cars_features``."""

from __future__ import annotations

from pathlib import Path

import torch

from snrlib.backbones import embed, embedder, transforms
from snrlib.data import load
from snrlib.data.sets import cars_features
from snrlib.study.bird_features import write_features

__all__ = ["measure_car_features"]

_SIDE = 128  # of the images, in pixels


def measure_car_features(root: str | Path | None = None) -> Path:
    """Make ``data/cache/cars_features.npz``, which `snrlib.data.sets.cars_features` reads, from all of Cars196.

    The mean of every feature map behind EfficientNet-lite0's last convolution, with ImageNet weights; a minute.

    Args:
        root: the folder of Cars196.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError, ValueError: Cars196 is not there, or not whole.
        ImportError: the packages of the extra ``pretrained`` are not there.
    """
    model = embedder("efficientnet_lite0", None, "imagenet")
    crop = transforms("efficientnet_lite0", _SIDE)
    halves = [load("cars196", split, root, size=_SIDE) for split in ("train", "test")]
    pooled = torch.cat([embed(model, images, transform=crop) for images in halves])
    labels = torch.cat([halves[0].labels, halves[1].labels + len(halves[0].classes)])
    return write_features(cars_features.file(), pooled, labels, [name for half in halves for name in half.classes])
