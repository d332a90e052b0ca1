"""A user's own images: folders of classes, or a table that names files and their classes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from snrlib.data.base import Split, check_split
from snrlib.data.image_files import ImageFiles, image_endings, is_left_behind, visible
from snrlib.data.sets.lists import repeated, some
from snrlib.data.splits import shuffled_classes
from snrlib.data.traits import DataSet
from snrlib.utils.checks import check_choice, check_number

__all__ = ["DATASET", "folder"]

_LAYOUTS = (
    "Expected is one sub-folder per class (CLASS/1.jpg); or train/CLASS/1.jpg and test/CLASS/1.jpg (or val); "
    "or root=labels.csv (or .tsv, .parquet) with the columns path, label and perhaps split"
)
_TABLES = (".csv", ".tsv", ".parquet")
_PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_PARTS |= dict.fromkeys(("val", "valid", "validation", "dev"), "val")
_COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path"),
    "label": ("label", "class", "class_name", "category", "target"),
    "split": ("split", "set", "subset", "part"),
}


@dataclass
class _Found:
    """Images by part ("train", "val", "test"; "" where there are none) and class, and what a reader should know."""

    images: dict[str, dict[str, list[Path]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    notes: list[str] = field(default_factory=list)


def folder(
    split: Split = "train",
    root: str | Path | None = None,
    size: int = 256,
    share: float = 0.5,
    seed: int = 0,
    classes: str = "disjoint",
) -> ImageFiles:
    """Images in folders of classes, or listed in a table.

    A class is a sub-folder with all images in it and below it. If the folder holds ``train`` and ``test`` (or ``val``,
    in any case of letters), and these hold the classes, that is the split; without ``test``, ``val`` takes its place,
    and beside it ``val`` belongs to train. Else a fixed shuffle sends a share of the classes to train and the others to
    test. A folder that holds nothing but one folder, without an image, is that folder. A table has the columns path
    (from its own folder), label, and perhaps split.

    What systems leave behind is passed over. Whatever else is left out, the note counts.

    Args:
        split: "train" or "test".
        root: the folder, or the table (.csv, .tsv, .parquet); it must be given.
        size: side of the square image in pixels.
        share: of the classes, that go to train; rounded. Not used where there are train and test.
        seed: of the shuffle.
        classes: where train and test show the same classes: "disjoint" puts them together and splits them by class;
            "published" keeps them, a closed set, and the note says so.

    Raises:
        ValueError: unknown split or option, no root, share not from 0 to 1, fewer than two classes in a split, nothing
            that is an image, or a table that cannot be read, lacks a column, or names files that are not there.
        FileNotFoundError: there is no such folder or table.
    """
    check_split(split)
    check_number(share, "share", at_least=0, at_most=1)
    check_choice(classes, "classes", ("disjoint", "published"))
    if root is None:
        raise ValueError(f"the data set 'folder' needs root=PATH. {_LAYOUTS}")
    base = Path(root).expanduser().absolute()
    if not base.exists():
        raise FileNotFoundError(f"there is no folder or table {base}. {_LAYOUTS}")
    found = _in_folders(base) if base.is_dir() else _in_table(base)
    chosen = _chosen(found, split, classes, share, seed, base)
    if len(chosen) < 2:
        total = len({name for part in found.images.values() for name in part})
        raise ValueError(
            f"{base} gives {len(chosen)} of its {total} classes to {split}; each side needs two, so that something can "
            f"be mistaken for something else. {_LAYOUTS}"
        )
    return ImageFiles(
        f"{base.stem if base.is_file() else base.name}, {split}",
        tuple(file for files in chosen.values() for file in files),
        torch.tensor([label for label, files in enumerate(chosen.values()) for _ in files]),
        tuple(chosen),
        size=size,
        note="; ".join(found.notes),
    )


def _chosen(found: _Found, split: Split, classes: str, share: float, seed: int, base: Path) -> dict[str, list[Path]]:
    """The images of one side, by class in alphabetical order."""
    parts: dict[str, dict[str, list[Path]]] = {
        part: found.images[part] for part in ("train", "val", "test") if part in found.images
    }
    if not parts:
        if classes == "published":
            raise ValueError(f"{base} holds no train and test, so nothing is published. {_LAYOUTS}")
        return _share_of(found.images[""], split, share, seed)
    test = "test" if "test" in parts else "val"
    if "val" in parts and test == "test":
        found.notes.append("val belongs to train: an experiment sets its own validation classes aside")
    sides = {
        "train": _merged(*(images for part, images in parts.items() if part != test)),
        "test": _merged(parts.get(test, {})),
    }
    both = sides["train"].keys() & sides["test"].keys()
    if both and classes == "published":
        found.notes.append(f"as published: {len(both)} classes are in both train and test")
    elif both:
        found.notes.append(
            f"train and test share {len(both)} classes, so they are put together and split by class; "
            "classes='published' keeps them"
        )
        return _share_of(_merged(*sides.values()), split, share, seed)
    return sides[split]


def _share_of(images: dict[str, list[Path]], split: Split, share: float, seed: int) -> dict[str, list[Path]]:
    names = sorted(images)
    order, cut = shuffled_classes(len(names), seed), round(share * len(names))
    wanted = sorted(order[:cut] if split == "train" else order[cut:])
    return {names[i]: images[names[i]] for i in wanted}


def _merged(*parts: Mapping[str, list[Path]]) -> dict[str, list[Path]]:
    names = sorted({name for part in parts for name in part})
    return {name: [file for part in parts for file in part.get(name, [])] for name in names}


# --- Folders


def _in_folders(base: Path) -> _Found:
    while len(inside := visible(base)) == 1 and inside[0].is_dir() and visible(inside[0]):
        if not any(path.is_dir() for path in visible(inside[0])):
            break  # one class of images
        base = inside[0]
    found, left_out, empty = _Found(), [], []
    folders = [path for path in inside if path.is_dir()]
    parts = [path for path in folders if path.name.lower() in _PARTS]
    is_split = len({_PARTS[path.name.lower()] for path in parts}) > 1
    if is_split and (others := [path.name for path in folders if path not in parts]):
        found.notes.append(f"beside train and test, left out: {some(others)}")
    for part in parts if is_split else [base]:
        for one in [path for path in visible(part) if path.is_dir()]:
            images, others = _below(one)
            left_out += [f"{one.name}/{name}" for name in others]
            if images:
                found.images[_PARTS[part.name.lower()] if is_split else ""][one.name] += images
            else:
                empty.append(one.name)
    if not found.images:
        raise ValueError(f"{base} holds no class: {_likely(base, inside, empty)}. {_LAYOUTS}")
    if empty:
        found.notes.append(f"{len(empty)} folders without an image left out: {some(empty)}")
    if left_out:
        found.notes.append(f"{len(left_out)} files that are no images left out: {some(left_out)}")
    return found


def _below(folder: Path) -> tuple[list[Path], list[str]]:
    """The images in a folder and below it, and the names of what is none; links are followed, none in a circle."""
    images, others, seen = [], [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not is_left_behind(name))
        for name in sorted(names) if real not in seen else []:
            path = Path(place, name)
            if is_left_behind(name):
                continue
            if path.suffix.lower() in image_endings() and path.is_file():
                images.append(path)
            else:  # of another kind, a link that leads nowhere, a pipe
                others.append(path.relative_to(folder).as_posix())
        seen.add(real)
    return images, others


def _likely(base: Path, inside: list[Path], empty: list[str]) -> str:
    """Why there is no class in it."""
    if packed := [path.name for path in inside if path.suffix.lower() in (".zip", ".tar", ".tgz", ".gz", ".xz", ".7z")]:
        return f"{some(packed)} is still packed"
    if images := [path for path in inside if path.suffix.lower() in image_endings()]:
        return f"{len(images)} images lie in it directly, and nothing says of which class they are"
    if tables := [path.name for path in inside if path.suffix.lower() in _TABLES]:
        return f"it holds the table {some(tables)}, which root= can name"
    if empty:
        return f"{len(empty)} sub-folders hold no image ({some(empty)})"
    return "it is empty"


# --- Tables


def _in_table(path: Path) -> _Found:
    table = _read(path)
    known = {str(name).strip().lower(): name for name in table.columns}
    named = {what: next((known[name] for name in names if name in known), None) for what, names in _COLUMNS.items()}
    if missing := [what for what in ("path", "label") if named[what] is None]:
        raise ValueError(f"{path} has no column {' and '.join(missing)}, only {some(list(known), 8)}. {_LAYOUTS}")
    files = [path.parent / str(name).strip() for name in table[named["path"]]]
    labels = [str(label).strip() for label in table[named["label"]]]
    if rows := [number for number, label in enumerate(labels, start=1) if label in ("", "nan", "None")]:
        raise ValueError(f"{path} gives {len(rows)} images no label, first in row {rows[0]}")
    if twice := repeated(map(str, files)):
        raise ValueError(f"{path} names {len(twice)} images more than once: {some(twice)}")
    if gone := [str(file) for file in files if not file.is_file()]:
        raise ValueError(f"{len(gone)} of {len(files)} images that {path} names are not there: {some(gone)}")
    parts = [""] * len(files)
    if named["split"] is not None:
        said = [str(part).strip() for part in table[named["split"]]]
        if wrong := sorted({part for part in said if part.lower() not in _PARTS}):
            raise ValueError(f"{path} has splits other than {', '.join(_PARTS)}: {some([repr(w) for w in wrong])}")
        parts = [_PARTS[part.lower()] for part in said]
    found = _Found()
    for part, label, file in zip(parts, labels, files, strict=True):
        found.images[part][label].append(file)
    if set(found.images) == {"train"}:  # one part is no split
        found.images[""] = found.images.pop("train")
    return found


def _read(path: Path) -> pd.DataFrame:
    ending = path.suffix.lower()
    if ending not in _TABLES:
        raise ValueError(f"{path} is neither a folder nor a table ({', '.join(_TABLES)}). {_LAYOUTS}")
    try:
        if ending == ".parquet":
            return pd.read_parquet(path)
        with open(path, encoding="utf-8-sig") as file:
            header = file.readline()
        mark = max("\t,;", key=header.count)
        return pd.read_csv(path, sep=mark, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError, pd.errors.ParserError) as error:  # UnicodeDecodeError and pyarrow's are ValueErrors
        raise ValueError(f"{path} cannot be read as a table: {error}") from error


DATASET = DataSet("folder", folder, kind="photographs", image_size=112)
