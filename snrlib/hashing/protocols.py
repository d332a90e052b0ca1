"""Who is searched for, who is searched, who trains: three protocols on CIFAR-10, and one without a download.

Unlike the rest of this study, hashing is judged on the classes that it was trained on: the queries are other images of
the same classes. The protocol "glyphs" asks about unseen characters as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from snrlib.data import LabelledImages, load
from snrlib.utils.checks import check_choice, check_labels

__all__ = ["PROTOCOLS", "Gallery", "HashingSets", "Protocol", "Split", "all_images", "hashing_sets", "rows_of", "split"]


@dataclass(frozen=True)
class Protocol:
    """How the images of each class are shared out.

    Attributes:
        data: the data set.
        query: images of each class that are queries.
        train: images of each class that train.
        database: what is searched: the "rest", neither queries nor trained on; "all" but the queries; or "train", the
            training images alone.
        size: of a class; where it has more images, the rest has the more.
    """

    data: str
    query: int
    train: int
    database: Literal["rest", "all", "train"]
    size: int


PROTOCOLS: dict[str, Protocol] = {
    "cifar10": Protocol("cifar10", 100, 500, "rest", 6000),
    "cifar10-1": Protocol("cifar10", 100, 500, "all", 6000),
    "cifar10-2": Protocol("cifar10", 1000, 5000, "train", 6000),
    "glyphs": Protocol("glyphs", 4, 16, "all", 32),
}
"""The three of CIFAR-10 as a public benchmark of deep hashing draws them, from its 60,000 images of both halves; and
100 characters with 32 images each."""
_N_GLYPHS, _GLYPH_SIDE = 100, 24


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of images, each class as often as the others.

    Attributes:
        query: ascending, int64; so are the others.
        train: that are learned from.
        database: that are searched.
    """

    query: Tensor
    train: Tensor
    database: Tensor


@dataclass(frozen=True, eq=False)
class Gallery:
    """Queries and what they are searched in."""

    query: LabelledImages
    database: LabelledImages


@dataclass(frozen=True, eq=False)
class HashingSets:
    """The images of a protocol.

    Attributes:
        train: that are learned from.
        galleries: by name: "seen", of the classes that train; of glyphs also "unseen", as many queries per class of 100
            other characters, searched in all other images of those.
    """

    train: LabelledImages
    galleries: dict[str, Gallery]


def split(labels: Tensor, protocol: str | Protocol, seed: int = 0) -> Split:
    """Draw queries, training images and database, the same number of each class.

    Args:
        labels: (n,), integers.
        protocol: one of `PROTOCOLS`, or its numbers.
        seed: of the draw; the images of a class are shuffled, the first are queries and the next train.

    Raises:
        ValueError: an unknown protocol, or a class with fewer images than queries and training images together, or
            none left for the database.

    >>> drawn = split(torch.arange(10).repeat_interleave(6000), "cifar10")
    >>> len(drawn.query), len(drawn.train), len(drawn.database)
    (1000, 5000, 54000)
    """
    if isinstance(protocol, str):
        protocol = PROTOCOLS[check_choice(protocol, "protocol", PROTOCOLS)]
    check_labels(labels)
    random = np.random.default_rng(seed)
    query, train, rest = [], [], []
    needed = protocol.query + protocol.train + (protocol.database == "rest")
    for label in labels.unique().tolist():
        members = random.permutation((labels == label).nonzero()[:, 0].numpy())
        if len(members) < needed:
            raise ValueError(f"each class needs {needed} images, class {label} has {len(members)}")
        query.append(members[: protocol.query])
        train.append(members[protocol.query : protocol.query + protocol.train])
        rest.append(members[protocol.query + protocol.train :])
    database = {"rest": rest, "all": train + rest, "train": train}[protocol.database]
    return Split(*(torch.from_numpy(np.sort(np.concatenate(part))) for part in (query, train, database)))


def hashing_sets(
    protocol: str, seed: int = 0, root: str | Path | None = None, images: LabelledImages | None = None
) -> HashingSets:
    """The images of a protocol.

    Args:
        protocol: one of `PROTOCOLS`.
        seed: of the draw.
        root: the folder of downloaded data, as `snrlib.data.load`.
        images: all images of the data set, where they are at hand; None loads them.

    Raises:
        ValueError: an unknown protocol, or images that do not fit it.
        FileNotFoundError: the data set is not there.
    """
    check_choice(protocol, "protocol", PROTOCOLS)
    galleries = {}
    if PROTOCOLS[protocol].data == "glyphs":
        images = _characters("train") if images is None else images
        others = _characters("test")
        apart = split(others.labels, replace(PROTOCOLS[protocol], train=0), seed)
        galleries["unseen"] = Gallery(
            rows_of(others, apart.query, "query"), rows_of(others, apart.database, "database")
        )
    elif images is None:
        images = all_images(PROTOCOLS[protocol].data, root)
    drawn = split(images.labels, protocol, seed)
    seen = Gallery(rows_of(images, drawn.query, "query"), rows_of(images, drawn.database, "database"))
    return HashingSets(rows_of(images, drawn.train, "train"), {"seen": seen, **galleries})


def all_images(data: str, root: str | Path | None = None) -> LabelledImages:
    """Both published halves of a data set whose classes are the same in both, as one."""
    halves = [load(data, half, root) for half in ("train", "test")]
    pixels, labels = (torch.cat([getattr(half, name) for half in halves]) for name in ("images", "labels"))
    return LabelledImages(data, pixels, labels, halves[0].classes, note=halves[0].note)


def _characters(half: Literal["train", "test"]) -> LabelledImages:
    images = load("glyphs", half, size=_GLYPH_SIDE, per_class=PROTOCOLS["glyphs"].size)
    return images.of_classes(range(_N_GLYPHS))


def rows_of(images: LabelledImages, rows: Tensor, part: str) -> LabelledImages:
    """Some of the images, named after the part that they play."""
    name = f"{images.name.partition(',')[0]}, {part}"
    return LabelledImages(name, images.images[rows], images.labels[rows], images.classes, note=images.note)
