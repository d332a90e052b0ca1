"""The page of `snr compare`: the answer first, then what it rests on; it needs no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from snrlib.evaluate import Comparison, Geometry
from snrlib.evaluate.comparison import SCORE_WORDS
from snrlib.explore.page import ExplorePage
from snrlib.plots import COLOURS, png

__all__ = ["comparison_page", "differences_figure", "score_name"]

_LOOKS = {"higher": (">", COLOURS[0]), "lower": ("<", COLOURS[2]), "no difference shown": ("o", "0.35")}


def score_name(name: str) -> str:
    """A score as the field calls it.

    >>> [score_name(name) for name in ("precision_at_1", "recall_at_8", "mean_average_precision_at_r", "EER")]
    ['R@1', 'R@8', 'MAP@R', 'EER']
    """
    return SCORE_WORDS.get(name, name.replace("recall_at_", "R@").replace("r_precision", "R-precision"))


def differences_figure(differences: pd.DataFrame, score: str, baseline: str = "Euclid") -> Figure:
    """Each way's difference to the baseline, thin its interval over classes, thick the one over queries.

    Args:
        differences: of `snrlib.evaluate.Comparison.differences`.
        score: how it is called.
        baseline: the way that the others are compared with.
    """
    figure, axis = plt.subplots(figsize=(5.2, 0.34 * len(differences) + 1.3), layout="constrained")
    for place, (_, row) in enumerate(differences.iterrows()):
        marker, colour = _LOOKS[row.verdict]
        axis.plot([row.low_queries, row.high_queries], [place] * 2, color="0.75", lw=6, solid_capstyle="butt", zorder=1)
        axis.plot([row.low, row.high], [place] * 2, color=colour, lw=1.5, zorder=2)
        face = "white" if row.verdict == "no difference shown" else colour
        axis.plot(row["mean"], place, marker=marker, color=colour, markerfacecolor=face, markersize=8, zorder=3)
    axis.axvline(0, color="0.3", linewidth=1)
    axis.set_yticks(range(len(differences)), [str(name) for name in differences.index])
    axis.set_ylim(len(differences) - 0.4, -0.6)
    axis.set_xlabel(f"{score} minus that of {baseline}")
    axis.locator_params(axis="x", nbins=5)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def comparison_page(
    table: Comparison,
    geometry: Geometry,
    judged: Mapping[str, str],
    baseline: str = "Euclid",
    *,
    title: str = "Which distance for these embeddings?",
    notes: Sequence[str] = (),
) -> ExplorePage:
    """A comparison as one file: the sentence, what differs by how much, all scores, the geometry, how it was judged.

    Args:
        table: of `snrlib.evaluate.compare`.
        geometry: of `snrlib.evaluate.geometry`.
        judged: how it was judged, a word for each fact.
        baseline: the way that the others are compared with.
        title: of the page.
        notes: what a reader must know besides, a sentence each.

    Returns:
        The page; the last line of a notebook's cell shows it, and `ExplorePage.save` writes it.

    Raises:
        ValueError: as `snrlib.evaluate.Comparison.differences`.
    """
    figures, tables = [], []
    for score, word in SCORE_WORDS.items():
        differences = table.differences(baseline, score)
        picture = base64.b64encode(png(differences_figure(differences, word, baseline))).decode()
        alt = escape(f"{word} minus that of {baseline}: " + "; ".join(_in_words(differences)) + ".")
        figures.append(f'<figure><img src="data:image/png;base64,{picture}" alt="{alt}"></figure>')
        tables.append(f"<h3>{word}</h3>{_differences(table, differences, score, baseline)}")
    twins = _twins(table.differences(baseline))
    sentences = [table.answer(baseline)]
    text = Path(__file__).with_name("assets").joinpath("comparison.html").read_text(encoding="utf-8")
    html = Template(text).substitute(
        title=escape(title),
        answer=escape(sentences[0]),
        by_rank=escape(table.answer(baseline, "mean_average_precision_at_r")),
        notes="".join(f"<p>{escape(note)}</p>" for note in (*twins, *notes)),
        differences="".join(tables),
        figures="".join(figures),
        scores=_scores(table),
        geometry="".join(f"<li>{escape(sentence)}</li>" for sentence in geometry.sentences()),
        judged="".join(f"<dt>{escape(name)}</dt><dd>{escape(word)}</dd>" for name, word in judged.items()),
    )
    return ExplorePage(html, 900, f"Comparison of {len(table)} ways to search")


def _twins(differences: pd.DataFrame) -> list[str]:
    return [
        f"{name} finds the same neighbours as {twin}, and so is not tested; they differ only in AUC and EER."
        for name, twin in differences.ranks_as.items()
        if twin
    ]


def _in_words(differences: pd.DataFrame) -> list[str]:
    return [
        f"{name} {row['mean']:+.3f} ({row.low:+.3f} to {row.high:+.3f}), "
        + (f"finds the same as {row.ranks_as}" if row.ranks_as else str(row.verdict))
        for name, row in differences.iterrows()
    ]


def _differences(table: Comparison, differences: pd.DataFrame, score: str, baseline: str) -> str:
    word = SCORE_WORDS[score]
    heads = ["", word, f"minus {baseline}", "over classes", "over queries", "p", "p, Holm", "effect", ""]
    rows = [[baseline, f"{float(table.to_dict('index')[baseline][score]):.3f}", *[""] * 7]]
    for name, row in differences.iterrows():
        tested = not np.isnan(row.p)
        rows.append(
            [
                str(name),
                f"{float(table.to_dict('index')[name][score]):.3f}",
                f"{row['mean']:+.3f}",
                f"{row.low:+.3f} to {row.high:+.3f}",
                f"{row.low_queries:+.3f} to {row.high_queries:+.3f}",
                *([f"{row.p:.2g}", f"{row.p_holm:.2g}", f"{row.effect:+.2f}"] if tested else ["", "", ""]),
                str(row.verdict) if tested else f"same as {row.ranks_as}",
            ]
        )
    return _table(heads, rows)


def _scores(table: Comparison) -> str:
    rows = [
        [str(name), *(f"{value:.3f}" for value in scores.values())] for name, scores in table.to_dict("index").items()
    ]
    return _table(["", *(score_name(str(column)) for column in table.columns)], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first cell of each row is its heading; it scrolls in its box where it is wider than the page."""
    head = "".join(f'<th scope="col">{escape(word)}</th>' if word else "<td></td>" for word in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="table">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
