"""Figures carry their finding in words."""

import io
from collections.abc import Iterator
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from oracles import refusals
from PIL import Image
from scipy.stats import t as student_t

from snrlib import plots
from snrlib.distances import get_distance
from snrlib.evaluate import Verification, verification

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with matplotlib.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def assert_drawn_whole(figure: Figure) -> None:
    """No text of the figure or its axes leaves the picture."""
    figure.savefig(io.BytesIO(), dpi=110)
    canvas: Any = figure.canvas
    renderer = canvas.get_renderer()
    boxes: list[Any] = [axis.get_tightbbox(renderer) for axis in figure.axes if axis.get_visible()]
    boxes += [item.get_window_extent(renderer) for item in (*figure.legends, *figure.texts)]
    width, height = canvas.get_width_height()
    assert all(b.x0 >= -1 and b.y0 >= -1 and b.x1 <= width + 1 and b.y1 <= height + 1 for b in boxes)


def test_show_displays_a_png_with_its_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple] = []
    monkeypatch.setattr(plots, "display", lambda data, raw, metadata: shown.append((data, metadata)))
    figure, _ = plt.subplots()
    with pytest.raises(ValueError, match="states the finding, got 'Figure 3'"):
        plots.show(figure, "Figure 3")
    plots.show(figure, "A line that rises from zero to one.")
    ((data, metadata),) = shown
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == "A line that rises from zero to one."
    assert not plt.fignum_exists(figure.number)


def test_pair_tables_mark_each_kind_beyond_colour() -> None:
    table = np.array([[1, 3, 2], [3, 1, 2], [0, 0, 1]])
    (axis,) = plots.pair_tables({"two and one": table}).axes
    drawn = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axis.texts}
    assert {table[place]: sign for place, sign in drawn.items()} == {0: "", 1: "·", 2: "−", 3: "+"}


def test_forces_are_drawn_where_their_point_is() -> None:
    places = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [-1.0, 1.0]])
    forces = torch.tensor([[0.0, 3.0], [0.0, 0.0], [torch.inf, 0.0], [-0.5, 0.0]])
    figure = plots.force_field({"one": (places, forces)}, torch.tensor([2.0, -1.0]), "a", columns=1)
    axis = figure.axes[0]
    (arrows,) = axis.collections
    assert isinstance(arrows, Quiver)
    drawn = [np.asarray(x).tolist() for x in (arrows.get_offsets(), arrows.U, arrows.V, arrows.get_array())]
    assert drawn == [[[1.0, 0.0], [-1.0, 1.0]], [0, -1], [1, 0], [3.0, 0.5]]
    without, infinite = (np.column_stack(line.get_data()).tolist() for line in axis.lines[:2])
    assert (without, infinite) == ([[0.0, 1.0]], [[2.0, 2.0]])
    assert axis.get_xlabel() == "$a_1$"
    assert_drawn_whole(figure)


def test_neighbours_and_figure_1_differ_beyond_colour() -> None:
    figure = plots.retrieval_grid(torch.rand(4, 1, 16, 16), torch.tensor([0, 0, 1, 1]), [0], torch.tensor([[1, 2]]))
    _, right, wrong = figure.axes
    assert (right.get_xlabel(), wrong.get_xlabel()) == ("✓", "✗")
    assert right.spines["left"].get_linestyle() != wrong.spines["left"].get_linestyle()
    figure = plots.framework(torch.rand(1, 16, 16), torch.rand(1, 16, 16))
    assert sum(bool(axis.images) for axis in figure.axes) == 2
    assert any("d(h_1, h_2)" in text.get_text() for axis in figure.axes for text in axis.texts)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stay_as_they_are(channels: int) -> None:
    _, axes = plt.subplots(1, 2)
    images = torch.rand(2, channels, 8, 6) * 1.2 - 0.1  # beyond [0, 1] by an augmentation
    plots.image_strip(axes, images)
    expected = images[1, 0] if channels == 1 else images[1].permute(1, 2, 0).clamp(0, 1)
    np.testing.assert_allclose(np.asarray(axes[1].images[0].get_array()), expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize(("features", "side"), [(16, 4), (5, 3)])
def test_features_are_cells_in_their_own_range(features: int, side: int) -> None:
    _, axes = plt.subplots(1, 2)
    values = torch.rand(2, features, 1, 1) * torch.tensor([1.0, 50.0]).view(2, 1, 1, 1)
    plots.image_strip(axes, values)
    for axis, vector in zip(axes, values.flatten(1), strict=True):
        cells = np.asarray(axis.images[0].get_array()).ravel()
        assert len(cells) == side**2
        np.testing.assert_allclose(cells[:features], (vector / vector.max()).numpy(), rtol=1e-6)
        assert not cells[features:].any(), "what the features do not fill is empty"
    plots.image_strip(axes, torch.zeros(2, features, 1, 1))  # of which there is no range


def history(best: float, steps: int = 40) -> pd.DataFrame:
    validation = np.full(steps, np.nan)
    validation[9::10] = [0.5 * best, best, 0.9 * best, 0.8 * best]
    columns = {"loss": np.linspace(1, 0, steps), "learning_rate": 1e-3, "seconds": 0.0, "validation": validation}
    return pd.DataFrame(columns, index=pd.RangeIndex(1, steps + 1, name="step"))


def test_a_falling_loss_has_its_mean_amid() -> None:
    falling = pd.DataFrame({"loss": np.linspace(1, 0, 200)})
    (axis,) = plots.learning_curves(falling).axes
    thin, thick = (np.asarray(line.get_ydata()) for line in axis.lines)
    assert np.abs(thick - thin)[10:-10].max() < 0.003, "less than a step, not half a window"


def test_learning_curves_state_best_scores_and_differ_visibly() -> None:
    figure = plots.learning_curves(history(0.4))
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["training loss", "validation, MAP@R\nbest 0.400, step 20", "learning rate"]
    xs = np.asarray(figure.axes[1].lines[0].get_xdata()).tolist()
    assert xs == [10, 20, 30, 40], "only the steps that were judged"
    assert_drawn_whole(figure)
    figure = plots.learning_curves({"AlexNet": history(0.4), "ResNet-18": history(0.5), "conv4": history(0.3)})
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][1] == "ResNet-18\nbest 0.500, step 20"
    assert len({(line.get_linestyle(), line.get_marker()) for line in legend.get_lines()}) == 3
    assert len({line.get_linestyle() for line in figure.axes[0].lines if line.get_linewidth() > 1}) == 3
    assert_drawn_whole(figure)
    assert len(plots.learning_curves(history(0.4)[["loss", "seconds"]]).axes) == 1, "what was recorded"


@pytest.fixture(scope="module")
def verifications() -> dict[str, Verification]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    x = torch.randn(90, 8, generator=generator) + 2 * torch.eye(8)[labels]
    wide = x * torch.exp(2 * torch.randn(90, 1, generator=generator))
    return {"Euclid": verification(x, labels), "SNR": verification(wide, labels, get_distance("snr"))}


def test_histograms_of_pairs_sum_to_one(verifications: dict[str, Verification]) -> None:
    figure = plots.distance_histograms(verifications)
    for axis, (name, pairs) in zip(figure.axes, verifications.items(), strict=True):
        assert axis.get_title(loc="left") == f"{name}\nAUC {pairs.AUC:.3f}, EER {pairs.EER:.3f}"
        positive, negative = axis.patches
        assert negative.get_hatch() != positive.get_hatch() is None
        for patch in (positive, negative):
            outline = np.asarray(patch.get_path().vertices)  # around the bars: two corners atop each of the 50
            assert outline[1:101:2, 1].sum() == pytest.approx(1)
    assert [axis.get_xscale() for axis in figure.axes] == ["linear", "log"]
    for n in (1, 5):
        figure = plots.distance_histograms({f"a distance, anchor {i}": verifications["SNR"] for i in range(n)})
        assert sum(axis.get_visible() for axis in figure.axes) == n
        assert_drawn_whole(figure)


def test_a_roc_curves_symbol_is_its_equal_error(verifications: dict[str, Verification]) -> None:
    figure = plots.roc_curves(verifications)
    symbols = [line for line in figure.axes[0].lines if line.get_marker() != "None"]
    for symbol, pairs in zip(symbols, verifications.values(), strict=True):
        assert (symbol.get_xdata(), symbol.get_ydata()) == ([pairs.EER], [1 - pairs.EER])
    assert len({symbol.get_marker() for symbol in symbols}) == len({symbol.get_linestyle() for symbol in symbols}) == 2
    assert_drawn_whole(figure)


def _robustness(seeds: int = 3) -> pd.DataFrame:
    rows = [
        {"data": data, "distance": distance, "seed": seed, "when": when, "kind": kind, "level": level}
        for data in ("glyphs", "photographs")
        for distance in ("euclidean", "snr", "mahalanobis")
        for seed in range(seeds)
        for when, kind, level in [
            ("never", "clean", 0.0),
            *(("test", kind, level) for kind in ("noise", "blur") for level in (0.1, 0.4)),
            *(("training", kind, level) for kind in ("noise", "wrong labels") for level in (0.2, 0.3)),
        ]
    ]
    table = pd.DataFrame(rows)
    return table.assign(
        tuned_on="clean", precision_at_1=0.6 - table.level + 0.01 * table.seed + 0.1 * (table.distance == "snr")
    )


@pytest.mark.parametrize(
    ("seeds", "when", "kinds"), [(1, "test", ["noise", "blur"]), (3, "training", ["noise", "wrong labels"])]
)
def test_robustness_curves_are_means_with_intervals(seeds: int, when: str, kinds: list[str]) -> None:
    figure = plots.robustness_curves(_robustness(seeds), when, level=0.9)
    assert [axis.get_title(loc="left") or axis.get_title() for axis in figure.axes[:2]] == kinds
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == ["R@1, glyphs", "R@1, photographs"]
    levels = [0.0, 0.1, 0.4] if when == "test" else [0.0, 0.2, 0.3]
    for axis in figure.axes:
        assert len(axis.containers) == 3
        for number, lines in enumerate(axis.containers):
            line, _, (bars,) = lines
            np.testing.assert_allclose(line.get_xdata(), levels, atol=0.011)
            means = 0.6 - np.array(levels) + 0.01 * (seeds - 1) / 2 + 0.1 * (number == 1)
            np.testing.assert_allclose(line.get_ydata(), means)
            half = 0 if seeds == 1 else student_t.ppf(0.95, 2) * 0.01 / 3**0.5
            ends = np.array([segment[:, 1] for segment in bars.get_segments()])
            np.testing.assert_allclose(ends, np.stack([means - half, means + half], axis=1))
        looks = {(line[0].get_color(), line[0].get_marker(), line[0].get_linestyle()) for line in axis.containers}
        assert [len(set(look)) for look in zip(*looks, strict=True)] == [3, 3, 3]
    assert [text.get_text() for text in figure.legends[0].texts] == ["euclidean", "snr", "mahalanobis"]
    assert_drawn_whole(figure)


def test_confusion_is_in_percent_or_of_the_most() -> None:
    figure = plots.confusion_matrix_plot(np.array([[3, 1], [0, 4]]), ["cat", "a dog with a rather long name"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["75", "25", "100"]
    assert_drawn_whole(figure)
    counts = np.diag(np.full(200, 10))
    counts[[7, 30, 30], [150, 7, 90]] = 5, 2, 1
    figure = plots.confusion_matrix_plot(pd.DataFrame(counts), most=3)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["7", "30", "150"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["7", "30", "150", "all others"]
    np.testing.assert_allclose(np.asarray(axis.images[0].get_array()).sum(axis=1), 1)
    assert "3 of 200 classes" in figure.get_suptitle()
    assert_drawn_whole(figure)


when, table = "when must be test or training, and in the table, got ", _robustness(1)

test_what_cannot_be_drawn_is_refused = refusals(
    (lambda: plots.learning_curves({}), ValueError, "one or more histories with a column loss"),
    (lambda: plots.learning_curves(history(0.4)[["seconds"]]), ValueError, "one or more histories with a column loss"),
    (lambda: plots.distance_histograms({}), ValueError, "need one or more verifications"),
    (lambda: plots.roc_curves({}), ValueError, "need one or more verifications"),
    (lambda: plots.robustness_curves(table, "later"), ValueError, f"{when}'later'"),
    (
        lambda: plots.robustness_curves(pd.concat([table, table.assign(tuned_on="spoiled")]), "test"),
        ValueError,
        "margins must be tuned in one way, got clean, spoiled",
    ),
    (lambda: plots.robustness_curves(table[table.when != "training"], "training"), ValueError, f"{when}'training'"),
    (lambda: plots.confusion_matrix_plot(np.ones((2, 3))), ValueError, r"square matrix.* got shape \(2, 3\)"),
)


def test_drawings_take_few_colours_photographs_keep_theirs() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    kept = Image.open(io.BytesIO(plots._packed(noise)))
    assert np.array_equal(np.asarray(kept), np.asarray(noise))
    figure, axis = plt.subplots()
    axis.plot([0, 1], [0, 1])
    drawn = Image.open(io.BytesIO(plots.png(figure)))
    assert drawn.mode == "P"
    assert {(255, 255, 255), (0, 0, 0)} <= {colour for _, colour in drawn.convert("RGB").getcolors(10**6) or ()}
