"""CIFAR-10: 60,000 colour images of 32 x 32 pixels in ten classes; torchvision reads it and checks every file.

Krizhevsky: Learning multiple layers of features from tiny images. Technical report, University of Toronto, 2009.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from snrlib.data.base import LabelledImages, Split, check_split
from snrlib.data.fetch.source import Archive, Source, find, missing
from snrlib.data.image_files import ImageFiles, image_endings, visible
from snrlib.data.sets.lists import some
from snrlib.data.traits import DataSet
from snrlib.utils.checks import check_choice

__all__ = ["CIFAR10", "DATASET", "cifar10", "cifar_archives", "cifar_folder", "read_cifar"]

CIFAR10 = Source(
    name="cifar10",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
    places=("cifar-10-batches-py", "train/airplane"),
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
        root: the folder of downloaded data; ``cifar-10-batches-py`` is looked for in it and in its folders, then
            ``train/airplane``: a copy as folders of images, which are not the original bits, and the note says so.
        classes: "published"; "disjoint": all 60,000 images, the first five classes to train, the others to test; or
            "unseen": the 25,000 published training images of the first five classes, and the 5,000 published test
            images of the others, for scores that take no hours to compute.

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


def cifar_folder(place: Path) -> Path:
    """The folder of the whole data set, by the place at which it was found: itself, or that of ``train/airplane``."""
    return place.parent.parent if place.parent.name == "train" else place


def read_cifar(kind: str, source: Source, split: Split, root: str | Path | None, classes: str) -> LabelledImages:
    """CIFAR-10 or CIFAR-100, closed ("published") or by classes; see `cifar10` and `snrlib.data.sets.cifar100`."""
    check_split(split)
    check_choice(classes, "classes", ("published", "disjoint", "unseen"))
    folder = find(root, *source.places)
    if folder is None:
        raise missing(source, root)
    used: tuple[Split, ...] = ("train", "test") if classes == "disjoint" else (split,)
    whole = cifar_folder(folder)
    data = _original(kind, folder, source, used) if whole == folder else _as_images(whole, source, used)
    data.name = f"{source.name}, {split}"
    if classes == "published":
        note = "as published: the same classes in train and test"
    else:
        n = len(data.classes)
        half = n // 2
        data = data.of_classes(range(half) if split == "train" else range(half, n))
        note = f"classes disjoint: the first {half} to train, the others to test"
    data.note = f"{note}; {data.note}" if data.note else note
    return data if isinstance(data, LabelledImages) else data.in_memory()


def _original(kind: str, folder: Path, source: Source, used: tuple[Split, ...]) -> LabelledImages:
    """One or both of the published halves."""
    known = _known(kind)
    expected = [*known.train_list, *known.test_list, [known.meta["filename"], known.meta["md5"]]]
    whole = _datasets().utils.check_integrity
    if bad := [name for name, md5 in expected if not whole(folder / name, md5)]:
        raise ValueError(
            f"{len(bad)} of {len(expected)} files in {folder} are missing or have another MD5 than published: "
            f"{some(bad)}; remove the folder and run `snr data fetch {source.name}`"
        )
    parts = [known(folder.parent, train=part == "train") for part in used]
    pixels = torch.from_numpy(np.concatenate([part.data for part in parts])).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor([label for part in parts for label in part.targets])
    factors = pd.DataFrame({"is_training_image": [part.train for part in parts for _ in part.targets]})
    return LabelledImages("", pixels, labels, tuple(parts[0].classes), factors)


def _as_images(folder: Path, source: Source, used: tuple[Split, ...]) -> ImageFiles:
    """The same of a copy as folders of images, ``train/CLASS`` and ``test/CLASS``."""
    n = 100 if source.name == "cifar100" else 10
    names = [path.name for path in visible(folder / "train") if path.is_dir()]
    for part in ("train", "test"):
        there = [path.name for path in visible(folder / part) if path.is_dir()]
        if len(there) != n or there != names:
            raise ValueError(f"{folder / part} holds {len(there)} folders of classes; train and test need the same {n}")
    rows = [
        (path, label, part == "train")
        for part in used
        for label, name in enumerate(names)
        for path in visible(folder / part / name)
        if path.suffix.lower() in image_endings()
    ]
    files, labels, is_training = zip(*rows, strict=True)
    factors = pd.DataFrame({"is_training_image": is_training})
    note = "a copy as folders of images, not the original bits"
    return ImageFiles("", files, torch.tensor(labels), tuple(names), factors, size=32, note=note)


def _datasets() -> Any:
    from snrlib.utils.torchvision_import import torchvision

    return torchvision.datasets


def _known(kind: str) -> Any:
    return getattr(_datasets(), kind)


DATASET = DataSet(
    "cifar10",
    cifar10,
    source=CIFAR10,
    largest=32,
    sized=False,
    training=(5, 5000),
    folder=cifar_folder,
    options={"classes": "unseen"},
)
PUBLISHED = replace(
    DATASET,
    name="cifar10_published",
    training=(10, 5000),
    options={"classes": "published"},
    same_images_as="cifar10",
)
"""The closed set of the report: its test images show the classes that trained."""
