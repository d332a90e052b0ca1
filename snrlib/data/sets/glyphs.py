"""Rendered characters: letters, digits and signs in the 16 typefaces that matplotlib ships; nothing to download.

The class is the character. Typeface, rotation, scale, shift and noise vary and are known for every image, so that what
an embedding ignores and what it keeps can be measured.
"""

from __future__ import annotations

import hashlib
import unicodedata
from functools import cache
from numbers import Integral
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.ft2font import FT2Font

from snrlib.data.base import LabelledImages, Split, check_split
from snrlib.data.traits import DataSet
from snrlib.utils.cache import cached_array

__all__ = ["DATASET", "FACES", "characters", "glyphs"]

FACES: tuple[str, ...] = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
)
_BOX_DRAWING = range(0x2500, 0x2600)
_MERGE_PIXELS = 24  # the type size at which characters are compared
_ALIKE = 0.03  # share of the ink by which two characters may differ and still look the same
_FACES_ALIKE = 4  # faces in which they must, to be one class
_EM = 0.85  # type size as a share of the image side


def glyphs(  # noqa: PLR0913  what varies in a picture, one keyword for each
    split: Split = "train",
    root: str | Path | None = None,
    *,
    size: int = 32,
    per_class: int = 16,
    rotation: float = 10.0,
    scale: float = 0.1,
    shift: float = 0.05,
    noise: float = 0.2,
    seed: int = 0,
) -> LabelledImages:
    """Characters as images, half of the classes to train and the other half to test, whatever the seed.

    Among the ``factors`` is ``letter``, the class without its accents: e of e, e-acute and e-ogonek, but not of E. A
    class that was never seen, of a letter that was, is only half new: of a test half's 299 classes, 109 are of a letter
    that the usual training half has.

    The clean images are cached in ``data/cache``; a damaged or unwritable cache is reported and costs a second.

    Args:
        split: "train" or "test".
        root: not used, nothing is downloaded.
        size: side of the image in pixels, at least 16.
        per_class: images a class; each block of 16 shows every face once.
        rotation: uniform in +-rotation, degrees.
        scale: type size uniform in 1 +- scale, in [0, 0.5].
        shift: uniform in +-shift in x and in y, as a share of the side, in [0, 0.5].
        noise: standard deviation of the Gaussian noise added to the pixels, whose clean range is [0, 1].
        seed: of faces' order, rotation, scale, shift and noise; the two splits draw apart.

    Raises:
        ValueError: a value outside its range.
        TypeError: size, per_class or seed not an integer.
    """
    check_split(split)
    for name, whole in (("size", size), ("per_class", per_class), ("seed", seed)):
        if not isinstance(whole, Integral):
            raise TypeError(f"{name} must be an integer, got {whole!r}")
    for name, value, low, high in (
        ("size", size, 16, 1024),
        ("per_class", per_class, 1, 10_000),
        ("rotation", rotation, 0, 180),
        ("scale", scale, 0, 0.5),
        ("shift", shift, 0, 0.5),
        ("noise", noise, 0, 10),
        ("seed", seed, 0, 2**32 - 1),
    ):
        if not low <= value <= high:
            raise ValueError(f"{name} must be from {low} to {high}, got {value!r}")
    classes = tuple(_class_split()[split])
    random = np.random.default_rng([seed, split == "test"])
    factors = _draw_factors(random, len(classes), per_class, rotation, scale, shift)
    labels = np.repeat(np.arange(len(classes)), per_class)
    clean = _cached_images([classes[label][0] for label in labels], factors, int(size))
    images = torch.from_numpy(clean).float().div_(255)[:, None]
    factors["letter"] = np.array([_letter(name) for name in classes])[labels]
    if noise:
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        images += noise * torch.randn(images.shape, generator=generator)
    return LabelledImages(f"glyphs, {split}", images, torch.from_numpy(labels), classes, factors)


@cache
def _fonts() -> tuple[FT2Font, ...]:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return tuple(FT2Font(str(folder / f"{face}.ttf")) for face in FACES)


def _bitmap(face: int, character: str, pixels: float, angle: float = 0.0) -> np.ndarray:
    """One character, antialiased, cropped to its ink: (height, width), uint8."""
    font = _fonts()[face]
    font.set_size(pixels, 72)
    font.set_text(character, angle)
    font.draw_glyphs_to_bitmap(antialiased=True)
    image = np.asarray(font.get_image())
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _drawn_by_all() -> list[str]:
    """Letters, digits, punctuation and symbols that all 16 faces hold; no box drawing, no bare accents."""
    common = set.intersection(*(set(font.get_charmap()) for font in _fonts()))
    return [
        chr(code)
        for code in sorted(common)
        if (category := unicodedata.category(chr(code)))[0] in "LNPS" and category != "Sk" and code not in _BOX_DRAWING
    ]


@cache
def characters() -> tuple[str, ...]:
    """The classes: each a character, or a string of characters that nobody can tell apart.

    Two are alike if their ink, centred, differs by at most 3 % in four of the 16 faces; what is alike is one class,
    drawn as its first character: Latin A, Greek Alpha and Cyrillic A; a period and a middle dot.
    """
    candidates = _drawn_by_all()
    faces_alike = sum(_alike(face, candidates) for face in range(len(FACES)))
    merged = {character: [character] for character in candidates}
    for i, j in np.argwhere(np.triu(faces_alike >= _FACES_ALIKE, k=1)):
        first, second = candidates[i], candidates[j]
        if merged[first] is not merged[second]:
            merged[first].extend(merged[second])
            for character in merged[second]:
                merged[character] = merged[first]
    return tuple("".join(group) for character, group in merged.items() if group[0] == character)


def _alike(face: int, drawn: list[str]) -> np.ndarray:
    """Which characters look the same in a face: (n, n), 0 or 1."""
    bitmaps = [_bitmap(face, character, _MERGE_PIXELS) for character in drawn]
    side = max(max(bitmap.shape) for bitmap in bitmaps)
    images = torch.zeros(len(drawn), side, side)
    for image, bitmap in zip(images, bitmaps, strict=True):
        top, left = ((side - length) // 2 for length in bitmap.shape)
        image[top : top + bitmap.shape[0], left : left + bitmap.shape[1]] = torch.from_numpy(bitmap / 255)
    flat = images.flatten(1)
    ink = flat.sum(dim=1)
    most = _ALIKE * torch.maximum(ink[:, None], ink)
    # Of pixels in [0, 1] the squares differ by less than the pixels: one product finds the few pairs to look at.
    power = flat.square().sum(dim=1)
    i, j = torch.nonzero(power[:, None] + power - 2 * flat @ flat.T <= most + 1e-3, as_tuple=True)
    alike = torch.zeros(len(drawn), len(drawn), dtype=torch.int64)
    alike[i, j] = ((flat[i] - flat[j]).abs().sum(dim=1) <= most[i, j]).long()
    return alike.numpy()


def _letter(name: str) -> str:
    """The letter of a class, without accents, whatever alphabet it is from: A-tonos is Alpha, and that is A."""
    letter = unicodedata.normalize("NFD", name)[0]
    return next((merged[0] for merged in characters() if letter in merged), letter)


@cache
def _class_split() -> dict[str, list[str]]:
    """Half of the classes each, by one fixed shuffle: the split never depends on a run's seed."""
    order = np.random.default_rng(0).permutation(len(characters()))
    half = len(order) // 2
    return {
        "train": [characters()[i] for i in sorted(order[:half])],
        "test": [characters()[i] for i in sorted(order[half:])],
    }


def _draw_factors(
    random: np.random.Generator, n_classes: int, per_class: int, rotation: float, scale: float, shift: float
) -> pd.DataFrame:
    n = n_classes * per_class
    rounds = -(-per_class // len(FACES))
    faces = random.permuted(np.tile(np.arange(len(FACES)), (n_classes * rounds, 1)), axis=1)
    faces = faces.reshape(n_classes, -1)[:, :per_class].ravel()
    return pd.DataFrame(
        {
            "face": np.array(FACES)[faces],
            "rotation": random.uniform(-rotation, rotation, n),
            "scale": random.uniform(1 - scale, 1 + scale, n),
            "shift_x": random.uniform(-shift, shift, n),
            "shift_y": random.uniform(-shift, shift, n),
        }
    )


def _render(drawn: list[str], factors: pd.DataFrame, size: int) -> np.ndarray:
    """Clean images (n, size, size), uint8: the ink's box centred, then shifted by whole pixels; what leaves is cut."""
    images = np.zeros((len(drawn), size, size), dtype=np.uint8)
    columns = zip(
        drawn,
        map(FACES.index, factors.face),
        factors.rotation,
        factors.scale,
        factors.shift_x,
        factors.shift_y,
        strict=True,
    )
    for image, (character, face, angle, scale, x, y) in zip(images, columns, strict=True):
        ink = _bitmap(face, character, _EM * size * scale, angle)
        if (excess := max(ink.shape) / size) > 1:  # a wide sign (per mille, say) is set smaller, to fit
            ink = _bitmap(face, character, _EM * size * scale / excess, angle)
        top = (size - ink.shape[0]) // 2 + round(y * size)
        left = (size - ink.shape[1]) // 2 + round(x * size)
        inside = image[max(top, 0) : top + ink.shape[0], max(left, 0) : left + ink.shape[1]]
        inside[:] = ink[max(-top, 0) :, max(-left, 0) :][: inside.shape[0], : inside.shape[1]]
    return images


def _cached_images(drawn: list[str], factors: pd.DataFrame, size: int) -> np.ndarray:
    """The images from ``data/cache``, or rendered and put there; the name is a digest of all that decides them."""
    digest = hashlib.sha256(Path(__file__).read_bytes())  # another way to draw, another cache
    digest.update(f"{matplotlib.__version__} {size} {' '.join(drawn)}\n{factors.to_csv()}".encode())
    name = f"glyphs-{digest.hexdigest()[:16]}"
    shape = (len(drawn), size, size)
    return cached_array(name, shape, np.uint8, lambda: _render(drawn, factors, size), what="glyphs")


DATASET = DataSet("glyphs", glyphs, training=(299, 16))
