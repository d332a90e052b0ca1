"""What is true of a data set, whatever it is used for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from snrlib.data.fetch.source import Source

__all__ = ["DataSet"]


@dataclass(frozen=True)
class DataSet:
    """A data set by its name, and what an experiment on it takes where nothing else is said.

    Attributes:
        name: of the data set.
        load: ``load(split=, root=, **options) -> LabelledImages or ImageFiles``.
        kind: "images", small and of one size; "photographs", of any size, cropped to a square; "features", vectors in
            the form of images of one pixel, for a network that is a last layer alone.
        image_size: usual side of the images in pixels.
        largest: side of the published images where all have one; what is larger than they, the network enlarges.
        sized: whether ``load`` takes ``size=``, the side in pixels.
        training: number of classes of the training half, and images of the middle one of them, as an experiment loads
            it where the files do not say.
        options: others of ``load``, as an experiment calls it.
        source: where the files come from; None if nothing is downloaded.
        same_images_as: the data set that has these images too, differently divided or presented; "" if none has. What
            is found on both is found on one data set.
        folder: what holds all files, by the place at which they are found; usually that place itself.
        file: what holds features; None of images.
    """

    name: str
    load: Callable[..., Any]
    kind: Literal["images", "photographs", "features"] = "images"
    image_size: int = 32
    largest: int | None = None
    sized: bool = True
    training: tuple[int, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    source: Source | None = None
    same_images_as: str = ""
    folder: Callable[[Path], Path] = lambda place: place
    file: Callable[[], Path] | None = None
