"""The page to read and share: the last run of every notebook, the reference tables, where each number is from."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path

from snrlib.notebooks.find import notebooks
from snrlib.report.article import article, article_page
from snrlib.report.chapters import Chapter, chapter
from snrlib.report.explore import explore_section
from snrlib.report.grid import grid_section
from snrlib.report.html import code, details, figure, provenance_tables, table
from snrlib.report.notebook import page
from snrlib.study import stored
from snrlib.study.contents import tables
from snrlib.study.discussion import discussion
from snrlib.study.words import answers
from snrlib.utils.crate import CRATE, write_crate
from snrlib.utils.files import data_folder, make_readable, partial_prefix
from snrlib.utils.locks import one_at_a_time
from snrlib.utils.markup import Markup
from snrlib.utils.provenance import provenance
from snrlib.utils.reading import read_json

__all__ = ["build"]

_QUESTION = "Does the SNR distance help, when, and why?"
_ARTICLE = "article.html"


def build() -> Path:
    """Write ``data/runs/report``, whole or not at all: notebooks, pages to explore, the article, and ``index.html``.

    Beside them ``ro-crate-metadata.json`` says what each file is, its size and its SHA-256 (`snrlib.utils.crate`).

    Returns:
        The path of ``index.html``.

    Raises:
        FileNotFoundError: there are no notebooks.
        FileExistsError: the folder holds something else.
        ValueError: a notebook of the study is damaged.
        OSError: the folder cannot be written.
    """
    chapters = [chapter(source) for source in notebooks()]
    target = data_folder("runs") / "report"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _replaced(target) as folder:
            explored, section = explore_section()
            for name, one in explored.items():
                (folder / f"{name}.html").write_text(one.html, encoding="utf-8")
            answered = _answers(folder, {each.source.stem for each in chapters})
            (folder / "index.html").write_text(_index(chapters, answered, section), encoding="utf-8")
            for number, each in enumerate(chapters):
                (folder / f"{each.source.stem}.html").write_text(page(chapters, number), encoding="utf-8")
            kinds = {
                True: "as it was run",
                False: "as it is stored with the study",
            }  # no times, which no two runs share
            about = {f"{each.source.stem}.html": f"notebook {each.label}, {kinds[bool(each.row)]}" for each in chapters}
            about |= dict.fromkeys([f"{name}.html" for name in explored], "a page to explore embeddings")
            about |= {_ARTICLE: "the replication article"} if (folder / _ARTICLE).exists() else {}
            about = {"index.html": "the page to read and share", **about}
            write_crate(folder, _QUESTION, about, provenance(), command="snr report")
    except OSError as error:
        if error.errno is None:  # said in words already
            raise
        raise OSError(
            f"cannot write {target}: {error.strerror}. SNR_RUNS=FOLDER chooses another place for all runs"
        ) from error
    return target / "index.html"


@contextmanager
def _replaced(target: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``target`` when it is filled; one process at a time."""
    before = target.with_name(f".{target.name}.before")
    with one_at_a_time(target, wait=True, beside=True):
        if before.exists() and not target.exists():  # killed between the two renames below
            before.rename(target)
        for left_behind in [before, *target.parent.glob(f"{partial_prefix(target)}*")]:
            shutil.rmtree(left_behind, ignore_errors=True)
        if target.exists() and not (target.is_dir() and all(_is_ours(path) for path in target.iterdir())):
            raise FileExistsError(f"{target} holds something that is not a report; move it away")
        temporary = Path(tempfile.mkdtemp(prefix=partial_prefix(target), dir=target.parent))
        try:
            make_readable(temporary, 0o777)
            yield temporary
            if target.exists():
                target.rename(before)
            temporary.rename(target)
        finally:
            if before.exists() and not target.exists():
                before.rename(target)
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(before, ignore_errors=True)


def _is_ours(path: Path) -> bool:
    return path.suffix == ".html" or path.name == CRATE


def _index(chapters: list[Chapter], answered: str, explore: str) -> str:
    grid, gaps = grid_section()
    body = f"<h1>{_QUESTION}</h1>\n" + answered + _picture(chapters[0]) + _notebooks(chapters) + explore
    body += _wanting(chapters, gaps) + _reference_tables() + grid + _provenance(chapters)
    return page(chapters, title=_QUESTION, body=body)


def _answers(folder: Path, stems: Collection[str]) -> str:
    """The answer in plain sentences, the counts behind it, and the article that is made of them; or why none is."""
    try:
        found, plain = answers(), discussion()
    except (OSError, ValueError, KeyError) as error:
        return f"<p>The scoreboard cannot be read: {escape(str(error))}</p>\n"
    items = "".join(f"<dt>{escape(question)}</dt><dd>{escape(text)}</dd>\n" for question, text in found.items())
    shown = "From the stored studies on the scoreboard, compared with Euclid in pairs of one seed."
    counts = details("The counts and means behind it", f"<p>{shown}</p>\n<dl>{items}</dl>\n")
    return f"{Markup(stems).html(plain)}\n{counts}\n{_article(folder, found)}"


def _article(folder: Path, found: Mapping[str, str]) -> str:
    """Write the article into the folder and give the link to it, or why there is none."""
    try:
        text = article(found)
    except (OSError, ValueError, KeyError) as error:
        return f"<p>The replication article cannot be written: {escape(str(error))}</p>\n"
    (folder / _ARTICLE).write_text(article_page(text, home="index.html"), encoding="utf-8")
    told = "each claim of the paper and of the report, what came out, why it differs, and how to repeat it."
    return f'<p><a href="{_ARTICLE}">The replication article</a>: {told}</p>\n'


def _picture(first: Chapter) -> str:
    """The last figure of the first notebook: what all of it is about."""
    shown = [output for cell in first.notebook.cells for output in cell.get("outputs", []) if "data" in output]
    pictures = [output for output in shown if "image/png" in output.data]
    alt = pictures[-1].metadata.get("image/png", {}).get("alt", "") if pictures else ""
    return figure(pictures[-1].data["image/png"], alt, alt) if alt else ""


def _notebooks(chapters: list[Chapter]) -> str:
    rows = [
        [f'<a href="{one.source.stem}.html">{escape(one.label)}</a>', escape(one.question), escape(one.origin)]
        for one in chapters
    ]
    return "<h2>Notebooks</h2>\n" + table(["notebook", "question", "what is shown"], rows, "notebooks")


def _wanting(chapters: list[Chapter], gaps: list[str]) -> str:
    """What is missing, failed or out of date; of the notebooks each reason once."""
    same: dict[str, list[str]] = defaultdict(list)
    for one in chapters:
        for note in one.notes:
            same[note].append(one.label)
    html = "<h2>Missing, failed or out of date</h2>\n"
    if not same:
        html += f"<p>All {len(chapters)} notebooks were run here, by this version of notebooks and library.</p>\n"
    items = [f"{escape(', '.join(labels))}: {code(note)}" for note, labels in same.items()]
    return html + _list([*items, *(f'<a href="#grid">The grid</a>: {escape(gap)}.' for gap in gaps)])


def _provenance(chapters: list[Chapter]) -> str:
    html = "<h2>Where the numbers are from</h2>\n<h3>Runs of the notebooks</h3>\n"
    for one in chapters:
        title = f"{one.label}: {one.origin}"
        html += details(title, provenance_tables(one.row)) if one.row else f"<p>{escape(title)}.</p>\n"
    html += "<h3>Stored studies</h3>\n"
    for path in sorted(data_folder("reference").glob("*.json")):
        try:
            html += details(path.stem, provenance_tables(read_json(path, "measure it anew"), ["most_confused"]))
        except (OSError, ValueError, AttributeError, TypeError):
            html += f"<p>{escape(path.stem)}: {escape(path.name)} is damaged.</p>\n"
    return html


def _list(items: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>\n" if items else ""


def _reference_tables() -> str:
    """The stored studies, as far as they can be read; of the others why not."""
    there, wanting = [], []
    for name in stored.studies():
        try:
            stored.read(name)
            there.append(name)
        except (OSError, ValueError, KeyError) as error:
            wanting.append(escape(str(error)))
    html = "<h2>Reference numbers</h2>\n"
    if there:
        html += Markup().html(_together(tables(there)))
    return html + _list(wanting)


def _together(text: str) -> str:
    """A number stays in one line with its interval and its arrow."""
    return re.sub(r" (?=[±▲▼△▽])|(?<=±) ", "\N{NO-BREAK SPACE}", text)
