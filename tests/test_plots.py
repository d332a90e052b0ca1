"""Figures carry their finding in words."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from snrlib import plots

matplotlib.use("Agg")


def test_show_displays_a_png_with_alternative_text_and_closes_the_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple] = []
    monkeypatch.setattr(plots, "display", lambda data, raw, metadata: shown.append((data, metadata)))
    figure, _ = plt.subplots()
    plots.show(figure, "A line that rises from zero to one.")
    ((data, metadata),) = shown
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == "A line that rises from zero to one."
    assert not plt.fignum_exists(figure.number)


def test_a_figure_without_a_finding_is_refused() -> None:
    with pytest.raises(ValueError, match="states the finding, got 'Figure 3'"):
        plots.show(plt.figure(), "Figure 3")
    plt.close("all")


def test_right_and_wrong_neighbours_differ_beyond_colour() -> None:
    images = torch.rand(4, 1, 16, 16)
    labels = torch.tensor([0, 0, 1, 1])
    figure = plots.retrieval_grid(images, labels, [0], torch.tensor([[1, 2]]))
    _, right, wrong = figure.axes
    assert (right.get_xlabel(), wrong.get_xlabel()) == ("✓", "✗")
    assert right.spines["left"].get_linestyle() != wrong.spines["left"].get_linestyle()
    plt.close(figure)


def test_figure_1_shows_both_images_and_the_distance() -> None:
    figure = plots.framework(torch.rand(1, 16, 16), torch.rand(1, 16, 16))
    assert sum(bool(axis.images) for axis in figure.axes) == 2
    assert any("d(h_1, h_2)" in text.get_text() for axis in figure.axes for text in axis.texts)
    plt.close(figure)
