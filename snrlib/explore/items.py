"""What a page shows of each embedding besides where it lies: class, columns, and a small picture if it has one."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from snrlib.data import ImageFiles, LabelledImages
from snrlib.data.embedding_file import EmbeddingFile
from snrlib.data.image_files import read_image
from snrlib.plots import pixels

__all__ = ["Items", "items_of", "thumbnails"]

_SIDE = 128  # of pictures read from files, the largest that a page shows


@dataclass(eq=False)
class Items:
    """Embeddings as a page lists them; like `LabelledImages`, but an image may be missing.

    Args:
        name: of them all, for captions.
        labels: (n,), int64, an index into ``classes``.
        classes: name of each class.
        factors: one row for each: what else is known; may have no columns.
        images: (n, H, W), (n, H, W, 3) or (n, 3, H, W), uint8 or about [0, 1]; None has none.
        files: the path of each image, None where there is none; read instead of ``images``.
        notes: what a reader must know, in sentences.
    """

    name: str
    labels: Tensor
    classes: tuple[str, ...]
    factors: pd.DataFrame = field(default_factory=pd.DataFrame)
    images: NDArray | None = None
    files: tuple[Path | None, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def has_pictures(self) -> bool:
        """Whether any has an image."""
        return self.images is not None or any(self.files)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor | None, Tensor]:
        """The image (1 or 3, H, W), float32 in about [0, 1], or None; and its label."""
        if self.images is not None:
            return _as_image(self.images[index]), self.labels[index]
        file = self.files[index] if self.files else None
        return None if file is None else read_image(file, _SIDE).float().div_(255), self.labels[index]


def items_of(file: EmbeddingFile, folder: str | Path | None = None) -> Items:
    """What a file of embeddings tells of each of them.

    Args:
        file: as `snrlib.data.embedding_file.read_embeddings` reads it.
        folder: where the images are, to which the file's paths are relative; no path may lead out of it. None takes the
            images in the file, if there are any.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: a folder, but a file without paths.
    """
    factors = file.columns.reset_index(drop=True)
    sizes = file.labels.bincount()
    told = list(file.notes)
    if len(sizes) == 1:
        told.append(f"All are of one class, {file.classes[0]!r}, so every neighbour is right.")
    elif alone := int((sizes == 1).sum()):
        told.append(
            f"{alone:,} of {len(sizes):,} classes {'has' if alone == 1 else 'have'} one row, which no R@1 counts."
        )
    if file.is_query is not None:
        factors = factors.assign(role=np.where(file.is_query, "query", "gallery"))
    if file.paths is not None:
        factors = factors.assign(path=list(file.paths))
    if folder is None:
        return Items(file.name, file.labels, file.classes, factors, file.images, notes=tuple(told))
    if not Path(folder).is_dir():
        raise NotADirectoryError(f"--images {folder} is no folder")
    if file.paths is None:
        raise ValueError(f"{file.name} has no column of paths that could lead to images in {folder}")
    files, notes = _found(file.paths, Path(folder))
    return Items(file.name, file.labels, file.classes, factors, None, files, (*told, *notes))


def _found(paths: Sequence[str], folder: Path) -> tuple[tuple[Path | None, ...], tuple[str, ...]]:
    """The file of each path, and in words how many have none: missing, outside of the folder, or no image."""
    root = folder.resolve()
    files: list[Path | None] = []
    missing = outside = 0
    for path in paths:
        try:
            file = (root / path).resolve()
            inside, there = file.is_relative_to(root), file.is_file()
        except (OSError, ValueError, RuntimeError):  # a name too long, with a null byte, or a circle of links
            inside, there = True, False
        outside += not inside
        missing += inside and not there
        files.append(file if inside and there else None)
    counted = [(missing, "not there"), (outside, "outside of its folder, and not opened")]
    return tuple(files), tuple(f"{count:,} of {len(paths):,} images: {what}." for count, what in counted if count)


def thumbnails(
    images: LabelledImages | ImageFiles | Items,
    side: int = 48,
    rows: Sequence[int] | None = None,
    *,
    progress: bool = False,
) -> list[str]:
    """Each image as the address of a small WebP picture in itself: grey without loss, colour with a little.

    Args:
        images: (n, channels, height, width) in about [0, 1]; features (n, C, 1, 1) become squares of C grey cells. An
            image of `Items` that is missing or cannot be read has the address "".
        side: of the longer edge, in pixels.
        rows: of which images; None is all.
        progress: show a bar.
    """
    found = []
    for index in tqdm(range(len(images)) if rows is None else rows, "small pictures", disable=not progress):
        try:
            image = images[index][0]
        except (OSError, ValueError):
            if not isinstance(images, Items):  # whose files are a reader's own
                raise
            image = None
        found.append("" if image is None else _thumbnail(image, side))
    return found


def _thumbnail(image: Tensor, side: int) -> str:
    values = pixels(image)
    grey = values.ndim == 2
    picture = Image.fromarray((255 * values.clip(0, 1)).round().astype(np.uint8))
    small = max(picture.size) < side
    scale = side / max(picture.size)
    size = [max(1, round(edge * scale)) for edge in picture.size]
    picture = picture.resize((size[0], size[1]), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "WEBP", lossless=grey, quality=70)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _as_image(values: NDArray) -> Tensor:
    """(1 or 3, H, W), float32, of (H, W), (H, W, 1 or 3) or (1 or 3, H, W)."""
    image = torch.from_numpy(np.array(values))
    image = image / 255 if image.dtype == torch.uint8 else image.float()
    if image.ndim == 2:
        return image[None]
    return image if image.shape[0] in (1, 3) and image.shape[2] not in (1, 3) else image.permute(2, 0, 1)
