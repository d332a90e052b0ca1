"""What there is of each notebook to show: its run if that is whole, else the stored outputs and the reason."""

import json
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from report_cases import add_notebook, finish, pages, rows, small_study, words

from snrlib.cli.main import main
from snrlib.notebooks import run as runs
from snrlib.notebooks.find import find_notebook
from snrlib.report import index as report
from snrlib.report.chapters import chapter
from snrlib.study import workflow
from snrlib.utils.processes import Job


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return small_study(tmp_path, monkeypatch)


def _told(name: str) -> tuple[BeautifulSoup, str, str]:
    """The page of a notebook, the words of its notes, and those of the index."""
    built = pages(report.build().parent)
    return built[name], " ".join(words(note) for note in built[name].select(".note")), words(built["index"])


def _flat(row: dict[str, Any]) -> list[list[str]]:
    inner = [line for value in row.values() if isinstance(value, dict) for line in _flat(value)]
    return inner + [[k, v if type(v) is str else json.dumps(v)] for k, v in row.items() if not isinstance(v, dict)]


def test_a_run_is_shown_with_its_result_row(study: Path) -> None:
    scores = [{"judge": "<training>", "R@1": 0.5}]
    row = finish("01", runs.default_output("01"), experiment={"settings": {"loss": "triplet"}, "scores": scores})
    page, notes, index = _told("01_small")
    assert not notes
    assert "01 small: run of 2026-11-25, 30 s" in index
    assert "All 2 notebooks were run here" not in index
    del row["experiment"]["scores"]
    assert sorted(rows(page, "facts")) == sorted(_flat(row))
    shown = [words(cell) for cell in page.select("table:not(.facts) :is(th, td)")]
    assert shown == ["judge", "R@1", "<training>", "0.5"]


def test_a_notebook_without_run_shows_stored_outputs(study: Path) -> None:
    page, notes, index = _told("02_other")
    assert "not run here; snr study runs it. What you see are the outputs that are stored with the study." in notes
    assert "01 small, 02 other: not run here" in index
    assert not rows(page, "facts")


def test_a_study_ends_with_what_ran_and_failed(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def run_here(jobs: list[Job], *_: Any) -> None:
        for job in jobs:
            main(list(job.command[3:]))

    monkeypatch.setattr(workflow, "run_jobs", run_here)
    for name in ("01", "02"):
        finish(name, runs.default_output(name))
    assert main(["study"]) == 0
    assert f"The page to read and share: {study}/data/runs/report/index.html\n" in capsys.readouterr().out
    assert "All 2 notebooks were run here" in _told("01_small")[2]
    add_notebook(study, "01_small", "raise RuntimeError('broken <on purpose>')")
    assert main(["study"]) == 1
    assert "The page to read and share" in capsys.readouterr().out
    page, *told = _told("01_small")
    for said in told:
        assert "the last run failed, cell 2, RuntimeError: broken <on purpose>" in said
        assert "(partial copy: 01_small/default/01_small.failed.ipynb)" in said
        assert "run by an earlier version of the notebook or the library" in said
    assert ["git_commit", "c0ffee"] in rows(page, "facts"), "of the run before"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("result.json", None, "result.json is missing"),
        ("result.json", "{", "result.json is not JSON"),
        ("result.json", '{"notebook": "02_other"}', "result.json is not the row of a run"),
        ("02_other.ipynb", None, "02_other.ipynb is missing"),
        ("02_other.ipynb", '{"cells": [{"cell_type": "code"}], "nbformat": 4}', "02_other.ipynb is damaged"),
        ("02_other.ipynb", "\0\1", "02_other.ipynb is damaged"),
    ],
)
def test_a_damaged_run_gives_way_to_stored_outputs(study: Path, name: str, content: str | None, reason: str) -> None:
    output = runs.default_output("02")
    finish("02", output)
    assert chapter(find_notebook("02")).row
    (output.parent / name).unlink()
    if content is not None:
        (output.parent / name).write_text(content)
    one = chapter(find_notebook("02"))
    assert one.row is None
    assert one.notebook.cells[2].source == "print(seed)"
    assert one.notes[0].startswith(f"the run in 02_other/default cannot be used, {reason}")
    finish("02", output, notebook="01_small")


def test_runs_that_did_not_end_are_said(study: Path) -> None:
    folder = runs.default_output("01").parent
    folder.mkdir(parents=True)
    (folder / ".01_small.partial-abc.ipynb").touch()
    assert "a run was cut off, or is still going on." in chapter(find_notebook("01")).notes
    (folder / "01_small.failed.ipynb").touch()
    assert "and the copy that it left is damaged" in chapter(find_notebook("01")).notes[0]
