"""For the tests of the report: what a reader finds on a page, a study of two small notebooks, and runs of them."""

import json
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup, Tag
from filelock import FileLock
from nbformat import write
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from process_cases import shared_folder

from snrlib.explore import maps
from snrlib.notebooks import run as runs
from snrlib.notebooks.find import find_notebook
from snrlib.notebooks.parameters import parameters
from snrlib.report import index as report

fingerprint = cache(runs.source_fingerprint)


def stored_report(factory: pytest.TempPathFactory) -> Path:
    """The folder of the report of this study from its stored notebooks, without any run; built once for all workers.

    How good its t-SNE maps are is not asked here.
    """
    folder = shared_folder(factory) / "of_the_stored_notebooks"
    with FileLock(f"{folder}.lock"), pytest.MonkeyPatch.context() as patch:
        if not (folder / "report").exists():
            patch.setenv("SNR_RUNS", str(folder))
            patch.setattr(maps, "TSNE", partial(maps.TSNE, max_iter=250))
            patch.setattr(maps, "cached_array", lambda *given, **_: given[3]())  # and none is kept
            report.build()
    return folder / "report"


def pages(folder: Path) -> dict[str, BeautifulSoup]:
    found = folder.glob("*.html")
    return {path.stem: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in found}


def words(part: Tag) -> str:
    return part.get_text().replace("\N{NO-BREAK SPACE}", " ")


def rows(part: Tag, kind: str) -> list[list[str]]:
    """What stands in the lines of all tables of a kind."""
    return [[words(cell) for cell in line.find_all(["th", "td"])] for line in part.select(f"table.{kind} tr")]


def small_study(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Two notebooks in a folder of their own, which is the study now; without pages to explore, which take a while."""
    (folder / "notebooks").mkdir()
    (folder / "study.yaml").write_text("profiles: {quick: []}")
    for name in ("01_small", "02_other"):
        add_notebook(folder, name)
    patch.setenv("SNR_ROOT", str(folder))
    patch.setenv("SNR_RUNS", str(folder / "data" / "runs"))
    patch.setattr(report, "explore_section", lambda: ({}, ""))
    return folder


def add_notebook(study: Path, name: str, body: str = "print(seed)", more: str = "") -> None:
    first = new_code_cell(f"seed: int = 7  # of the draws{more}", metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[new_markdown_cell(f"# What is {name}?"), first, new_code_cell(body)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    write(notebook, study / "notebooks" / f"{name}.ipynb")


def finish(notebook: str, output: Path, values: Mapping[str, Any] | None = None, /, **changes: Any) -> dict[str, Any]:
    """Leave a finished run with these values of parameters; returns its result row, which has these changes."""
    source = find_notebook(notebook)
    chosen = {name: known.default for name, known in parameters(notebook).items()} | dict(values or {})
    row = {"notebook": source.stem, "parameters": chosen, "seed": 7, "metrics": {"share": 1 / 3, "name": "a < b"}}
    row |= {"data": {"digits, test": "0123abcd"}, "versions": {"torch": "2.13.0"}, "git_commit": "c0ffee"}
    row |= {"finished": "2026-11-25T01:00:00+00:00", "wall_time_s": 30.25, "source": fingerprint(source)} | changes
    output.parent.mkdir(parents=True, exist_ok=True)
    if not output.exists():
        output.hardlink_to(source)
    runs.result_path(output).write_text(json.dumps(row))
    return row
