"""Figures: one look, colour-blind-safe, PNG with alternative text that states the finding."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from snrlib.evaluate import Verification, most_confused
from snrlib.stats import mean_interval

__all__ = [
    "COLOURS",
    "LINES",
    "MARKERS",
    "confusion_matrix_plot",
    "distance_histograms",
    "force_field",
    "framework",
    "image_strip",
    "learning_curves",
    "mean_differences_plot",
    "pair_tables",
    "pixels",
    "png",
    "retrieval_grid",
    "robustness_curves",
    "roc_curves",
    "scoreboard_plot",
    "show",
    "use_style",
]

COLOURS: tuple[str, ...] = tuple(plt.style.library["petroff10"]["axes.prop_cycle"].by_key()["color"])
"""Ten colours told apart by readers with any colour vision (M. Petroff, 2021)."""
MARKERS: tuple[str, ...] = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))


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
    display({"image/png": png(figure), "text/plain": f"Figure: {alt}"}, raw=True, metadata={"image/png": {"alt": alt}})


def png(figure: Figure) -> bytes:
    """The figure as PNG file, small, without the opacity that no figure uses; it is closed."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    plt.close(figure)
    return _packed(Image.open(drawn).convert("RGB"))


def _packed(image: Image.Image) -> bytes:
    """With 256 colours where they are enough, as for a drawing: a third of the size. Photographs keep all of theirs."""
    few = image.quantize(256, dither=Image.Dither.NONE)
    lost = np.abs(np.asarray(few.convert("RGB"), dtype=int) - np.asarray(image)).mean()
    file = io.BytesIO()
    (few if lost < 0.5 else image).save(file, format="png", optimize=True)  # of 255
    return file.getvalue()


def pixels(image: Tensor) -> np.ndarray:
    """What an image shows: (H, W), grey, of (1, H, W), or (H, W, 3), colour, of (3, H, W); values are about [0, 1].

    Features (C, 1, 1) become a square of C grey cells in their own range.
    """
    if image.shape[0] > 3:
        side = math.ceil(image.numel() ** 0.5)
        cells = F.pad(image.flatten(), (0, side * side - image.numel())).view(1, side, side)
        image = cells / cells.abs().amax().clamp_min(1e-12)
    values = image.detach().float().cpu().permute(1, 2, 0).numpy()
    return values if values.shape[2] == 3 else values[:, :, 0]


def image_strip(axes: Sequence[Axes], images: Tensor) -> None:
    """One image an axis, without ticks; images (n, channels, H, W), as `pixels` takes them."""
    for axis, image in zip(axes, images, strict=True):
        values = pixels(image)
        if values.ndim == 3:
            axis.imshow(values.clip(0, 1))
        else:
            axis.imshow(values, cmap="gray", vmin=-0.2, vmax=1.2, interpolation="nearest")
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
        images: (n, 1, H, W) or (n, 3, H, W).
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


def pair_tables(tables: Mapping[str, np.ndarray]) -> Figure:
    """What each entry (anchor i, sample j) of a batch is to a loss, one panel a table.

    Args:
        tables: by title; (n, n), of 0 (not used), 1 (the anchor itself), 2 (a negative) and 3 (a positive).
    """
    figure, axes = plt.subplots(1, len(tables), figsize=(2.9 * len(tables), 3.5), squeeze=False)
    for axis, (name, table) in zip(axes[0], tables.items(), strict=True):
        axis.imshow(table, cmap=ListedColormap(["white", "0.75", "#f7d9b0", COLOURS[0]]), vmin=0, vmax=3)
        for i, j in np.ndindex(table.shape):
            colour = "white" if table[i, j] == 3 else "black"
            axis.text(j, i, ("", "·", "−", "+")[table[i, j]], ha="center", va="center", color=colour)
        axis.set(title=name, xlabel="sample $j$", ylabel="anchor $i$", xticks=[], yticks=[])
        axis.grid(False)
    figure.supxlabel("+ positive      − negative      · the anchor itself      white: not used", fontsize=10)
    return figure


def force_field(
    panels: Mapping[str, tuple[Tensor, Tensor]],
    fixed: Tensor,
    of: str,
    columns: int = 3,
    normals: Mapping[str, Tensor] | None = None,
) -> Figure:
    """Arrows of one length that say where a point is driven, drawn where that point is; their colour is the force.

    Dark is strong. A grey dot is a place without a force, a black cross one where there is no finite one.

    Args:
        panels: by title, the places (n, 2) of the point that may move, and the forces (n, 2) on it there.
        fixed: (2,), the other point of the pair, a star.
        of: the letter of the point that may move, for the axes.
        columns: of panels.
        normals: by title, the normal (2,) of a dashed line through the origin.
    """
    rows = -(-len(panels) // columns)
    size = (3.0 * columns + 1.2, 2.9 * rows + 0.5)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, (name, (places, forces)) in zip(axes.flat, panels.items(), strict=True):
        length = forces.norm(dim=1)
        finite = length.isfinite() & (length < 1e6)
        there = finite & (length > 1e-9)
        arrows = axis.quiver(
            *places[there].T,
            *(forces[there] / length[there, None]).T,
            length[there],
            cmap=ListedColormap(plt.get_cmap("cividis_r")(np.linspace(0.15, 1, 6))),  # dark is strong
            norm=LogNorm(0.125, 8),
            pivot="mid",
            angles="xy",
            scale=1.3,
            scale_units="xy",
            width=0.012,
        )
        axis.plot(*places[finite & ~there].T, ".", color="0.5", markersize=5)
        axis.plot(*places[~finite].T, "x", color="black", markersize=8, markeredgewidth=1.8, zorder=3)  # above the line
        if normals and name in normals:
            across = normals[name].flip(0) * torch.tensor([-1, 1])
            axis.plot(*torch.stack([-9 * across, 9 * across]).T, "--", color=COLOURS[2], linewidth=1.2)
        axis.plot(*fixed, "*", color=COLOURS[2], markersize=15, markeredgecolor="white")
        axis.plot(0, 0, "+", color="black", markersize=10, markeredgewidth=2)
        axis.grid(False)
        axis.set(aspect="equal", xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), xticks=[-2, 0, 2], yticks=[-2, 0, 2], title=name)
    for axis in axes[-1]:
        axis.set_xlabel(f"${of}_1$")
    for axis in axes[:, 0]:
        axis.set_ylabel(f"${of}_2$")
    look: dict[str, Any] = {"shrink": 0.8, "extend": "both", "ticks": [0.125, 0.25, 0.5, 1, 2, 4, 8], "format": "%g"}
    figure.colorbar(arrows, ax=axes, label="size of the force", **look).ax.minorticks_off()
    return figure


def learning_curves(history: pd.DataFrame | Mapping[str, pd.DataFrame]) -> Figure:
    """Loss and validation score of one training run, or of several, over the steps.

    The thin line is the loss of every batch, the thick one its running mean over a twentieth of the run, centred; the
    largest symbol marks the best validation score, which the legend or the title states.

    Args:
        history: of one run, or of each by name: index step, columns ``loss`` and, where recorded, ``validation`` (MAP@R
            on the validation classes, NaN between evaluations) and ``learning_rate``.

    Raises:
        ValueError: no run, or one without a loss.
    """
    histories = {"": history} if isinstance(history, pd.DataFrame) else dict(history)
    if not histories or any("loss" not in run or run.empty for run in histories.values()):
        raise ValueError("learning curves need one or more histories with a column loss and a row a step")
    titles = {"loss": "training loss", "validation": "validation, MAP@R", "learning_rate": "learning rate"}
    names = [name for name in titles if any(name in run and run[name].notna().any() for run in histories.values())]
    figure, axes = plt.subplots(1, len(names), figsize=(3.6 * len(names), 2.9), squeeze=False)
    best = {}
    for label, run in histories.items():
        scores = run["validation"].dropna() if "validation" in run else pd.Series(dtype=float)
        best[label] = f"best {scores.max():.3f}, step {scores.idxmax()}" if len(scores) else ""
    for name, axis in zip(names, axes[0], strict=True):
        axis.set(title=titles[name], xlabel="step")
        for number, (label, run) in enumerate(histories.items()):
            if name not in run:
                continue
            values, colour, line = run[name].dropna(), COLOURS[number % 10], LINES[number % len(LINES)]
            if name == "loss":
                axis.plot(values, color=colour, linewidth=0.6, alpha=0.35)
                # Centred: a mean of the steps before lies above a falling loss.
                values = values.rolling(max(1, len(values) // 20), min_periods=1, center=True).mean()
            marker = MARKERS[number % 10] if name == "validation" else ""
            axis.plot(values, color=colour, linestyle=line, marker=marker, markersize=4, linewidth=1.8)
            if name == "validation" and len(values):
                axis.plot(values.idxmax(), values.max(), marker=marker, markersize=9, color=colour, linestyle="none")
                if len(histories) == 1:
                    axis.set_title(f"{titles[name]}\n{best[label]}")
        if name == "learning_rate":
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if len(histories) > 1:
        handles = [
            Line2D([], [], color=COLOURS[i % 10], linestyle=LINES[i % len(LINES)], marker=MARKERS[i % 10], markersize=5)
            for i in range(len(histories))
        ]
        texts = [f"{label}\n{score}".rstrip() for label, score in best.items()]
        figure.legend(handles, texts, loc="outside lower center", ncols=len(names), handlelength=3.5)
    return figure


def distance_histograms(verifications: Mapping[str, Verification], bins: int = 50) -> Figure:
    """Distances of positive and negative pairs, one panel a distance: the less the two overlap, the better.

    Positive pairs are filled, negative ones hatched; the dotted line is the threshold of equal error rates. The axis is
    logarithmic where the farthest pairs are more than ten times as far apart as the median pair.

    Args:
        verifications: what `snrlib.evaluate.verification` returns, by the name of the distance.
        bins: of each histogram.

    Raises:
        ValueError: none given.
    """
    if not verifications:
        raise ValueError("distance histograms need one or more verifications")
    columns = 2 if len(verifications) == 4 else min(3, len(verifications))
    rows = -(-len(verifications) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.7 * columns, 2.7 * rows + 0.4), squeeze=False)
    for axis in axes.flat[len(verifications) :]:
        axis.set_visible(False)
    for axis, (name, pairs) in zip(axes.flat, verifications.items(), strict=False):
        both = np.concatenate([pairs.positive, pairs.negative])
        low, middle, high = np.quantile(both[both > 0], (0.001, 0.5, 0.999)) if (both > 0).any() else (0, 0, 1)
        if logarithmic := high > 10 * middle:
            edges = np.geomspace(low, high, bins + 1)
            axis.set_xscale("log")
        else:
            edges = np.linspace(0, high, bins + 1)
        looks = (
            ("positive pairs", pairs.positive, {"histtype": "stepfilled", "color": COLOURS[0], "alpha": 0.55}),
            ("negative pairs", pairs.negative, {"histtype": "step", "color": COLOURS[1], "hatch": "////"}),
        )
        for label, values, look in looks:
            # The thousandth beyond the edges falls into the outermost bins, so that shares sum to 1.
            axis.hist(
                values.clip(edges[0], edges[-1]),
                edges,
                weights=np.full(len(values), 1 / len(values)),
                label=label,
                **look,
            )
        axis.axvline(pairs.threshold, color="black", linestyle=":", linewidth=1.2, label="equal error rates")
        axis.set_title(f"{name}\nAUC {pairs.AUC:.3f}, EER {pairs.EER:.3f}")
        axis.set_xlabel("distance (logarithmic)" if logarithmic else "distance")
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if axis.get_ylim()[1] > 0.05 else 1))
    for axis in axes[:, 0]:
        axis.set_ylabel("share of pairs")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3 if columns > 1 else 1)
    return figure


def roc_curves(verifications: Mapping[str, Verification]) -> Figure:
    """True over false positive rate, one line a distance; its symbol marks the equal error rate.

    Args:
        verifications: what `snrlib.evaluate.verification` returns, by the name of the distance.

    Raises:
        ValueError: none given.
    """
    if not verifications:
        raise ValueError("ROC curves need one or more verifications")
    figure, axis = plt.subplots(figsize=(6.6, 3.8))
    axis.plot([0, 1], [1, 0], color="black", linewidth=0.8, alpha=0.5)
    axis.annotate(
        "equal errors", (0.98, 0.02), (-2, 14), textcoords="offset points", ha="right", rotation=-45, alpha=0.7
    )
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.8, alpha=0.3)
    for number, (name, pairs) in enumerate(verifications.items()):
        axis.plot(
            pairs.false_positive_rate,
            pairs.true_positive_rate,
            color=COLOURS[number % 10],
            linestyle=LINES[number % len(LINES)],
            linewidth=1.8,
        )
        axis.plot(
            pairs.EER,
            1 - pairs.EER,
            marker=MARKERS[number % 10],
            markersize=7,
            color=COLOURS[number % 10],
            linestyle=LINES[number % len(LINES)],
            label=f"{name}\nAUC {pairs.AUC:.3f}, EER {pairs.EER:.3f}",
        )
    axis.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal", xlim=(-0.02, 1), ylim=(0, 1.02))
    figure.legend(loc="outside right center", handlelength=3.5)
    return figure


_SPOILED = {
    "noise": "standard deviation",
    "blur": "deviation in 1/32 of the width",
    "occlusion": "share of the area",
    "wrong labels": "share of the labels",
}


def robustness_curves(table: pd.DataFrame, when: str, level: float = 0.95) -> Figure:
    """R@1 against how much images are spoiled: a row a data set, a column a kind, mean over seeds with its t-interval.

    Level 0 are the clean images. The distances stand a little beside each other, so that their intervals can be seen.

    Args:
        table: of `snrlib.study.robustness.measure_robustness`, margins tuned in one way.
        when: "test", spoiled queries, or "training", spoiled training.
        level: of confidence.

    Raises:
        ValueError: nothing was measured then, or margins were tuned in several ways.
    """
    if table.tuned_on.nunique() > 1:
        raise ValueError(f"margins must be tuned in one way, got {', '.join(table.tuned_on.unique())}")
    datasets, distances = list(dict.fromkeys(table.data)), list(dict.fromkeys(table.distance))
    kinds = list(dict.fromkeys(table[table.when == when].kind))
    if when not in ("test", "training") or not kinds:
        raise ValueError(f"when must be test or training, and in the table, got {when!r}")
    size = (2.5 * len(kinds) + 0.7, 2.3 * len(datasets) + 0.9)
    figure, axes = plt.subplots(len(datasets), len(kinds), figsize=size, sharex="col", sharey="row", squeeze=False)
    for row, data in zip(axes, datasets, strict=True):
        row[0].set_ylabel(f"R@1, {data}")
        for axis, kind in zip(row, kinds, strict=True):
            shown = table[
                (table.data == data) & ((table.when == "never") | ((table.when == when) & (table.kind == kind)))
            ]
            for number, distance in enumerate(distances):
                scores = shown[shown.distance == distance].groupby("level").precision_at_1
                means, halves = np.array([mean_interval(values, level) for _, values in scores]).reshape(-1, 2).T
                levels = np.array(list(scores.groups), dtype=float)
                axis.errorbar(
                    levels + 0.012 * (number - (len(distances) - 1) / 2) * shown.level.max(),
                    means,
                    np.nan_to_num(halves),
                    color=COLOURS[number % 10],
                    marker=MARKERS[number % 10],
                    linestyle=LINES[number % len(LINES)],
                    markersize=4.5,
                    linewidth=1.6,
                    elinewidth=1,
                    capsize=2,
                    label=distance,
                )
            axis.set_ylim(bottom=0)
    for axis, kind in zip(axes[0], kinds, strict=True):
        axis.set_title(kind)
    for axis, kind in zip(axes[-1], kinds, strict=True):
        axis.set_xlabel(_SPOILED.get(kind, "level"))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, handlelength=4)
    titles = {
        "test": "trained on clean images; spoiled queries search a clean gallery",
        "training": "trained on spoiled images or wrong labels; clean queries search a clean gallery",
    }
    figure.suptitle(titles[when], ha="left", x=0.01, fontsize="medium")
    return figure


def confusion_matrix_plot(
    matrix: pd.DataFrame | np.ndarray, classes: Sequence[str] | None = None, most: int = 15
) -> Figure:
    """Row by row the share of a class that was taken for each class, as colour and as a number (in percent).

    Of more than ``most`` classes those of the most frequent confusions are drawn, and the rest share a last column.

    Args:
        matrix: counts, one row a class, one column a class that it was taken for, in the same order, as
            `snrlib.evaluate.confusion` returns.
        classes: their names; None takes those of the matrix.
        most: how many classes to draw at most.

    Raises:
        ValueError: a matrix that is not square, another number of names than classes, or ``most`` below 2.
    """
    counts = np.asarray(matrix)
    names = classes if classes is not None else getattr(matrix, "index", range(len(counts)))
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or len(names) != len(counts) or most < 2:
        raise ValueError(
            f"need a square matrix, a name a class and two or more classes to draw, "
            f"got shape {counts.shape}, {len(names)} names and most={most}"
        )
    chosen = list(range(len(counts)))
    if len(counts) > most:
        worst = most_confused(pd.DataFrame(counts), n=counts.size)
        pairs = worst[["class", "taken for"]].to_numpy().flatten().tolist()
        chosen = sorted(list(dict.fromkeys([*pairs, *chosen]))[:most])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    drawn, columns = shares[np.ix_(chosen, chosen)], [str(names[i]) for i in chosen]
    title = "share of each class, in percent"
    if len(counts) > most:
        drawn = np.column_stack([drawn, shares[chosen].sum(axis=1) - drawn.sum(axis=1)])
        title += f"\n{most} of {len(counts)} classes, those most confused"
        columns = [*columns, "all others"]
    longest = 0.075 * max(map(len, columns))  # inches
    figure, axis = plt.subplots(
        figsize=(max(0.42 * len(columns) + longest + 1.7, 4.5), 0.42 * len(chosen) + 0.7 * longest + 0.9)
    )
    image = axis.imshow(drawn, vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(drawn):
        if share > 0:
            text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
            axis.text(
                column, row, text, ha="center", va="center", color="black" if share > 0.5 else "white", fontsize=8
            )
    axis.set(xticks=range(len(columns)), yticks=range(len(chosen)), xlabel="taken for", ylabel="class")
    axis.set_xticklabels(columns, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticklabels([str(names[i]) for i in chosen])
    axis.grid(False)
    figure.suptitle(title, ha="left", x=0.01, fontsize="medium")
    figure.colorbar(image, ax=axis, shrink=0.6, format=PercentFormatter(1))
    return figure


_VERDICTS = {"higher": (">", COLOURS[0]), "lower": ("<", COLOURS[1]), "no difference shown": ("o", "0.45")}


def scoreboard_plot(
    board: pd.DataFrame,
    distances: Sequence[str] = ("snr", "relative_euclidean", "mahalanobis", "relative_mahalanobis"),
    score: str = "R@1",
    level: float = 0.95,
) -> Figure:
    """Differences to Euclid with their intervals: a row for each network and loss, a panel for each distance.

    A triangle points to where the interval leaves 0 out, a circle says that it does not. Filled is what is shown also
    with Holm's correction.

    Args:
        board: of `snrlib.study.scoreboard.scoreboard`.
        distances: the panels, all on one scale.
        score: how the compared score is called.
        level: of confidence; 1 - level is the bound of the corrected p-values.

    Raises:
        ValueError: a distance that is not compared.
    """
    key = ["data", "backbone", "loss"]
    compared = board[(board.verdict != "") & board.distance.isin(distances)]
    if unknown := set(distances) - set(compared.distance):
        raise ValueError(f"not compared on this scoreboard: {', '.join(sorted(unknown))}")
    rows = list(compared[key].drop_duplicates().itertuples(index=False, name=None))
    places = {row: place for place, row in enumerate(rows)}
    size = (2.4 + 1.8 * len(distances), 0.235 * len(rows) + 1.4)  # five panels fill a page
    figure, axes = plt.subplots(1, len(distances), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, distance in zip(axes[0], distances, strict=True):
        for row in compared[compared.distance == distance].to_dict("records"):
            marker, colour = _VERDICTS[row["verdict"]]
            style = {"color": colour, "markerfacecolor": colour if row["p_holm"] < 1 - level else "white"}
            place, half = places[(row["data"], row["backbone"], row["loss"])], row["difference_half_width"]
            axis.errorbar(
                row["difference"], place, xerr=half, fmt=marker, linewidth=1, markersize=6, capsize=2, **style
            )
        axis.axvline(0, color="0.3", linewidth=1)
        axis.set_title(distance, fontsize="medium")
        axis.set_xlabel(f"{score} minus Euclid's")
        axis.locator_params(axis="x", nbins=5)
    for above, below in pairwise(rows):
        if above[:2] != below[:2]:
            for axis in axes[0]:
                axis.axhline(places[below] - 0.5, color="0.8", linewidth=0.8)
    names = [f"{data}, {backbone}: {loss}" for data, backbone, loss in rows]
    axes[0, 0].set_yticks(range(len(rows)), names)
    axes[0, 0].set_ylim(len(rows) - 0.4, -0.6)
    handles: list[Any] = [_verdict_handle(word) for word in _VERDICTS]
    handles += [
        tuple(Line2D([], [], linestyle="", marker=marker, color="0.3", markerfacecolor=face) for marker in "<>")
        for face in ("0.3", "white")
    ]
    labels = [*_VERDICTS, "filled: also with Holm's correction", "open: without it"]
    pairs = {tuple: HandlerTuple(ndivide=None)}
    figure.legend(handles, labels, handler_map=pairs, loc="outside lower center", ncols=5, fontsize="small")
    return figure


def _verdict_handle(word: str) -> Line2D:
    """A verdict in a legend, as it is drawn: a triangle, or an open circle."""
    marker, colour = _VERDICTS[word]
    face = "white" if word == "no difference shown" else colour
    return Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=face)


def mean_differences_plot(means: pd.DataFrame, score: str = "R@1") -> Figure:
    """Mean differences to Euclid with two intervals: a row for each distance, a panel for each loss.

    Thin is the interval over data sets, which speaks of others; thick, below it, the one over seeds, which speaks of
    these. A triangle points to where the thin one leaves 0 out.

    Args:
        means: of `snrlib.study.scoreboard.mean_differences`, by distance and loss.
        score: how the compared score is called.
    """
    table = means.reset_index()
    losses, distances = (list(dict.fromkeys(table[column])) for column in ("loss", "distance"))
    size = (2.6 + 2.2 * len(losses), 0.5 * len(distances) + 1.4)
    figure, axes = plt.subplots(1, len(losses), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, loss in zip(axes[0], losses, strict=True):
        for row in table[table.loss == loss].to_dict("records"):
            place, mean = distances.index(row["distance"]), row["mean"]
            marker, colour = _VERDICTS[row["verdict"]]
            face = "white" if row["verdict"] == "no difference shown" else colour
            axis.errorbar(
                mean,
                place,
                xerr=row["half_width"],
                fmt=marker,
                color=colour,
                markerfacecolor=face,
                linewidth=1,
                capsize=2,
            )
            axis.plot(
                [mean - row["half_width_seeds"], mean + row["half_width_seeds"]],
                [place + 0.3] * 2,
                color="0.2",
                lw=4,
                solid_capstyle="butt",
            )
        axis.axvline(0, color="0.3", linewidth=1)
        axis.set_title(loss, fontsize="medium")
        axis.set_xlabel(f"mean {score} minus Euclid's")
        axis.locator_params(axis="x", nbins=5)
    axes[0, 0].set_yticks(range(len(distances)), distances)
    axes[0, 0].set_ylim(len(distances) - 0.4, -0.6)
    handles = [_verdict_handle(word) for word in _VERDICTS]
    handles += [Line2D([], [], color="0.45", linewidth=1), Line2D([], [], color="0.2", linewidth=4)]
    labels = [*_VERDICTS, "interval over data sets", "interval over seeds"]
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize="small")
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
