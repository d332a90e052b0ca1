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

__all__ = ["DATASET", "FORTY", "cub_features"]


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
    if size != 1:
        raise ValueError(f"size must be 1, features have no picture any more, got {size}")
    path = data_folder("reference") / "cub_features.npz"
    stored = read_npz(path, "`snr measure cub_features` makes it anew", "steps", "step", "labels", "classes")
    labels, classes = torch.from_numpy(stored["labels"]), stored["classes"].tolist()
    n_training = len(classes) // 2 if training is None else training
    if n_training not in range(2, len(classes) - 1):
        raise ValueError(f"training must leave two classes on each side, got {training!r} of {len(classes)}")
    features = torch.from_numpy(stored["steps"]).float().mul(float(stored["step"])).square()
    whole = LabelledImages(
        f"cub_features, {split}" + ("" if training is None else f", {training} classes train"),
        features[:, :, None, None],
        labels,
        tuple(classes),
        note="SqueezeNet's pooled features of photographs, 30 of each of the first 50 classes of CUB",
    )
    return whole.of_classes(range(n_training) if split == "train" else range(n_training, len(classes)))


DATASET = DataSet(
    "cub_features", cub_features, kind="features", image_size=1, training=(25, 30), same_images_as="cub200"
)
FORTY = replace(DATASET, name="cub_features_40", load=partial(cub_features, training=40), training=(40, 30))
"""More classes to train on, ten to judge: with other divisions of the classes, a cross-validation over classes."""
