"""The replication article: claims, methods, results, deviations and a checklist, as Markdown and as one page.

The prose stands in ``article.md.j2`` and ``claims.yaml``; every number in it is computed from ``data/reference``. Its
shape is that of ReScience C, with the machine learning reproducibility checklist at its end.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from snrlib import __version__
from snrlib.notebooks.find import notebooks
from snrlib.report.claims import NOT_REPRODUCED, NOT_TESTABLE, REPRODUCED, Claim, Evidence, claims
from snrlib.report.html import figure
from snrlib.report.methods import at_bound, commands_table, cost, errata, span, studies_table, trainings, versions
from snrlib.study import stored
from snrlib.study.contents import markdown_table
from snrlib.study.scoreboard import BOARD, SHOWN, mean_differences, scoreboard, tally
from snrlib.study.words import answers, figure_alt, p_value
from snrlib.utils.files import GENERATOR, check_page, data_folder, without_private, write_text
from snrlib.utils.markup import Markup

__all__ = ["article", "article_page", "write_article"]

_HERE = Path(__file__).parent
_FIGURE = "<!-- figure -->\n"
_LOCAL = re.compile(r"\[([^\]]+)\]\([0-9][0-9]_\w+\.ipynb[^)]*\)")
_FIRST = "# [Re] "


def article(said: Mapping[str, str] | None = None, level: float = 0.95) -> str:
    """The article in Markdown, with links to notebooks and a place for the figure.

    Args:
        said: of `snrlib.study.words.answers`; None computes them.
        level: of confidence.

    Raises:
        FileNotFoundError: a study that is not stored.
        ValueError: a sentence of it that the tables no longer bear out.
    """
    said = answers(level=level) if said is None else said
    board = scoreboard(BOARD, level=level)
    judged = claims(Evidence(said, board, level))
    runs = pd.concat([stored.read(study).runs for study in BOARD])
    runs = runs[runs.loss != "untrained"]
    abouts = [stored.read_about(study) for study in BOARD]
    means = mean_differences(BOARD, by=("distance", "loss"), level=level)
    environment = Environment(
        loader=FileSystemLoader(_HERE), undefined=StrictUndefined, trim_blocks=False, keep_trailing_newline=True
    )
    environment.filters["thousands"] = "{:,}".format
    return environment.get_template("article.md.j2").render(
        version=__version__,
        measured=span(sorted(str(about["finished"])[:10] for about in abouts)),
        said=said,
        claims=judged,
        paper=sum(claim.number.startswith("P") for claim in judged),
        counts=_counts(judged),
        overview=_overview(judged),
        level=level,
        studies=studies_table(board),
        trainings=trainings(),
        losses=runs.loss.nunique(),
        data=runs.data.nunique(),
        seeds=span(sorted(board[board.verdict != ""].seeds.unique())),
        steps=span(sorted(about["settings"]["steps"] for about in abouts)),
        classes=span([f"{board.classes.min():.0f}", f"{board.classes.max():.0f}"]),
        data_sets=means.data_sets.max(),
        cost=cost(),
        at_bound=at_bound(),
        versions=versions(),
        tally=_tally(board, level),
        commands=commands_table(),
        errata=errata(),
    )


def article_page(text: str, home: str = "") -> str:
    """The article as one page that asks for nothing; formulas are MathML.

    Args:
        text: of `article`.
        home: address of the page that it belongs to; with it, links to notebooks lead to their pages.
    """
    markup = Markup({path.stem for path in notebooks()} if home else ())
    before, _, after = text.partition(_FIGURE)
    body = _whole(markup.html(before) + _figure() + markup.html(after))
    environment = Environment(loader=FileSystemLoader(_HERE), undefined=StrictUndefined)
    page = environment.get_template("article.html.j2").render(
        title=text.partition("\n")[0].removeprefix("# "),
        generator=GENERATOR,
        headings=markup.headings,
        home=home,
        body=body,
    )
    return without_private(page)


def write_article(html: str | Path | None = None, markdown: str | Path | None = None) -> list[Path]:
    """Write the article.

    Args:
        html: path of the page; None writes none.
        markdown: path of the Markdown text, without links to other files and without the figure; None writes none.

    Returns:
        The paths.

    Raises:
        FileExistsError: something that is no article stands there.
        ValueError: a path of another ending; or as `article`.
        OSError: it cannot be written.
    """
    if html is not None:
        check_page(html)
    if markdown is not None:
        _check_markdown(Path(markdown))
    text = article()
    texts = {} if html is None else {Path(html): article_page(text)}
    if markdown is not None:
        texts[Path(markdown)] = without_private(_LOCAL.sub(r"\1", text.replace(_FIGURE, "")))
    for path, content in texts.items():
        write_text(path, content)
    return list(texts)


def _check_markdown(path: Path) -> None:
    if path.suffix != ".md":
        raise ValueError(f"the Markdown of the article is saved as .md, got {str(path)!r}")
    if path.is_dir() or (path.exists() and not path.read_bytes().startswith(_FIRST.encode())):
        raise FileExistsError(f"{path} exists and is no article of this study; move it away, or name another file")


def _counts(judged: list[Claim]) -> str:
    n = {
        verdict: sum(claim.verdict == verdict for claim in judged)
        for verdict in (REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE)
    }
    return f"{n[REPRODUCED]} are reproduced, {n[NOT_REPRODUCED]} are not, {n[NOT_TESTABLE]} cannot be tested here."


def _overview(judged: list[Claim]) -> str:
    rows = [[claim.number, claim.title, f"**{claim.verdict}**", claim.source] for claim in judged]
    return markdown_table(["", "claim, in short", "verdict", "where it stands"], rows)


def _tally(board: pd.DataFrame, level: float) -> str:
    """How often each distance is higher or lower than Euclid, and by how much."""
    counts, means = tally(board, level=level), mean_differences(BOARD, by=("distance",), level=level)
    rows = []
    for distance in SHOWN:
        count: Any = counts.loc[distance]
        mean: Any = means.loc[distance]
        compared = count[["higher", "lower", "no difference shown"]].sum()
        numbers = [f"{number:.0f}" for number in (compared, count.higher, count.lower)]
        over_data = f"± {mean.half_width:.3f}" if pd.notna(mean.half_width) else ""
        told = [p_value(count["p"]), f"{mean['mean']:+.3f}", over_data, f"± {mean.half_width_seeds:.3f}"]
        rows.append([distance, *numbers, *told])
    titles = ["distance", "comparisons", "R@1 higher", "lower", "p of the sign test", "mean difference"]
    return markdown_table([*titles, "over data sets", "over seeds"], rows)


def _figure() -> str:
    """The scoreboard, as notebook 12 drew it; nothing where it is not stored."""
    path = data_folder("reference") / "scoreboard.png"
    if not path.exists():
        return ""
    caption = "The scoreboard, as notebook 12 draws it: differences of R@1 to Euclid with intervals over seeds."
    return figure(base64.b64encode(path.read_bytes()).decode(), figure_alt(scoreboard(BOARD), SHOWN), caption)


def _whole(html: str) -> str:
    """A number stays in one line with its interval."""
    return re.sub(r" (?=±)|(?<=±) ", "\N{NO-BREAK SPACE}", html)
