"""The report takes its place whole or not at all, and says in words what is wrong."""

import os
import re
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from report_cases import add_notebook, pages, small_study, words
from study_cases import forked

from snrlib.cli.main import main
from snrlib.report import index as report


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a report that is there already."""
    small_study(tmp_path, monkeypatch)
    return report.build().parent


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _stop_while(step: str, reached: Any) -> int:
    """A build that goes no further than this: for a process that is killed then."""

    def wait() -> Any:
        reached.set()
        time.sleep(60)

    def page(chapters: Any, here: int | None = None, **_: str) -> Any:
        return wait() if here == 1 else "a page"

    def rename(path: Path, target: Path, rename: Any = Path.rename) -> Any:
        return wait() if path.name.startswith(".report.partial") else rename(path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*((report, "page", page) if step == "writing" else (Path, "rename", rename)))
        return main(["report"])


@pytest.mark.parametrize("step", ["writing", "renaming"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_build_leaves_the_old_page(
    old: Path, step: str, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, reached = _files(old), get_context("fork").Event()
    process = forked(lambda: _stop_while(step, reached), old.parents[2] / "said")
    assert reached.wait(60)
    os.kill(process.pid, how)
    process.join(60)
    between = step == "renaming" and how == signal.SIGKILL  # the two renames
    assert _files(old.with_name(".report.before") if between else old) == before
    with monkeypatch.context() as patch:
        patch.setattr(report, "page", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            report.build()
    assert _files(old) == before, "the next build has put it back first"
    add_notebook(old.parents[2], "03_new")
    report.build()
    assert _files(old).keys() == {*before, "03_new.html"}
    assert [path.name for path in old.parent.iterdir()] == ["report"], "nothing is left behind"


def test_an_error_while_building_leaves_the_old_page(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _files(old)
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name.startswith(".report.partial"):
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match=r"cannot write .*report: No space left on device\. SNR_RUNS=FOLDER"):
        report.build()
    assert _files(old) == before
    assert [path.name for path in old.parent.iterdir()] == ["report"]


def test_two_builds_at_once_both_succeed(old: Path) -> None:
    said = [old.parents[2] / name for name in "ab"]
    both = [forked(lambda: main(["report"]), path) for path in said]
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert [path.read_text() for path in said] == [f"{old}/index.html\n"] * 2
    assert [path.name for path in old.parent.iterdir()] == ["report"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notebooks/01_small.ipynb", "{", "01_small.ipynb is damaged"),
        ("data/runs/report/thesis.tex", "a year of work", "holds something that is not a report; move it away"),
    ],
)
def test_what_cannot_be_read_or_replaced_stays(
    old: Path, name: str, content: str, said: str, capsys: pytest.CaptureFixture
) -> None:
    (old.parents[2] / name).write_text(content)
    before = _files(old)
    assert main(["report"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert _files(old) == before


def test_no_notebooks_and_no_place_are_said(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("SNR_RUNS", str(old / "index.html" / "runs"))
    assert main(["report"]) == 2
    assert re.search("cannot write .*SNR_RUNS=FOLDER chooses another place", capsys.readouterr().err)
    monkeypatch.setenv("SNR_ROOT", str(old))
    assert main(["report"]) == 2
    assert "no notebooks in" in capsys.readouterr().err


def test_missing_and_damaged_studies_are_said(old: Path, repository: Path) -> None:
    source, reference = repository / "data" / "reference", old.parents[1] / "reference"
    reference.mkdir()
    lines = (source / "boards_glyphs.csv").read_text().splitlines(keepends=True)
    (reference / "boards_glyphs.csv").write_text("".join(lines[:-1]))
    (reference / "boards_glyphs.json").write_bytes((source / "boards_glyphs.json").read_bytes())
    (reference / "omniglot.csv").write_text(lines[0])
    (reference / "omniglot.json").write_text("{")
    text = words(pages(report.build().parent)["index"])
    assert f"has {len(lines) - 2} rows, boards_glyphs.json speaks of {len(lines) - 1}" in text
    assert "omniglot.json is damaged: " in text
    assert "omniglot: omniglot.json is damaged." in text
