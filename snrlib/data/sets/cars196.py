"""Cars196: photographs of 196 models of cars, the first 98 to train and the last 98 to test.

Krause, Stark, Deng, Fei-Fei: 3D object representations for fine-grained categorization. IEEE workshop on 3D
representation and recognition, Sydney, 2013. For research; the photographs belong to their owners.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.io import loadmat

from snrlib.data.base import Split, check_split
from snrlib.data.fetch.source import Archive, Source, find, missing
from snrlib.data.image_files import ImageFiles, visible
from snrlib.data.sets.lists import some
from snrlib.data.traits import DataSet

__all__ = ["CARS196", "DATASET", "cars196"]

_CLASSES = 196

CARS196 = Source(
    name="cars196",
    page="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
    places=("cars_annos.mat", "devkit/cars_train_annos.mat"),
    archives=lambda: (
        Archive(
            "car_ims.tgz",
            (
                "http://ai.stanford.edu/~jkrause/car196/car_ims.tgz",
                "http://imagenet.stanford.edu/internal/car196/car_ims.tgz",
            ),
            "d5c8f0aa497503f355e17dc7886c3f14",
            ("car_ims",),
        ),
        Archive(
            "cars_annos.mat",
            (
                "http://ai.stanford.edu/~jkrause/cars/cars_annos.mat",
                "http://imagenet.stanford.edu/internal/car196/cars_annos.mat",
            ),
            "b407c6086d669747186bd1d764ff9dbc",
        ),
    ),
    train=(8_054, 98),
    test=(8_131, 98),
    split="the first 98 classes to train, the last 98 to test",
    gigabytes=1.9,
)


def cars196(split: Split = "train", root: str | Path | None = None, size: int = 256) -> ImageFiles:
    """Cars by make, model and year, in the field's split for metric learning: no model is in both.

    Both layouts that its authors published are read: ``car_ims`` with ``cars_annos.mat``; or ``cars_train`` and
    ``cars_test`` with ``devkit`` and ``cars_test_annos_withlabels.mat`` (in ``devkit`` or beside it), each folder once
    or within one of its own name. Without ``cars_test`` the training half stands for the whole. Of a copy that holds
    only some classes, the first half of those go to train, the others to test; the note says either.

    Args:
        split: "train" or "test".
        root: the folder of downloaded data; the layouts are looked for in it and in its folders.
        size: side of the square image in pixels.

    Returns:
        Image files; factor ``is_training_image``, the authors' own split, which shows every class on both sides.

    Raises:
        ValueError: unknown split, annotations that cannot be read or do not match the images on disk.
        FileNotFoundError: the data set or a part of it is not there.
    """
    check_split(split)
    found = find(root, *CARS196.places)
    if found is None:
        raise missing(CARS196, root)
    folder, names, table = _whole(found) if found.name == "cars_annos.mat" else _devkit(found.parent)
    half_alone = found.name != "cars_annos.mat" and table.is_training_image.all()
    notes = ["the authors' training half alone: cars_test is not there"] if half_alone else []
    labelled = set(table.label)
    if wrong := sorted(labelled - set(range(len(names)))):
        raise ValueError(f"the annotations in {folder} hold labels that are no class: {some([str(w) for w in wrong])}")
    if empty := [name for label, name in enumerate(names) if label not in labelled]:
        raise ValueError(f"the annotations in {folder} hold no image of {some(empty)}")
    on_disk = {path for part in {file.parent for file in table.file} for path in visible(part)}
    if extra := sorted(path.name for path in on_disk - set(table.file)):
        raise ValueError(f"{len(extra)} of {len(on_disk)} images in {folder} have no annotation: {some(extra)}")
    there = table.file.isin(on_disk)
    present = sorted(set(table.label[there]))
    rows = table[table.label.isin(present)]
    if lost := [path.name for path in rows.file[~there[rows.index]]]:
        raise ValueError(f"{len(lost)} of {len(rows)} annotated images are not in {folder}: {some(lost)}")
    if len(present) < 2:
        raise ValueError(f"{folder} holds images of {len(present)} of the {len(names)} classes; two are needed")

    half = len(present) // 2
    chosen = present[:half] if split == "train" else present[half:]
    index = {label: i for i, label in enumerate(chosen)}
    rows = rows[rows.label.isin(chosen)].reset_index(drop=True)
    if len(present) < _CLASSES:
        split_said = f"the first {half} to train and the others to test"
        notes.append(f"partial copy: {len(present)} of {_CLASSES} classes, {split_said}")
    return ImageFiles(
        f"cars196, {split}",
        tuple(rows.file),
        torch.tensor([index[label] for label in rows.label]),
        tuple(names[label] for label in chosen),
        rows[["is_training_image"]],
        size,
        "; ".join(notes),
    )


def _whole(annotations: Path) -> tuple[Path, tuple[str, ...], pd.DataFrame]:
    """``car_ims`` and ``cars_annos.mat``: folder, class names, and file, label and official split of each image."""
    content = _load(annotations, "annotations", "class_names")
    folder = annotations.parent
    rows = [(folder / str(a["relative_im_path"]), int(a["class"]) - 1, not a["test"]) for a in content["annotations"]]
    return folder, tuple(map(str, content["class_names"])), _table(rows)


def _devkit(devkit: Path) -> tuple[Path, tuple[str, ...], pd.DataFrame]:
    """``cars_train``, ``cars_test`` and ``devkit``: the same."""
    folder = devkit.parent if (devkit.parent / "cars_train").is_dir() else devkit.parent.parent  # car_devkit/devkit
    lists = {"cars_train": devkit / "cars_train_annos.mat"}
    tests = [place / "cars_test_annos_withlabels.mat" for place in (devkit, devkit.parent, folder)]
    if test := next((path for path in tests if path.exists()), None):
        lists["cars_test"] = test
    elif visible(folder / "cars_test"):
        raise FileNotFoundError(f"neither {tests[0]} nor {tests[1]} is there; it labels the images of cars_test")
    rows = [
        (_images(folder, part) / str(a["fname"]), int(a["class"]) - 1, part == "cars_train")
        for part, path in lists.items()
        for a in _load(path, "annotations")["annotations"]
    ]
    names = _load(devkit / "cars_meta.mat", "class_names")["class_names"]
    return folder, tuple(map(str, names)), _table(rows)


def _images(folder: Path, part: str) -> Path:
    """``cars_train`` or ``cars_test``, which archives put into a folder of the same name."""
    nested = folder / part / part
    return nested if nested.is_dir() else folder / part


def _table(rows: list[tuple[Path, int, bool]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["file", "label", "is_training_image"])


def _load(path: Path, *keys: str) -> dict[str, Any]:
    try:
        content = loadmat(path, squeeze_me=True)
        return {key: np.atleast_1d(content[key]) for key in keys}
    except FileNotFoundError:
        raise
    except Exception as error:  # scipy raises whatever a damaged file leads it to
        raise ValueError(f"{path} cannot be read as annotations of Cars196: {error}") from error


DATASET = DataSet("cars196", cars196, source=CARS196, kind="photographs", image_size=224, training=(98, 82))
