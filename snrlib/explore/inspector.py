"""Linked t-SNE maps over the same images: point at an odd dot, see the image and its neighbours under each distance."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from bokeh.embed import components
from bokeh.models import BoxSelectTool, ColumnDataSource, HoverTool, LassoSelectTool, Plot
from bokeh.plotting import figure
from bokeh.resources import Resources
from numpy.typing import NDArray
from PIL import Image

from snrlib.data import ImageFiles, LabelledImages
from snrlib.explore.maps import Map
from snrlib.explore.page import ExplorePage
from snrlib.plots import COLOURS, pixels

__all__ = ["MARKS", "class_look", "inspect", "thumbnails"]

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
"""Of the points, as Bokeh, matplotlib and a legend write them; with ten colours they tell 80 classes apart."""
_LOOKS = len(COLOURS) * len(MARKS)  # of classes, before they repeat
_RANDOM = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FEW = 5000  # points, up to which the ordinary canvas draws fast enough
_TIP = """<div style="max-width: 220px; background: #fff; color: #1b1f24">
<img src="@thumb" alt="" width="72" height="72" style="image-rendering: pixelated; border: 1px solid #6b7480">
<div><b>@name</b> @group</div><div>nearest under $distance: @{nearest$m}{0.0000}, @verdict$m</div></div>"""


def inspect(
    maps: Sequence[Map],
    images: LabelledImages | ImageFiles,
    split: Sequence[str] | None = None,
    *,
    title: str = "The same images on every map",
    thumbnail: int = 48,
    save: str | Path | None = None,
) -> ExplorePage:
    """Show maps of the same images side by side, linked.

    Pointing at a dot shows its image; a click, a lasso or a search lights the same images up on every map, and lists
    the nearest neighbours of an image under the distance of each map, right and wrong marked.

    Args:
        maps: of the same n images in the same order, 1 to 8.
        images: the n images, with labels and classes.
        split: of each image a word, such as "train" or "test"; None leaves it out.
        title: of the page.
        thumbnail: side of the small images, in pixels [16 to 128].
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
    source = ColumnDataSource(name="images", data=_columns(maps, images, labels, split, thumbnail))
    script, divs = components([_plot(one, m, source) for m, one in enumerate(maps)], wrap_script=False)
    script, *divs = _numbered(script, *divs)
    parts: list[Any] = ["bokeh", "bokeh-gl"] if len(images) > _FEW else ["bokeh"]
    repeated = f" Colours and marks repeat after {_LOOKS} classes." if len(images.classes) > _LOOKS else ""
    folder = Path(__file__).parent / "assets"
    html = Template((folder / "inspector.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        about=escape(f"{len(images):,} images of {len(images.classes)} classes: {images.name}.{repeated}"),
        maps="\n".join(_section(one, div) for one, div in zip(maps, divs, strict=True)),
        bokeh="\n".join(f"<script>{text}</script>" for text in Resources("inline", components=parts).js_raw),
        data=_data(maps, images.classes, labels, split),
        plots=script,
        inspector=(folder / "inspector.js").read_text(encoding="utf-8"),
    )
    page = ExplorePage(html, 900, f"Inspector of {len(maps)} maps of {len(images)} images")
    if save is not None:
        page.save(save)
    return page


def class_look(c: int) -> tuple[str, tuple[str, str, str]]:
    """Colour, and mark as in `MARKS`, of class number c; neighbours differ in both, and 80 in one."""
    return COLOURS[c % len(COLOURS)], MARKS[(c + c // len(COLOURS)) % len(MARKS)]


def thumbnails(images: LabelledImages | ImageFiles, side: int = 48) -> list[str]:
    """Each image as the address of a small WebP picture in itself: grey without loss, colour with a little.

    Args:
        images: (n, channels, height, width) in about [0, 1]; features (n, C, 1, 1) become squares of C grey cells.
        side: of the longer edge, in pixels.
    """
    found = []
    for index in range(len(images)):
        values = pixels(images[index][0])
        grey = values.ndim == 2
        picture = Image.fromarray((255 * values.clip(0, 1)).round().astype(np.uint8))
        small = max(picture.size) < side
        scale = side / max(picture.size)
        size = [max(1, round(edge * scale)) for edge in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)
        file = io.BytesIO()
        picture.save(file, "WEBP", lossless=grey, quality=70)
        found.append("data:image/webp;base64," + base64.b64encode(file.getvalue()).decode())
    return found


def _numbered(*texts: str) -> list[str]:
    """The same with numbers for the random names that Bokeh gives: same maps, same bytes."""
    found: dict[str, str] = {}
    return [_RANDOM.sub(lambda match: found.setdefault(match[0], f"snr-{len(found)}"), text) for text in texts]


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


def _section(one: Map, div: str) -> str:
    title = escape(one.title)
    words = f"<p>{escape(one.facts)}.<br>{escape(one.scores)}.</p>"
    return f'<section aria-label="{title}"><h2>{title}</h2>{div}{words}</section>'


def _data(maps: list[Map], classes: Sequence[str], labels: NDArray, split: Sequence[str] | None) -> str:
    """What `inspector.js` reads, as JSON that cannot end its script."""
    facts = {
        "classes": list(classes),
        "labels": _packed(labels, "<i4"),
        "split": None if split is None else list(split),
        "looks": [(colour, (mark, sign)) for colour, (mark, _, sign) in map(class_look, range(_LOOKS))],
        "maps": [
            {
                "title": one.title,
                "distance": one.distance,
                "k": one.neighbours.shape[1],
                "near": _packed(one.neighbours, "<i4"),
                "far": _packed(one.distances, "<f4"),
            }
            for one in maps
        ],
    }
    return json.dumps(facts, ensure_ascii=False).replace("<", "\\u003c")  # "</script", and "<!--", which hides it


def _columns(
    maps: list[Map], images: LabelledImages | ImageFiles, labels: NDArray, split: Sequence[str] | None, side: int
) -> dict[str, Any]:
    """One row an image: what every map shows of it. The class decides colour and mark, as in `inspector.js`."""
    classes = np.asarray(images.classes, dtype=object)
    columns: dict[str, Any] = {
        "thumb": thumbnails(images, side),
        "name": classes[labels].tolist(),
        "group": [""] * len(labels) if split is None else [f"({one})" for one in split],
    }
    looks = [class_look(label) for label in labels.tolist()]
    colour, mark = [colour for colour, _ in looks], [bokeh for _, (bokeh, _, _) in looks]
    for m, one in enumerate(maps):
        first = one.hits[:, 0]
        taken = classes[labels[one.neighbours[:, 0]]]
        columns |= {
            f"x{m}": one.points[:, 0],
            f"y{m}": one.points[:, 1],
            f"nearest{m}": one.distances[:, 0],
            f"verdict{m}": [f"✓ {c}" if hit else f"✗ {c}" for hit, c in zip(first, taken, strict=True)],
            f"colour{m}": colour,
            f"mark{m}": mark,
        }
    return columns


def _plot(one: Map, m: int, source: ColumnDataSource) -> Plot:
    """A square map; its links to the neighbours of the chosen image are filled in by `inspector.js`."""
    n = len(one.points)
    hover = HoverTool(tooltips=Template(_TIP).safe_substitute(m=m, distance=escape(one.distance)), limit=1)
    lasso = LassoSelectTool(continuous=False)
    plot = figure(
        name=f"map{m}",
        sizing_mode="stretch_width",
        aspect_ratio=1,
        match_aspect=True,
        tools=[hover, lasso, BoxSelectTool(), "tap", "pan", "wheel_zoom", "reset"],
        active_drag=lasso,
        active_scroll=None,
        toolbar_location="above",
        output_backend="webgl" if n > _FEW else "canvas",
    )
    plot.toolbar.logo = None
    plot.axis.visible = False  # neither the axes of a t-SNE nor its gaps have a unit
    plot.grid.visible = False
    plot.outline_line_color = "#c9ced6"
    links = ColumnDataSource(name=f"links{m}", data={key: [] for key in ("x0", "y0", "x1", "y1", "colour", "dash")})
    plot.segment("x0", "y0", "x1", "y1", line_color="colour", line_dash="dash", line_width=2, source=links)
    plot.scatter("x1", "y1", size=15, fill_color=None, line_color="colour", line_width=2, source=links)
    dots = plot.scatter(
        f"x{m}",
        f"y{m}",
        source=source,
        marker=f"mark{m}",
        size=9 if n <= 1000 else 6 if n <= _FEW else 5,
        fill_color=f"colour{m}",
        line_color="white",
        line_width=0.5 if n <= _FEW else 0,
        selection_line_color="black",
        nonselection_fill_alpha=0.15 if n <= _FEW else 0.3,
        nonselection_line_alpha=0.15,
    )
    dots.selection_glyph.line_width = 1.5  # type: ignore[union-attr]
    hover.renderers = [dots]
    return plot


def _packed(values: NDArray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()
