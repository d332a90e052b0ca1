"""Photographs as a pretrained network sees them: SqueezeNet's pooled features of some images of CUB-200-2011."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from snrlib.data.base import LabelledImages, Split, check_split
from snrlib.data.traits import DataSet
from snrlib.utils.files import data_folder
from snrlib.utils.reading import read_npz

__all__ = ["DATASET", "FORTY", "cub_features", "stored_features"]


def cub_features(
    split: Split = "train", root: str | Path | None = None, size: int = 1, training: int | None = None
) -> LabelledImages:
    """512 features of each of 30 photographs of 50 kinds of birds, for the first kinds and for the others.

    ``data/reference/cub_features.npz`` holds them; `snrlib.study.bird_features.measure_features` made it. Each is
    the mean over the picture of one of the last feature maps of SqueezeNet 1.1 with ImageNet weights, never negative,
    in 256 steps of its square root.

    Args:
        split: "train" is classes 1-25 of CUB (750 images), "test" 26-50 (750), unless ``training`` says otherwise.
        root: not used, the features come with the study.
        size: side in pixels, 1: a feature vector is an image of one pixel and 512 channels.
        training: how many of the classes train, at least two; the others, at least two, test. None is half of them.

    Raises:
        ValueError: unknown split, another size, or too few classes on a side.
        FileNotFoundError: the file is not there.
    """
    check_split(split)
    name = f"cub_features, {split}" + ("" if training is None else f", {training} classes train")
    note = "SqueezeNet's pooled features of photographs, 30 of each of the first 50 classes of CUB"
    whole = stored_features(_file(), name, size, note, "snr measure cub_features")
    n_classes = len(whole.classes)
    n_training = n_classes // 2 if training is None else training
    if n_training not in range(2, n_classes - 1):
        raise ValueError(f"training must leave two classes on each side, got {training!r} of {n_classes}")
    return whole.of_classes(range(n_training) if split == "train" else range(n_training, n_classes))


def stored_features(path: Path, name: str, size: int, note: str, command: str) -> LabelledImages:
    """All that a file of features holds, see `snrlib.study.bird_features.write_features`.

    Args:
        path: of the file.
        name: of what is returned.
        size: side in pixels that was asked for, 1.
        note: of what is returned.
        command: that makes the file.

    Returns:
        Features of n images as images (n, F, 1, 1), float32, never negative.

    Raises:
        ValueError: another size, or a damaged file.
        FileNotFoundError: the file is not there.
    """
    if size != 1:
        raise ValueError(f"size must be 1, features have no picture any more, got {size}")
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; `{command}` makes it")
    stored = read_npz(path, f"`{command}` makes it anew", "steps", "step", "labels", "classes")
    features = torch.from_numpy(stored["steps"]).float().mul(float(stored["step"])).square()
    labels = torch.from_numpy(stored["labels"])
    return LabelledImages(name, features[:, :, None, None], labels, tuple(stored["classes"].tolist()), note=note)


def _file() -> Path:
    return data_folder("reference") / "cub_features.npz"


DATASET = DataSet(
    "cub_features", cub_features, kind="features", image_size=1, training=(25, 30), same_images_as="cub200", file=_file
)
FORTY = replace(DATASET, name="cub_features_40", load=partial(cub_features, training=40), training=(40, 30))
"""More classes to train on, ten to judge: with other divisions of the classes, a cross-validation over classes."""
