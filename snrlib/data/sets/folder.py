"""A user's own images: one sub-folder a class."""

from __future__ import annotations

from pathlib import Path

import torch

from snrlib.data.base import Split, check_split
from snrlib.data.image_files import IMAGE_ENDINGS, ImageFiles
from snrlib.data.sets.lists import some
from snrlib.data.splits import shuffled_classes
from snrlib.data.traits import DataSet
from snrlib.utils.checks import check_number

__all__ = ["DATASET", "folder"]


def folder(
    split: Split = "train", root: str | Path | None = None, size: int = 256, share: float = 0.5, seed: int = 0
) -> ImageFiles:
    """The images of a folder that holds one sub-folder a class.

    If it holds ``train`` and ``test``, and these hold the classes, that is the split; else a fixed shuffle sends a
    share of the classes to train and the others to test. Hidden files and folders are passed over; files with another
    ending than an image's are left out, and the note says so.

    Args:
        split: "train" or "test".
        root: the folder; it must be given.
        size: side of the square image in pixels.
        share: of the classes, that go to train; rounded. Not used where there are ``train`` and ``test``.
        seed: of the shuffle.

    Raises:
        ValueError: unknown split, no root, share not from 0 to 1, a class without images, a class in both ``train`` and
            ``test``, or fewer than two classes in a split.
        FileNotFoundError: there is no such folder.
    """
    check_split(split)
    check_number(share, "share", at_least=0, at_most=1)
    if root is None:
        raise ValueError("the data set 'folder' needs root=PATH, a folder that holds one sub-folder a class")
    base = Path(root).expanduser().absolute()
    if not base.is_dir():
        raise FileNotFoundError(f"there is no folder {base}; make it and put one sub-folder a class into it")
    parts = {part: _folders(base / part) for part in ("train", "test")}
    notes = []
    if all(parts.values()):
        classes = parts[split]
        if both := sorted({path.name for path in parts["train"]} & {path.name for path in parts["test"]}):
            raise ValueError(f"{len(both)} classes are in both train and test of {base}: {some(both)}")
        if others := [path.name for path in _folders(base) if path.name not in parts]:
            notes.append(f"beside train and test, left out: {some(others)}")
    else:
        classes = _folders(base)
        order = shuffled_classes(len(classes), seed)
        cut = round(share * len(classes))
        classes = [classes[i] for i in sorted(order[:cut] if split == "train" else order[cut:])]
    if len(classes) < 2:
        raise ValueError(f"{base} gives {len(classes)} classes to {split}; at least two sub-folders are needed there")
    files: list[Path] = []
    labels: list[int] = []
    others = []
    for label, path in enumerate(classes):
        inside = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        images = [file for file in inside if file.suffix.lower() in IMAGE_ENDINGS]
        if not images:
            raise ValueError(f"the class {path} holds no image ({', '.join(IMAGE_ENDINGS)})")
        files += images
        labels += [label] * len(images)
        others += [f"{path.name}/{file.name}" for file in inside if file not in images]
    if others:
        notes.append(f"{len(others)} files without an image's ending left out: {some(others)}")
    names = tuple(path.name for path in classes)
    return ImageFiles(
        f"{base.name}, {split}", tuple(files), torch.tensor(labels), names, size=size, note="; ".join(notes)
    )


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(inside for inside in path.iterdir() if inside.is_dir() and not inside.name.startswith("."))


DATASET = DataSet("folder", folder, kind="photographs", image_size=224)
