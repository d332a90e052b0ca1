"""The playground: move embeddings or draw signals, and watch distances, losses and their gradients change."""

from __future__ import annotations

import json
import math
import re
from html import unescape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from snrlib.distances import Distance, get_distance
from snrlib.explore.page import ExplorePage
from snrlib.losses import get_loss
from snrlib.plots import COLOURS
from snrlib.utils.markup import mathml

__all__ = ["FIGURE_ALT", "playground", "playground_figure"]

_PLANE = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])  # rows e1 and e2: all vectors whose mean is zero
_LOOKS = (("a", "o", COLOURS[0]), ("p", "s", COLOURS[1]), ("n₁", "^", COLOURS[2]), ("n₂", "v", COLOURS[4]))
FIGURE_ALT = (
    "The playground in its first state. Through the positive p run the circle of equal distance from the anchor a, the "
    "same for Euclid and SNR, the ellipse of Mahalanobis, and a smaller circle for SNR with p's side as anchor. "
    "Two signals of 32 components follow, b a noisy a, at the SNR distance 0.401. "
    "Then the steps of gradient descent under the SNR distance, which differ from loss to loss: "
    "the longest step is a's with contrastive, n₂'s with N-pair, n₁'s with triplet and lifted loss."
)
"""What `playground_figure` shows, for `snrlib.plots.show`."""


def playground(save: str | Path | None = None) -> ExplorePage:
    """A page on which anchor, positive and negatives are moved, or two signals drawn.

    It shows the nine distances in both directions, the four losses of eqs. 1-5 and three rivals, and their gradients,
    with the formulas beside, and asks eight questions. Its numbers are computed in the page and equal snrlib's in
    float64.

    Args:
        save: a file that ends in ``.html``; it opens from disk with no network. None writes none.

    Returns:
        The page; the last line of a notebook's cell shows it.

    Raises:
        ValueError: another ending.
        OSError: the file cannot be written.

    Example: ``playground(save="playground.html")``
    """
    folder = Path(__file__).parent / "assets"
    html = (folder / "playground.html").read_text(encoding="utf-8")
    html = re.sub(r"\\\[(.+?)\\\]", lambda found: mathml(unescape(found[1]), display=True), html, flags=re.DOTALL)
    html = re.sub(r"\\\((.+?)\\\)", lambda found: mathml(unescape(found[1])), html)
    html = html.replace("{{start}}", json.dumps(_start()))
    for name in ("numbers", "drawing", "questions", "playground"):
        html = html.replace(f"{{{{{name}}}}}", (folder / f"{name}.js").read_text(encoding="utf-8").rstrip())
    page = ExplorePage(html, 1100, "Playground of distances, losses and their gradients")
    if save is not None:
        page.save(save)
    return page


def playground_figure() -> Figure:
    """The first state of the playground as a picture, for print and for pages that run no script.

    Lines of equal distance, the two signals, and for each of the four losses of eqs. 1-5 the step of gradient descent
    of every point. All numbers are of `snrlib.distances` and `snrlib.losses`. `FIGURE_ALT` says what is seen.
    """
    start = _start()
    figure, axes = plt.subplots(2, 3, figsize=(10, 7))
    _draw_lines(axes[0, 0], start)
    _draw_signals(axes[0, 1], start)
    distance = get_distance(start["distance"])
    for name, axis in zip(("contrastive", "triplet", "n_pair", "lifted"), axes.flat[2:], strict=True):
        x = _embeddings(start["points"]).requires_grad_()
        loss = get_loss(name, distance, **({} if name == "n_pair" else {"margin": start["margin"]}))
        value = loss(x, torch.tensor([0, 0, 1, 1]))
        value.backward()
        assert x.grad is not None
        steps = -x.grad.numpy() @ _PLANE.T
        rate = 0.9 / np.linalg.norm(steps, axis=1).max()
        _draw_points(axis, start, f"{name}: {value.item():.3f}\nsteps × {rate:.2g}")
        axis.quiver(
            *np.array(start["points"]).T, *(rate * steps).T, angles="xy", scale_units="xy", scale=1, width=0.012
        )
    return figure


def _start() -> dict[str, Any]:
    """What the page shows first."""
    noise = np.random.default_rng(0).standard_normal((4, 32))
    turn = 2 * np.pi * (np.arange(32) + 0.5) / 32
    clean = np.array([np.sin(turn) + 0.5 * np.sin(3 * turn), np.sin(2 * turn + 1)])[[0, 0, 1, 1]]
    return {
        "mode": "points",
        "points": [[1.2, 0.5], [2.1, 1.3], [0.3, 1.5], [-0.6, -1.3]],  # u and v of a, p, n1, n2
        "anchor_offset": 0.0,
        "offset": 0.0,
        "signals": (clean + np.array([[0.1], [0.5], [0.3], [0.3]]) * noise).round(2).tolist(),
        "distance": "snr",
        "loss": "triplet",
        "margin": 1.0,
        "scale": 1.0,
        "normalize_embeddings": False,
        "anchor": "query",
        "stretch": 2.0,
        "angle": 30.0,
    }


def _embeddings(points: Any) -> Tensor:
    """x = u e1 + v e2 of points (n, 2)."""
    return torch.from_numpy(np.asarray(points, dtype=float) @ _PLANE)


def _stretch(start: dict[str, Any]) -> Tensor:
    """L = I + (stretch - 1) w w', w in the plane at the angle."""
    angle = math.radians(start["angle"])
    w = torch.from_numpy(np.array([math.cos(angle), math.sin(angle)]) @ _PLANE)
    return torch.eye(3, dtype=w.dtype) + (start["stretch"] - 1) * torch.outer(w, w)


def _draw_lines(axis: Axes, start: dict[str, Any]) -> None:
    """The points as far from the anchor as the positive is."""
    x = _embeddings(start["points"])
    u, v = np.meshgrid(np.linspace(-3, 3, 301), np.linspace(-3, 3, 301))
    grid = _embeddings(np.stack([u.ravel(), v.ravel()], axis=1))
    lines: list[tuple[str, Distance, str, Any]] = [
        ("euclidean, snr (anchor a)", get_distance("euclidean"), COLOURS[3], "-"),
        ("mahalanobis", get_distance("mahalanobis", components=_stretch(start)), COLOURS[5], ":"),
        ("snr (anchor p)", get_distance("snr", anchor="ref"), COLOURS[6], "--"),
    ]
    for _, distance, colour, style in lines:
        d = distance(x[:1], grid).reshape(u.shape).numpy()
        level = distance.pairwise_distance(x[:1], x[1:2]).item()
        axis.contour(u, v, d, levels=[level], colors=[colour], linestyles=[style])
    _draw_points(axis, start, "as far from a as p is")
    handles = [Line2D([], [], color=colour, linestyle=style) for _, _, colour, style in lines]
    axis.legend(handles, [name for name, *_ in lines], loc="lower right", fontsize=8, frameon=True)


def _draw_points(axis: Axes, start: dict[str, Any], title: str) -> None:
    for (u, v), (name, marker, colour) in zip(start["points"], _LOOKS, strict=True):
        axis.plot(u, v, marker=marker, color=colour, markeredgecolor="black", markersize=8)
        axis.annotate(name, (u, v), (7, 5), textcoords="offset points")
    axis.plot(0, 0, "+", color="black", markersize=9)
    axis.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", title=title, xlabel="u", ylabel="v")


def _draw_signals(axis: Axes, start: dict[str, Any]) -> None:
    a, b = torch.tensor(start["signals"][:2], dtype=torch.float64)
    d = get_distance("snr").pairwise_distance(a[None], b[None]).item()
    for signal, style, (_, marker, colour), name in zip((a, b), ("-", "--"), _LOOKS, "ab", strict=False):
        axis.plot(signal, style, marker=marker, color=colour, markersize=4, label=name)
    axis.set(title=f"two signals: snr(a → b) = {d:.3f}", xlabel="component", ylim=(-3, 3))
    axis.legend(ncols=2)
