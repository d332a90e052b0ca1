"""Tiny ImageNet: 110,000 small photographs of 200 classes of ImageNet, 100 classes to train and 100 to test.

Le, Yang: Tiny ImageNet visual recognition challenge. CS 231N, Stanford University, 2015. For research; the photographs
belong to their owners.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from snrlib.data.base import LabelledImages, Split, check_split
from snrlib.data.fetch.source import Archive, Source, find, missing
from snrlib.data.image_files import ImageFiles, visible
from snrlib.data.sets.lists import check_same, read_list, read_map, repeated, some
from snrlib.data.traits import DataSet
from snrlib.utils.cache import cached_array
from snrlib.utils.checks import check_choice
from snrlib.utils.files import digest

__all__ = ["DATASET", "TINYIMAGENET", "tinyimagenet"]

_FOLDER = "tiny-imagenet-200"
_HALF = 100

TINYIMAGENET = Source(
    name="tinyimagenet",
    page="http://cs231n.stanford.edu/",
    places=(f"{_FOLDER}/wnids.txt",),
    archives=lambda: (
        Archive(
            f"{_FOLDER}.zip",
            (f"http://cs231n.stanford.edu/{_FOLDER}.zip",),
            "90528d7ca1a48142e341f4ef8d21d0de",
            (_FOLDER,),
        ),
    ),
    train=(55_000, 100),
    test=(55_000, 100),
    split="by WNID, the first 100 classes to train, the last 100 to test; or as published, 200 on both sides",
    gigabytes=0.25,
)


def tinyimagenet(
    split: Split = "train", root: str | Path | None = None, size: int = 64, classes: str = "disjoint"
) -> LabelledImages:
    """Small photographs of 200 classes, each with 500 images to train and 50 to validate; published are 64 x 64 pixels.

    The images of the authors' test half have no labels and are not read. The others are read once and kept in
    ``data/cache``, as long as no file has changed.

    Args:
        split: "train" or "test".
        root: the folder of downloaded data; ``tiny-imagenet-200`` is looked for in it and in its folders.
        size: side of the images in pixels; others are scaled to it.
        classes: "disjoint", all images of the first or of the last 100 classes, in the order of their WNIDs; "unseen",
            of those the 500 published training images of the first, or the 50 validation images of the last; or
            "published", train or val of all 200 classes, a closed set.

    Returns:
        Images (n, 3, size, size), uint8; factor ``is_training_image``, the published split.

    Raises:
        ValueError: unknown split or option, or lists that do not match each other or the disk.
        FileNotFoundError: the data set is not there.
    """
    check_split(split)
    check_choice(classes, "classes", ("disjoint", "unseen", "published"))
    found = find(root, *TINYIMAGENET.places)
    if found is None:
        raise missing(TINYIMAGENET, root)
    folder = found.parent
    wnids = sorted(row[0] for row in read_list(found, columns=1))
    table = pd.DataFrame([*_train(folder), *_val(folder)], columns=["file", "wnid", "is_training_image"])
    check_same(wnids, str(found), set(table.wnid), f"{folder}/train and val_annotations.txt")
    every = tuple(table.file)
    if classes != "disjoint":
        table = table[table.is_training_image == (split == "train")]
    if classes == "published":
        chosen = wnids
        note = "as published: the same classes in train and test"
    else:
        half = len(wnids) // 2
        chosen = wnids[:half] if split == "train" else wnids[half:]
        table = table[table.wnid.isin(chosen)]
        note = "" if half == _HALF else f"partial copy: {len(wnids)} of {2 * _HALF} classes"
    words = read_map(folder / "words.txt") if (folder / "words.txt").exists() else {}
    names = tuple(f"{words[wnid].split(',')[0]} ({wnid})" if wnid in words else wnid for wnid in chosen)
    index = {wnid: label for label, wnid in enumerate(chosen)}
    labels = torch.tensor([index[wnid] for wnid in table.wnid])
    factors = table[["is_training_image"]].reset_index(drop=True)
    pixels = _pixels(every, folder, size)[table.index.to_numpy()]
    return LabelledImages(f"tinyimagenet, {split}", torch.from_numpy(pixels), labels, names, factors, note)


def _pixels(files: tuple[Path, ...], folder: Path, size: int) -> NDArray[np.uint8]:
    """All images (n, 3, size, size): opening so many small files takes minutes."""
    whole = ImageFiles("tinyimagenet", files, torch.zeros(len(files), dtype=torch.int64), ("any",), size=size)
    states = [[path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return cached_array(
        f"tinyimagenet-{size}-{digest(states)}",
        (len(files), 3, size, size),
        np.uint8,
        lambda: whole.in_memory().images.numpy(),
        what="images of Tiny ImageNet",
    )


def _train(folder: Path) -> list[tuple[Path, str, bool]]:
    """File, WNID and published half of each training image."""
    classes = [path for path in visible(folder / "train") if path.is_dir()]
    return [(file, path.name, True) for path in classes for file in visible(path / "images")]


def _val(folder: Path) -> list[tuple[Path, str, bool]]:
    """The same of the validation images, compared with the disk."""
    rows = read_list(folder / "val" / "val_annotations.txt", columns=3)
    if twice := repeated(name for name, *_ in rows):
        raise ValueError(f"{folder}/val/val_annotations.txt holds {len(twice)} images more than once: {some(twice)}")
    listed = {name: wnid for name, wnid, _ in rows}
    check_same(
        listed,
        "val_annotations.txt",
        {path.name for path in visible(folder / "val" / "images")},
        f"{folder}/val/images",
    )
    return [(folder / "val" / "images" / name, wnid, False) for name, wnid in listed.items()]


DATASET = DataSet(
    "tinyimagenet",
    tinyimagenet,
    source=TINYIMAGENET,
    image_size=64,
    largest=64,
    training=(100, 500),
    options={"classes": "unseen"},
    folder=lambda place: place.parent,
)
