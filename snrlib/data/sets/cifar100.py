"""CIFAR-100: 60,000 colour images of 32 x 32 pixels in 100 classes, the first 50 to train and the last 50 to test.

Krizhevsky: Learning multiple layers of features from tiny images. Technical report, University of Toronto, 2009.
"""

from __future__ import annotations

from pathlib import Path

from snrlib.data.base import LabelledImages, Split
from snrlib.data.fetch.source import Source
from snrlib.data.sets.cifar10 import cifar_archives, cifar_folder, read_cifar
from snrlib.data.traits import DataSet

__all__ = ["CIFAR100", "DATASET", "cifar100"]

CIFAR100 = Source(
    name="cifar100",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
    places=("cifar-100-python", "train/apple"),
    archives=lambda: cifar_archives("CIFAR100"),
    train=(30_000, 50),
    test=(30_000, 50),
    split="the first 50 classes to train, the last 50 to test; or as published, 100 on both sides",
    gigabytes=0.17,
)


def cifar100(split: Split = "train", root: str | Path | None = None, classes: str = "disjoint") -> LabelledImages:
    """Colour images of 100 classes (the fine labels, in alphabetical order).

    Args:
        split: "train" or "test".
        root: the folder of downloaded data; ``cifar-100-python`` is looked for in it and in its folders, then
            ``train/apple``: a copy as folders of images, which are not the original bits, and the note says so.
        classes: "disjoint", 30,000 images of 50 classes each; "unseen", of those the 25,000 published training images
            of the first 50 and the 5,000 published test images of the last; or "published", the same 100 classes on
            both sides.

    Returns:
        Images (n, 3, 32, 32), uint8; factor ``is_training_image``, the published split.

    Raises:
        ValueError: unknown split or option, or a file that has not its published MD5.
        FileNotFoundError: the data set is not there.
    """
    return read_cifar("CIFAR100", CIFAR100, split, root, classes)


DATASET = DataSet(
    "cifar100",
    cifar100,
    source=CIFAR100,
    largest=32,
    sized=False,
    training=(50, 500),
    folder=cifar_folder,
    options={"classes": "unseen"},
)
