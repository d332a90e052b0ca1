"""Images that stay in their files until they are asked for, and how one is read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from snrlib.data.base import LabelledImages, description, rows_of_classes, take_rows

__all__ = ["ImageFiles", "image_endings", "is_left_behind", "read_image", "visible"]

# Pillow recognises them, and either cannot read them by itself or asks another program to.
_NO_IMAGES = ("BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF")
_LONGEST = 16  # times its short side, of an image that is resized as a whole
_LEFT_BEHIND = re.compile(
    r"""\. .* | .* ~ | ~\$ .* | thumbs\.db | desktop\.ini | icon\r | __macosx | @eadir | \$recycle\.bin | lost\+found
    | system[ ]volume[ ]information | .* \. (tmp|part|partial|crdownload|download)""",
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(eq=False)
class ImageFiles(Dataset):
    """Image files with their classes: each is read, turned upright, made RGB and square when it is taken out.

    Args:
        name: data set and split, for captions.
        files: path of each image.
        labels: (n,), int64, an index into ``classes``.
        classes: name of each class.
        factors: one row an image, or none at all.
        size: side of the square image in pixels.
        note: what a reader must know of this copy or split; shown in the repr.

    Raises:
        ValueError: size below 1, or files and labels of different number; on reading, a file that is no image.
    """

    name: str
    files: tuple[Path, ...]
    labels: Tensor
    classes: tuple[str, ...]
    factors: pd.DataFrame = field(default_factory=pd.DataFrame)
    size: int = 256
    note: str = ""
    _fingerprint: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}")
        if len(self.files) != len(self.labels):
            raise ValueError(f"{len(self.files)} files have {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """The image (3, size, size), float32 in [0, 1], and its label."""
        return read_image(self.files[index], self.size).float().div_(255), self.labels[index]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        return [self[int(index)] for index in indices]

    def __repr__(self) -> str:
        return description(self, (3, self.size, self.size))

    def of_classes(self, indices: Sequence[int]) -> ImageFiles:
        """Only these classes, relabelled 0, 1, ... in the order given.

        Raises:
            ValueError: no class, a class named twice, or one that does not exist.
        """
        rows, labels = rows_of_classes(self.labels, len(self.classes), indices)
        return replace(
            self,
            files=tuple(self.files[row] for row in rows.tolist()),
            labels=labels,
            classes=tuple(self.classes[i] for i in indices),
            factors=take_rows(self.factors, rows),
        )

    def in_memory(self, progress: bool = False) -> LabelledImages:
        """All images read once and kept as uint8: n * 3 * size^2 bytes.

        Args:
            progress: show a bar.

        Raises:
            ValueError: a file that is no image, by name.
        """
        images = torch.empty(len(self), 3, self.size, self.size, dtype=torch.uint8)
        pool = ThreadPoolExecutor()  # Pillow decodes outside the interpreter's lock
        try:
            read = pool.map(partial(read_image, size=self.size), self.files)
            for row, image in enumerate(tqdm(read, self.name, len(self), disable=not progress)):
                images[row] = image
        finally:
            pool.shutdown(cancel_futures=True)  # a damaged file is reported at once
        return LabelledImages(self.name, images, self.labels, self.classes, self.factors, self.note)

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of the files' bytes, labels and size; computed once."""
        if not self._fingerprint:
            digest = hashlib.sha256(f"{self.size} {self.labels.tolist()}".encode())
            for path in self.files:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint


def read_image(path: Path, size: int) -> Tensor:
    """One image (3, size, size), uint8: upright, RGB, short side resized to ``size`` (antialiased), centre cropped.

    The orientation that a camera noted (EXIF) is applied. Grey, palette and CMYK images become RGB; what is transparent
    becomes white; 16-bit grey keeps its upper 8 bits. Pixels of another range (floating point, or 32 bits beyond those
    16) are refused: nobody knows what is white.

    Args:
        path: the file.
        size: side of the square in pixels.

    Raises:
        ValueError: the file is no image, or is damaged; the message names it.
        FileNotFoundError: there is no such file.
    """
    try:
        with Image.open(path, formats=_formats()) as file:
            image = _rgb(ImageOps.exif_transpose(file))
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    image = _without_ends(image)
    width, height = image.size
    short = min(width, height)
    width, height = size * width // short, size * height // short
    image = image.resize((width, height), Image.Resampling.BILINEAR)  # Pillow's filter widens with the reduction
    left, top = round((width - size) / 2), round((height - size) / 2)
    pixels = np.array(image.crop((left, top, left + size, top + size)))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _without_ends(image: Image.Image) -> Image.Image:
    """The middle of a strip: resized as a whole, one of 1 x 100,000 pixels would take gigabytes."""
    long, short = max(image.size), min(image.size)
    if long <= _LONGEST * short:
        return image
    start = (long - _LONGEST * short) // 2  # as much off either end
    box = (start, 0, long - start, short) if image.width == long else (0, start, short, long - start)
    return image.crop(box)


@cache
def image_endings() -> frozenset[str]:
    """The endings of files that `read_image` reads, in lower case."""
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in _formats())


@cache
def _formats() -> list[str]:
    """What Pillow calls the formats that `read_image` reads."""
    Image.init()
    return [name for name in Image.OPEN if name not in _NO_IMAGES]


def is_left_behind(name: str) -> bool:
    """Whether a file or folder of this name is nobody's data: hidden, or left by a system, an archive or a download.

    >>> [is_left_behind(name) for name in ("._1.jpg", "Thumbs.db", "__MACOSX", "1.jpg.part", "1.jpg")]
    [True, True, True, True, False]
    """
    return _LEFT_BEHIND.fullmatch(name) is not None


def visible(folder: Path) -> list[Path]:
    """What is in a folder, by name, without what is nobody's data; nothing if there is no such folder."""
    return sorted(path for path in folder.glob("*") if not is_left_behind(path.name))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating point, of no known range")
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError(f"its pixels of 32 bits reach from {pixels.min()} to {pixels.max()}, not from 0 to 65535")
        return Image.fromarray((pixels >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
