"""The static twin of the inspector: the same maps as a picture, for print and for pages that run no script."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from torch import Tensor

from snrlib.explore.inspector import class_look
from snrlib.explore.maps import Map
from snrlib.plots import COLOURS, pixels

__all__ = ["map_figure"]


def map_figure(
    maps: Sequence[Map],
    labels: Tensor,
    *,
    chosen: Sequence[int] = (),
    wrong: bool = False,
    columns: int = 3,
    pictures: Tensor | None = None,
    width: float = 3.1,
    dot: float = 12,
) -> Figure:
    """Maps side by side, with the colours and marks of `snrlib.explore.inspect`.

    Args:
        maps: of the same n images.
        labels: (n,), of the images.
        chosen: indices of images that are ringed on every map.
        wrong: show by mark and colour which images are retrieved wrongly, instead of their classes.
        columns: maps in a row.
        pictures: (n, 1, H, W) or (n, 3, H, W); one of each class stands at the dot in the middle of its class.
        width: of a map, in inches.
        dot: size of a dot, in square points.
    """
    rows = math.ceil(len(maps) / columns)
    columns = min(columns, len(maps))
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, (width + 0.65) * rows), squeeze=False)
    y = labels.numpy()
    for axis in axes.flat[len(maps) :]:
        axis.set_visible(False)
    for axis, one in zip(axes.flat, maps, strict=False):
        if wrong:
            hit = one.hits[:, 0]
            groups = [(hit, COLOURS[0], "o", 8.0), (~hit, COLOURS[2], "*", 40.0)]
        else:
            looks = {c: class_look(c) for c in np.unique(y).tolist()}
            groups = [(y == c, colour, mark, dot) for c, (colour, (_, mark, _)) in looks.items()]
        for rows_of, colour, mark, size in groups:
            axis.scatter(*one.points[rows_of].T, s=size, color=colour, marker=mark, linewidths=0)
        if pictures is not None:
            for c in np.unique(y):
                _picture(axis, one.points, np.flatnonzero(y == c), pictures)
        if len(chosen):
            axis.scatter(*one.points[list(chosen)].T, s=70, facecolors="none", edgecolors="black", linewidths=1.5)
        # A square that each map fills: otherwise the same map in two panels may be drawn in two sizes.
        middle, half = (one.points.max(axis=0) + one.points.min(axis=0)) / 2, 0.54 * np.ptp(one.points, axis=0).max()
        axis.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), aspect="equal")
        axis.set(xticks=[], yticks=[], title=one.title)
        below = "\n".join([one.facts, *one.scores.split("; ")])
        axis.set_xlabel(below, fontsize=7.5, loc="left")
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set(visible=True, color="0.8")
    return figure


def _picture(axis: Axes, points: np.ndarray, rows: np.ndarray, pictures: Tensor) -> None:
    """The image that is nearest to all others of its class, at its dot."""
    own = points[rows]
    middle = rows[np.linalg.norm(own[:, None] - own, axis=2).sum(axis=1).argmin()]
    image = OffsetImage(1 - pixels(pictures[middle]).clip(0, 1), zoom=11 / pictures.shape[-1], cmap="gray")
    image.image.set_clim(0, 1)
    frame = {"boxstyle": "square,pad=0", "edgecolor": "0.6", "linewidth": 0.5}
    axis.add_artist(AnnotationBbox(image, points[middle], pad=0.1, bboxprops=frame))
