"""CIFAR-10: 60,000 colour images of 32 x 32 pixels in ten classes; torchvision reads it and checks every file.

Krizhevsky: Learning multiple layers of features from tiny images. Technical report, University of Toronto, 2009.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from snrlib.data.base import LabelledImages, Split, check_split
from snrlib.data.fetch.source import Archive, Source, find, missing
from snrlib.data.sets.lists import some
from snrlib.data.traits import DataSet
from snrlib.utils.checks import check_choice

__all__ = ["CIFAR10", "DATASET", "cifar10", "cifar_archives", "read_cifar"]

CIFAR10 = Source(
    name="cifar10",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
    places=("cifar-10-batches-py",),
    archives=lambda: cifar_archives("CIFAR10"),
    train=(50_000, 10),
    test=(10_000, 10),
    split="as published, the same ten classes on both sides; or disjoint, five and five",
    gigabytes=0.17,
)


def cifar10(split: Split = "train", root: str | Path | None = None, classes: str = "published") -> LabelledImages:
    """Colour images of ten classes.

    As published, train (50,000) and test (10,000) show the same ten classes: a closed set, unlike all other data sets
    here, and the note says so.

    Args:
        split: "train" or "test".
        root: the folder of downloaded data; ``cifar-10-batches-py`` is looked for in it and in its folders.
        classes: "published", or "disjoint": all 60,000 images, the first five classes to train, the others to test.

    Returns:
        Images (n, 3, 32, 32), uint8; factor ``is_training_image``, the published split.

    Raises:
        ValueError: unknown split or option, or a file that has not its published MD5.
        FileNotFoundError: the data set is not there.
    """
    return read_cifar("CIFAR10", CIFAR10, split, root, classes)


def cifar_archives(kind: str) -> tuple[Archive, ...]:
    """The archive of torchvision's CIFAR10 or CIFAR100, by its name and published MD5."""
    known = _known(kind)
    return (Archive(known.filename, (known.url,), known.tgz_md5, (known.base_folder,)),)


def read_cifar(kind: str, source: Source, split: Split, root: str | Path | None, classes: str) -> LabelledImages:
    """CIFAR-10 or CIFAR-100, closed ("published") or class-disjoint; see `cifar10` and `snrlib.data.sets.cifar100`."""
    check_split(split)
    check_choice(classes, "classes", ("published", "disjoint"))
    folder = find(root, *source.places)
    if folder is None:
        raise missing(source, root)
    known = _known(kind)
    expected = [*known.train_list, *known.test_list, [known.meta["filename"], known.meta["md5"]]]
    whole = _datasets().utils.check_integrity
    if bad := [name for name, md5 in expected if not whole(folder / name, md5)]:
        raise ValueError(
            f"{len(bad)} of {len(expected)} files in {folder} are missing or have another MD5 than published: "
            f"{some(bad)}; remove the folder and run `snr data fetch {source.name}`"
        )
    parts = {part: known(folder.parent, train=part == "train") for part in ("train", "test")}
    names = tuple(parts["train"].classes)
    used = [split] if classes == "published" else ["train", "test"]
    pixels = torch.from_numpy(np.concatenate([parts[part].data for part in used])).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor([label for part in used for label in parts[part].targets])
    factors = pd.DataFrame({"is_training_image": [part == "train" for part in used for _ in parts[part].targets]})
    data = LabelledImages(f"{source.name}, {split}", pixels, labels, names, factors)
    if classes == "published":
        data.note = "as published: the same classes in train and test"
        return data
    half = len(names) // 2
    data = data.of_classes(range(half) if split == "train" else range(half, len(names)))
    data.note = f"classes disjoint: the first {half} to train, the others to test"
    return data


def _datasets() -> Any:
    from snrlib.utils.torchvision_import import torchvision

    return torchvision.datasets


def _known(kind: str) -> Any:
    return getattr(_datasets(), kind)


DATASET = DataSet(
    "cifar10",
    cifar10,
    source=CIFAR10,
    sized=False,
    training=(5, 6000),
    options={"classes": "disjoint"},
)
