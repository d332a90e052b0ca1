"""Is a data set whole? Its files, its numbers against the published ones, and every image opened."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pooch
from tqdm import tqdm

from snrlib.data import SOURCES, load
from snrlib.data.base import Split
from snrlib.data.fetch.source import data_root
from snrlib.data.image_files import ImageFiles, read_image

__all__ = ["check"]


def check(name: str, root: str | Path | None = None, progress: bool = False) -> tuple[list[str], bool]:
    """Look through a data set.

    A copy that holds only some of the classes is not damaged: it is said to be partial.

    Args:
        name: one of `snrlib.data.DATASETS`.
        root: the folder of downloaded data; for "folder", the folder itself.
        progress: show a bar while images are opened.

    Returns:
        What was found, a line each; and whether it is whole.

    Raises:
        FileNotFoundError: the data set is not there.
        ValueError: unknown name.
    """
    lines, whole = _archives(name, root) if name in SOURCES else ([], True)
    for split in get_args(Split):
        try:
            data = load(name, split, root=root)
        except ValueError as error:
            if name not in SOURCES and root is None:
                raise
            return [*lines, f"{split}: DAMAGED: {error}"], False
        lines.append(repr(data))
        if name in SOURCES:
            images, classes = SOURCES[name].train if split == "train" else SOURCES[name].test
            agrees = (len(data), len(data.classes)) == (images, classes)
            damaged = not agrees and not data.note  # a note says why a copy is another one
            verdict = "as published" if agrees else f"DAMAGED: published are {images:,} of {classes:,}"
            whole &= not damaged
            lines.append(f"  {verdict if agrees or damaged else f'a part of the published {images:,} of {classes:,}'}")
        if isinstance(data, ImageFiles):
            bad = _unreadable(data, progress)
            whole &= not bad
            lines += [f"  DAMAGED: {error}" for error in bad] or ["  every image can be opened"]
    return lines, whole


def _archives(name: str, root: str | Path | None) -> tuple[list[str], bool]:
    """The downloaded files; that they are gone after unpacking is no damage."""
    lines, whole = [], True
    for archive in SOURCES[name].archives():
        path = data_root(root) / name / archive.file
        if not path.exists():
            lines.append(f"{path}: not there")
        elif pooch.file_hash(str(path), "md5") == archive.md5:
            lines.append(f"{path}: the published MD5")
        else:
            lines.append(f"{path}: DAMAGED: another MD5 than the published {archive.md5}")
            whole = False
    return lines, whole


def _unreadable(data: ImageFiles, progress: bool) -> list[str]:
    def error(path: Path) -> str:
        try:
            read_image(path, 8)
        except (ValueError, OSError) as error:
            return str(error)
        return ""

    with ThreadPoolExecutor() as pool:
        errors = tqdm(pool.map(error, data.files), data.name, len(data), disable=not progress)
        return [message for message in errors if message]
