"""Figures: one look, colour-blind-safe, PNG with alternative text that states the finding."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["COLOURS", "MARKERS", "framework", "image_strip", "retrieval_grid", "show", "use_style"]

COLOURS: tuple[str, ...] = tuple(plt.style.library["petroff10"]["axes.prop_cycle"].by_key()["color"])
"""Ten colours told apart by readers with any colour vision (M. Petroff, 2021)."""
MARKERS: tuple[str, ...] = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")


def use_style() -> None:
    """The look of every figure in the notebooks; call it once, in the setup cell."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.titlelocation": "left",
            "axes.titlesize": "medium",
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "font.size": 10,
            "grid.alpha": 0.3,
            "image.cmap": "cividis",
            "legend.frameon": False,
        }
    )


def show(figure: Figure, alt: str) -> None:
    """Display a figure as PNG with its alternative text, and close it.

    Args:
        figure: the figure.
        alt: a sentence that says what the figure shows, for those who cannot see it.

    Raises:
        ValueError: the alternative text is missing or too short to state a finding.
    """
    if len(alt.split()) < 5:
        raise ValueError(f"alt must be a sentence that states the finding, got {alt!r}")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    plt.close(figure)
    display(
        {"image/png": png.getvalue(), "text/plain": f"Figure: {alt}"}, raw=True, metadata={"image/png": {"alt": alt}}
    )


def image_strip(axes: Sequence[Axes], images: Tensor) -> None:
    """One image an axis, grey, without ticks; images (n, 1, H, W) in about [0, 1]."""
    for axis, image in zip(axes, images, strict=True):
        axis.imshow(np.asarray(image.detach().squeeze(0)), cmap="gray", vmin=-0.2, vmax=1.2, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set_visible(True)


def retrieval_grid(
    images: Tensor, labels: Tensor, queries: Sequence[int], neighbours: Tensor, title: str = ""
) -> Figure:
    """Query images and their nearest neighbours in order.

    A right one has a solid frame and a tick, a wrong one a dashed frame and a cross.

    Args:
        images: (n, 1, H, W).
        labels: (n,).
        queries: indices of the q images that are shown as queries.
        neighbours: (q, k), indices of their nearest neighbours, nearest first.
        title: above the figure.
    """
    k = neighbours.shape[1]
    figure, axes = plt.subplots(len(queries), k + 1, figsize=(0.85 * (k + 1), 0.95 * len(queries) + 0.5), squeeze=False)
    figure.suptitle(title, ha="left", x=0.01, fontsize="medium")
    for row, query, found in zip(axes, queries, neighbours, strict=True):
        image_strip(row, images[torch.cat([torch.tensor([query]), found.cpu()])])
        for axis, index in zip(row[1:], found, strict=True):
            right = bool(labels[index] == labels[query])
            axis.set_xlabel("✓" if right else "✗", color=COLOURS[0] if right else COLOURS[2], labelpad=1)
            for spine in axis.spines.values():
                spine.set(color=COLOURS[0] if right else COLOURS[2], linewidth=2.5, linestyle="-" if right else "--")
    axes[0, 0].set_title("query", ha="center", loc="center")
    for rank, axis in enumerate(axes[0, 1:], start=1):
        axis.set_title(str(rank), ha="center", loc="center")
    return figure


def framework(first: Tensor, second: Tensor) -> Figure:
    """Figure 1 of the report: two images go through one network into one feature space, where their distance is taken.

    Args:
        first: an image (1, H, W).
        second: another, of the same shape.
    """
    figure = plt.figure(figsize=(8, 2.6), layout="none")
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, 8), ylim=(0, 2.6))
    canvas.axis("off")
    for y, image, number in ((1.75, first, 1), (0.55, second, 2)):
        small = figure.add_axes((0.06, (y - 0.42) / 2.6, 0.105, 0.84 / 2.6))
        image_strip([small], image[None])
        canvas.text(0.42, y, f"$x_{number}$", ha="right", va="center")
        canvas.text(
            3.15,
            y,
            r"$f(\theta, \cdot)$",
            ha="center",
            va="center",
            bbox={"boxstyle": "round,pad=0.6", "fc": "white", "ec": COLOURS[0], "lw": 2},
        )
        canvas.annotate("", (2.6, y), (1.45, y), arrowprops={"arrowstyle": "->"})
        canvas.annotate("", (4.95, y), (3.7, y), arrowprops={"arrowstyle": "->"})
        canvas.text(4.1, y + 0.14, f"$h_{number}$", ha="center", va="bottom")
    canvas.annotate(
        "", (3.15, 0.87), (3.15, 1.43), arrowprops={"arrowstyle": "<->", "linestyle": "--", "color": COLOURS[8]}
    )
    canvas.text(3.25, 1.15, r"the same $\theta$", va="center", color=COLOURS[8])
    space = plt.Rectangle((5.0, 0.15), 1.5, 2.1, fill=False, ec=COLOURS[8])
    canvas.add_patch(space)
    canvas.text(5.75, 2.42, "feature space", ha="center", va="center")
    canvas.plot([5.4, 6.05], [1.6, 0.75], linestyle=":", color=COLOURS[2], linewidth=2)
    canvas.plot([5.4], [1.6], marker="o", markersize=9, color=COLOURS[0])
    canvas.plot([6.05], [0.75], marker="s", markersize=9, color=COLOURS[1])
    canvas.annotate("", (7.0, 1.15), (6.5, 1.15), arrowprops={"arrowstyle": "->"})
    canvas.text(7.1, 1.15, "$d(h_1, h_2)$", va="center", color=COLOURS[2])
    return figure
