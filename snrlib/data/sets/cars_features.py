"""Cars as a stronger pretrained network sees them: EfficientNet-lite0's pooled features of the images of Cars196."""

from __future__ import annotations

from pathlib import Path

from snrlib.data.base import LabelledImages, Split, check_split
from snrlib.data.sets.cub_features import stored_features
from snrlib.data.traits import DataSet
from snrlib.utils.files import data_folder

__all__ = ["DATASET", "cars_features", "file"]


def file() -> Path:
    """Where the features stand once they are measured: too many to come with the study."""
    return data_folder("cache") / "cars_features.npz"


def cars_features(split: Split = "train", root: str | Path | None = None, size: int = 1) -> LabelledImages:
    """1,280 features of each image of Cars196, for the classes that train and for those that test.

    `snrlib.study.car_features.measure_car_features` makes them: each is the mean over the image, at 128 pixels, of one
    of the last feature maps of EfficientNet-lite0 with ImageNet weights, never negative, in 256 steps of its root.

    Args:
        split: "train" is the first half of the classes of `snrlib.data.sets.cars196`, "test" the second.
        root: not used.
        size: side in pixels, 1: a feature vector is an image of one pixel and 1,280 channels.

    Raises:
        ValueError: unknown split, another size, or a damaged file.
        FileNotFoundError: they were not measured yet.
    """
    check_split(split)
    note = "EfficientNet-lite0's pooled features of Cars196 at 128 pixels"
    whole = stored_features(file(), f"cars_features, {split}", size, note, "snr measure cars_features")
    half = len(whole.classes) // 2
    return whole.of_classes(range(half) if split == "train" else range(half, len(whole.classes)))


DATASET = DataSet(
    "cars_features",
    cars_features,
    kind="features",
    image_size=1,
    training=(98, 41),
    same_images_as="cars196",
    file=file,
)
