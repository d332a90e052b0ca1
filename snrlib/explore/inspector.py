"""Linked t-SNE maps over the same images: point at an odd dot, see the image and its neighbours under each distance."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from snrlib.data import ImageFiles, LabelledImages
from snrlib.explore.items import Items, thumbnails
from snrlib.explore.maps import Map
from snrlib.explore.page import ExplorePage
from snrlib.plots import COLOURS

__all__ = ["MARKS", "PAGE_LIMIT", "class_look", "inspect"]

MARKS: tuple[tuple[str, str, str], ...] = (
    ("circle", "o", "●"),
    ("square", "s", "■"),
    ("triangle", "^", "▲"),
    ("diamond", "D", "◆"),
    ("inverted_triangle", "v", "▼"),
    ("star", "*", "★"),
    ("hex", "h", "⬢"),
    ("plus", "P", "✚"),
)
"""Of the points, as the page, matplotlib and a legend write them; with ten colours they tell 80 classes apart."""
PAGE_LIMIT = 60 * 2**20
"""Bytes of a page, beyond which its pictures become smaller, and at last are left out."""
_LOOKS = len(COLOURS) * len(MARKS)  # of classes, before they repeat
_SIDES = (32, 24, 16)  # of pictures, where larger ones are too many
_SAMPLE = 200  # pictures, whose mean size tells how large all will be
_GROUPS = 5000  # of a column to colour by, at most
_LONGEST = 300  # letters of a word that is shown
_Packed = tuple[str, str]  # its kind and its bytes as text


def inspect(
    maps: Sequence[Map],
    images: LabelledImages | ImageFiles | Items,
    split: Sequence[str] | None = None,
    *,
    title: str | None = None,
    thumbnail: int = 48,
    save: str | Path | None = None,
) -> ExplorePage:
    """Show maps of the same images side by side, linked.

    Pointing at a dot shows its image; a click, a lasso or a search lights the same images up on every map, and lists
    the nearest neighbours of an image under the distance of each map, right and wrong marked. The columns of
    ``images.factors`` are shown with each image, and colour the dots.

    Args:
        maps: of the same n images in the same order, 1 to 8.
        images: the n images, with labels and classes; or `Items`, which may have no images.
        split: of each image a word, such as "train" or "test"; None leaves it out.
        title: of the page; None says that the same images are on every map.
        thumbnail: side of the small images, in pixels [16 to 128]. Where they are so many that the page would have more
            than 60 MiB they become smaller or are left out, and the page's notes say so.
        save: a file that ends in ``.html``; it opens from disk with no network. None writes none.

    Returns:
        The page; the last line of a notebook's cell shows it.

    Raises:
        TypeError: maps that are none.
        ValueError: no map or too many, or maps, images and split that do not have the same length.
        OSError: the file cannot be written.

    Example: ``inspect([tsne(x, y), tsne(x, y, get_distance("snr"))], images, save="tsne.html")``
    """
    maps = list(maps)
    _check(maps, len(images), split, thumbnail)
    labels = np.asarray(images.labels)
    factors = images.factors if split is None else images.factors.assign(split=list(split))
    columns = [_column(str(name), values) for name, values in factors.items()]
    arrays = {"labels": _packed(labels)}
    arrays |= {f"column{c}": packed for c, (_, packed) in enumerate(columns)}
    for m, one in enumerate(maps):
        arrays |= {
            f"points{m}": _packed(one.points.T),
            f"near{m}": _packed(one.neighbours),
            f"far{m}": _packed(one.distances.astype(np.float32)),
        }
    left = PAGE_LIMIT - sum(len(text) for _, text in arrays.values())
    pictures, notes = _pictures(images, thumbnail, left)
    if left < 0:
        size = (PAGE_LIMIT - left) >> 20
        notes.append(
            f"The maps alone have {size} MiB, and browsers may be slow: fewer maps or rows make a smaller page."
        )
    if pictures:
        arrays["ends"] = _packed(np.cumsum([len(text) for text in pictures]))
        arrays["pictures"] = ("", "".join(pictures))
    one_, many = ("image", "images") if pictures else ("point", "points")
    facts = {
        "classes": [_short(name) for name in images.classes],
        "columns": [column for column, _ in columns],
        "looks": [(colour, mark, sign) for colour, (mark, _, sign) in map(class_look, range(_LOOKS))],
        "scale": [to_hex(colour) for colour in mpl.colormaps["cividis"](np.linspace(0, 1, 32))],
        "maps": [{"title": one.title, "distance": one.distance, "k": one.neighbours.shape[1]} for one in maps],
        "pictures": bool(pictures),
        "one": one_,
        "many": many,
    }
    repeated = [f"Colours and marks repeat after {_LOOKS} classes."] if len(images.classes) > _LOOKS else []
    about = f"{len(images):,} {many} of {len(images.classes):,} classes: {images.name}."
    folder = Path(__file__).parent / "assets"
    html = Template((folder / "inspector.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"The same {many} on every map" if title is None else title),
        about=escape(" ".join([about, *repeated, *notes])),
        One=one_.capitalize(),
        many=many,
        maps="\n".join(map(_section, maps)),
        facts=_json(facts),
        arrays="\n".join(_script(name, *packed) for name, packed in arrays.items()),
        dots=(folder / "dots.js").read_text(encoding="utf-8"),
        inspector=(folder / "inspector.js").read_text(encoding="utf-8"),
    )
    page = ExplorePage(html, 900, f"Inspector of {len(maps)} maps of {len(images)} {many}", notes)
    if save is not None:
        page.save(save)
    return page


def class_look(c: int) -> tuple[str, tuple[str, str, str]]:
    """Colour, and mark as in `MARKS`, of class number c; neighbours differ in both, and 80 in one."""
    return COLOURS[c % len(COLOURS)], MARKS[(c + c // len(COLOURS)) % len(MARKS)]


def _check(maps: list[Map], n: int, split: Sequence[str] | None, thumbnail: int) -> None:
    if not all(isinstance(one, Map) for one in maps):
        raise TypeError(f"maps must be what snrlib.explore.tsne returns, got {[type(one).__name__ for one in maps]}")
    if not 1 <= len(maps) <= 8:
        raise ValueError(f"maps must be 1 to 8 of them, got {len(maps)}")
    if wrong := sorted({len(one.points) for one in maps} - {n}):
        raise ValueError(f"maps must be of the {n} images given, got maps of {wrong[0]} points")
    if split is not None and len(split) != n:
        raise ValueError(f"split must be a word for each of the {n} images, got {len(split)}")
    if not 16 <= thumbnail <= 128:
        raise ValueError(f"thumbnail must be a side of 16 to 128 pixels, got {thumbnail!r}")


def _pictures(images: LabelledImages | ImageFiles | Items, side: int, room: int) -> tuple[list[str], list[str]]:
    """The small images as large as they fit, as base64 without its head; and what a reader must know of them."""
    notes, files = (list(images.notes), images.files) if isinstance(images, Items) else ([], ())
    if isinstance(images, Items) and not images.has_pictures:
        return [], notes
    n = len(images)
    sample = range(0, n, max(1, n // _SAMPLE))
    for smaller in (side, *(one for one in _SIDES if one < side)):
        mean = np.mean([len(text) for text in thumbnails(images, smaller, sample)])
        if mean * n <= room:
            made = [text.partition(",")[2] for text in thumbnails(images, smaller, progress=n > 5000)]
            if smaller < side:
                notes.append(f"Pictures are {smaller} pixels wide, so that they fit into one page.")
            if damaged := sum(1 for file, text in zip(files, made, strict=False) if file and not text):
                notes.append(f"{damaged:,} of {n:,} images: damaged, or no image.")
            return made, notes
    return [], [*notes, f"{n:,} pictures do not fit into a page of {PAGE_LIMIT >> 20} MiB: it has dots and words only."]


def _column(name: str, values: pd.Series) -> tuple[dict[str, Any], _Packed]:
    """What the page knows of a column: its words, if it has any, and their numbers; or its numbers."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        numbers = values.to_numpy(dtype=float, na_value=np.nan)
        whole = pd.api.types.is_integer_dtype(values) and np.abs(numbers).max(initial=0) > 2**24
        packed = numbers if whole else numbers.astype(np.float32)
        return {"name": name, "words": None, "colour": True}, _packed(packed)
    codes, words = pd.factorize(values.astype("string").fillna("none"))
    few = 1 < len(words) <= min(_GROUPS, max(2, len(values) // 2))
    return {"name": name, "words": [_short(word) for word in words], "colour": few}, _packed(codes)


def _short(word: str) -> str:
    return word if len(word) <= _LONGEST else f"{word[: _LONGEST - 1]}…"


def _section(one: Map) -> str:
    title = escape(one.title)
    buttons = "".join(
        f'<button type="button" data-do="{do}" title="{what}" aria-label="{what}: {title}">{sign}</button>'
        for do, what, sign in (
            ("in", "zoom in", "+"),
            ("out", "zoom out", "−"),
            ("whole", "show the whole map", "⟲"),
            ("alone", "this map alone", "⤢"),
        )
    )
    canvases = "<canvas></canvas><canvas></canvas>"
    stage = f'<div class="stage" tabindex="0" role="application" aria-label="map: {title}">{canvases}</div>'
    words = f"<p>{escape(one.facts)}.<br>{escape(one.scores)}.</p>"
    return f'<section aria-label="{title}"><header><h2>{title}</h2>{buttons}</header>{stage}{words}</section>'


def _script(name: str, kind: str, text: str) -> str:
    return f'<script type="text/plain" id="{name}" data-kind="{kind}">{text}</script>'


def _json(facts: dict[str, Any]) -> str:
    """As JSON that cannot end its script."""
    return json.dumps(facts, ensure_ascii=False).replace("<", "\\u003c")  # "</script", and "<!--", which hides it


def _packed(values: NDArray) -> _Packed:
    """As `inspector.js` reads it: numbers with a point as they are, whole ones, of 0 and above, in 2 or 4 bytes."""
    kind = f"f{values.dtype.itemsize}"
    if values.dtype.kind != "f":
        kind = "u2" if values.max(initial=0) < 2**16 else "u4"
    return kind, base64.b64encode(np.ascontiguousarray(values, dtype=f"<{kind}").tobytes()).decode()
