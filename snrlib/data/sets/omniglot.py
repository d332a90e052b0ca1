"""Omniglot: handwritten characters of 50 alphabets, 20 drawings each; the alphabets of train and test are disjoint.

Lake, Salakhutdinov, Tenenbaum: Human-level concept learning through probabilistic program induction. Science 350
(2015) 1332-1338. MIT licence. Its authors also publish two small archives; their ten alphabets serve where the full
pair is missing.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from snrlib.data.base import LabelledImages, Split, check_split
from snrlib.data.fetch.source import Archive, Source, find, missing
from snrlib.data.sets.lists import some
from snrlib.data.traits import DataSet

__all__ = ["DATASET", "OMNIGLOT", "omniglot"]

_FULL = ("images_background", "images_evaluation")
_SMALL = ("images_background_small1", "images_background_small2")
_PATH = re.compile(r"(?:^|/)([^/]+)/(character\d+)/\d+_(\d+)\.png$")
_DRAWINGS = 20


def _archives() -> tuple[Archive, ...]:
    from snrlib.utils.torchvision_import import torchvision

    known = torchvision.datasets.Omniglot
    return tuple(
        Archive(f"{part}.zip", (f"{known.download_url_prefix}/{part}.zip",), known.zips_md5[part]) for part in _FULL
    )


OMNIGLOT = Source(
    name="omniglot",
    page="https://github.com/brendenlake/omniglot",
    places=tuple(f"{part}{ending}" for part in (*_FULL, *_SMALL) for ending in (".zip", "")),
    archives=_archives,
    train=(19_280, 964),
    test=(13_180, 659),
    split="as published: 30 alphabets to train, 20 others to test",
    gigabytes=0.02,
)


def omniglot(split: Split = "train", root: str | Path | None = None, size: int = 28) -> LabelledImages:
    """Handwritten characters, ink 1 on paper 0; a class is a character of an alphabet, "Greek/character01".

    Read from whatever is there: the full pair ``images_background`` (train) and ``images_evaluation`` (test), as
    published; else the small pair, ``images_background_small1`` to train and to test those alphabets of
    ``images_background_small2`` that are not in it (Greek and Latin stand in both). Each is a zip file or the folder it
    unpacks to. The note of the result says which was used.

    Args:
        split: "train" or "test".
        root: the folder of downloaded data.
        size: side in pixels; the 105 x 105 originals are resized with antialiasing.

    Returns:
        Images (n, 1, size, size), float32 in [0, 1]; factors ``alphabet`` and ``drawer`` (1 to 20).

    Raises:
        ValueError: unknown split, size below 1, a damaged archive or drawing, a character without its 20 drawings.
        FileNotFoundError: neither pair is there.
    """
    check_split(split)
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    pairs = [[_find(root, part) for part in pair] for pair in (_FULL, _SMALL)]
    train, test = next((pair for pair in pairs if None not in pair), (None, None))
    if train is None or test is None:
        raise missing(OMNIGLOT, root)
    small = [train, test] == pairs[1]
    known = {alphabet for alphabet, *_ in _drawings(train)} if small and split == "test" else set()
    place = train if split == "train" else test
    rows, images = [], []
    for alphabet, character, drawer, name, content in _drawings(place):
        if alphabet not in known:
            rows.append((f"{alphabet}/{character}", alphabet, drawer))
            images.append(_ink(content, size, f"{name} in {place}"))
    counts = Counter(name for name, *_ in rows)
    if odd := [f"{name} has {n}" for name, n in counts.items() if n != _DRAWINGS]:
        raise ValueError(f"a character of Omniglot has {_DRAWINGS} drawings; in {place} {some(odd)}")
    if not counts:
        raise ValueError(f"{place} holds no drawing of the {split} split")
    classes = tuple(counts)
    index = {name: i for i, name in enumerate(classes)}
    published = (OMNIGLOT.train if split == "train" else OMNIGLOT.test)[1]
    note = f"from {place.name}, alphabets disjoint"
    if small:
        note = f"the small pair of archives: from {place.name}, without the alphabets of {train.name}"
        note = note if split == "test" else f"the small pair of archives: from {place.name}"
    elif len(classes) != published:
        note = f"partial copy: {len(classes)} of {published} classes"
    factors = pd.DataFrame({"alphabet": [row[1] for row in rows], "drawer": [row[2] for row in rows]})
    labels = torch.tensor([index[row[0]] for row in rows])
    pixels = torch.from_numpy(np.stack(images))[:, None].float().div_(255)
    return LabelledImages(f"omniglot, {split}", pixels, labels, classes, factors, note)


def _find(root: str | Path | None, part: str) -> Path | None:
    return find(root, f"{part}.zip", part)


def _drawings(place: Path) -> Iterator[tuple[str, str, int, str, bytes]]:
    """Alphabet, character, drawer, name and content of each drawing, in the order of the names."""
    try:
        for name, content in _zipped(place) if place.is_file() else _loose(place):
            if match := _PATH.search(name):
                yield match[1], match[2], int(match[3]), name, content
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"the archive {place} is damaged: {error}; remove it and fetch it again") from error


def _zipped(place: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(place) as archive:
        for name in sorted(archive.namelist()):
            yield name, archive.read(name)  # compares the content with its CRC


def _loose(place: Path) -> Iterator[tuple[str, bytes]]:
    for character in sorted(path for path in place.glob("*/character*") if path.is_dir()):
        drawings = sorted(character.glob("*.png"))
        if not drawings:
            raise ValueError(f"{character} holds no drawing")
        for path in drawings:
            yield path.relative_to(place).as_posix(), path.read_bytes()


def _ink(content: bytes, size: int, name: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content)) as file:
            image = file.convert("L")
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{name} cannot be read as an image: {error}") from error
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return 255 - np.asarray(image)


DATASET = DataSet("omniglot", omniglot, source=OMNIGLOT, image_size=28, training=(964, 20))
