"""Pages through nbconvert: `page.html.j2` holds the frame and the cells, `style.css` becomes part of every page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbconvert.exporters import TemplateExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, TagRemovePreprocessor
from nbconvert.preprocessors.sanitize import SanitizeHTML
from nbformat import NotebookNode
from nbformat.v4 import new_notebook

from snrlib.notebooks.regions import solution, without_hidden, without_solution
from snrlib.report.chapters import Chapter
from snrlib.report.html import code, details, figure, provenance_tables
from snrlib.utils.files import without_private
from snrlib.utils.markup import Markup

__all__ = ["page"]

_KINDS = {
    "injected-parameters": "Parameters of this run",
    "shown": "Code",  # what a reader is to read, not to unfold
    **{tag: tag.capitalize() for tag in ("parameters", "setup", "prediction", "exercise", "check")},
}
_ASKS = re.compile(r"<(script|iframe|object|embed|link|base|form|meta)\b|\b(src|srcset|poster)\s*=", re.I)
_RAW = re.compile(r"<[a-z/!?]", re.I)  # HTML within Markdown: an open <textarea> or <!-- swallows all that follows
_STYLE = re.compile(r"<style\b.*?</style>", re.I | re.DOTALL)
_COLUMNS = re.compile(r"\S {2,}\S")  # in a text without them, words may go on in the next line
_TABLES = SanitizeHTML(
    tags=["table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "div", "span", "p", "br", "b", "i", "code"],
    attributes=["class", "colspan", "rowspan"],
    strip=True,
)


def page(chapters: Sequence[Chapter], here: int | None = None, title: str = "", body: str = "") -> str:
    """A whole page with the navigation of all notebooks.

    Args:
        chapters: of the navigation.
        here: the number of the chapter whose notebook it shows; None for a page of none.
        title: of a page of none, plain text.
        body: of a page of none, HTML.
    """
    markup = Markup({one.source.stem for one in chapters})
    navigation = TagRemovePreprocessor(remove_cell_tags={"navigation"})  # the page has its own
    exporter = TemplateExporter(
        template_paths=[str(Path(__file__).parent)],
        template_file="page.html.j2",
        filters={"markdown": markup.html, "code": code},
        default_preprocessors=[],
        preprocessors=[CoalesceStreamsPreprocessor(), navigation, _unspoilt, _safe_outputs],
        optimistic_validation=True,
    )
    exporter.environment.tests["in_columns"] = _COLUMNS.search
    known: dict[str, Any] = {"chapters": chapters, "here": here, "title": title, "body": body}
    known |= {"headings": markup.headings, "kinds": _KINDS}
    known |= {"details": details, "figure": figure, "provenance_tables": provenance_tables}
    exporter.environment.globals.update(known)
    html: str = exporter.from_notebook_node(new_notebook() if here is None else chapters[here].notebook)[0]
    return without_private(html)


def _unspoilt(notebook: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
    """An exercise as a student gets it, its solution to be opened; no verdict on what nobody has answered.

    A check tells the answer, too, so the page folds it, and shows of the check of a solution no verdict either.
    """
    solved = False
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        tags = cell.metadata.get("tags", [])
        if "exercise" in tags:
            cell.metadata["solution"] = solution(cell.source)
            cell.source, solved = without_solution(cell.source), bool(cell.metadata["solution"])
        elif "check" in tags:
            cell.source = without_hidden(cell.source)
        of_ours = ("Not attempted yet", "Right.") if solved and "check" in tags else ("Not attempted yet",)
        cell.outputs = [one for one in cell.get("outputs", []) if not _plain(one).startswith(of_ours)]
    return notebook, resources


def _plain(output: NotebookNode) -> str:
    return str(output.get("data", {}).get("text/plain", ""))


def _safe_outputs(notebook: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
    """Of HTML only what tables are made of; where an output needs a script or a file, its plain text remains."""
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        data = output.get("data", {})
        for kind in ("text/html", "text/markdown", "text/latex"):
            refused = _ASKS if kind == "text/html" else _RAW
            if refused.search(data.get(kind, "")):
                del data[kind]
        if "text/html" in data:
            data["text/html"] = _TABLES.sanitize_html_tags(_STYLE.sub("", data["text/html"]))
    return notebook, resources
