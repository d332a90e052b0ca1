"""The static rules of the notebooks, and their exercises; nbval runs them."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from snrlib.notebooks import exercises
from snrlib.notebooks.find import navigation, title
from snrlib.notebooks.parameters import parameters
from snrlib.notebooks.refresh import refresh
from snrlib.notebooks.regions import without_hidden, without_solution
from snrlib.teach.copies import exercises as marked

PATHS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def _cells(path: Path, kind: str | None = None, tag: str | None = None) -> list[NotebookNode]:
    return [
        cell
        for cell in nbformat.read(path, as_version=4).cells
        if kind in (None, cell.cell_type) and (tag is None or tag in cell.metadata.get("tags", []))
    ]


def _outputs(path: Path) -> list[NotebookNode]:
    return [shown for cell in _cells(path, "code") for shown in cell.outputs]


def test_the_notebooks_are_there() -> None:
    assert [path.stem[:2] for path in PATHS] == [f"{number:02}" for number in range(15)]


@each_notebook
def test_one_question_is_asked_between_current_navigation(path: Path) -> None:
    headings = [line for cell in _cells(path, "markdown") for line in re.findall(r"^# .+$", cell.source, re.MULTILINE)]
    assert len(headings) == 1
    assert headings[0].endswith("?")
    assert title(path) == headings[0][2:]
    cells = _cells(path)
    assert cells[0].source == cells[-1].source == navigation(path)
    assert len(_cells(path, tag="navigation")) == 2


@each_notebook
def test_outputs_are_of_one_run_without_warnings(path: Path) -> None:
    code = _cells(path, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = _outputs(path)
    for shown in outputs:
        assert shown.output_type != "error"
        assert shown.get("name") != "stderr", shown.text
    kinds = [shown.get("data", {}).keys() for shown in outputs]
    assert not [kind for kind in kinds if "widget" in " ".join(kind)]
    assert [kind for kind in kinds if "application/vnd.snrlib.record+json" in kind], "a metric is recorded"
    figures = [shown for shown in outputs if "image/png" in shown.get("data", {})]
    assert figures or path.stem.startswith("13")
    for shown in figures:
        assert len(shown.metadata["image/png"]["alt"].split()) >= 5, "a figure states its finding in words"


@each_notebook
def test_files_are_small_and_hold_nothing_foreign(path: Path) -> None:
    assert path.stat().st_size <= 1_000_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert all(cell.metadata.keys() <= {"tags"} for cell in notebook.cells)
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|usr)/", path.read_text())


@each_notebook
def test_parameters_have_a_seed_help_and_range(path: Path) -> None:
    known = parameters(path.stem)
    assert known["seed"].type == "int"
    for parameter in known.values():
        assert parameter.help
        assert parameter.check(parameter.default) == parameter.default
        assert parameter.type in ("bool", "str", "list[str]") or parameter.high < float("inf"), "a number has a range"
    assert "interactive" not in known or known["interactive"].default is False


@each_notebook
def test_sliders_follow_a_question_and_a_figure(path: Path) -> None:
    cells = _cells(path)
    numbers = []
    for n, cell in enumerate(cells):
        if cell.cell_type == "code":
            before = re.split(r"^if interactive:", cell.source, flags=re.MULTILINE)[0]
            assert not re.search(r"ipywidgets|interact\(", before), "widgets are drawn only where interactive is true"
        if cell.cell_type != "code" or not re.search(r"^if interactive:", cell.source, re.MULTILINE):
            continue
        question = cells[n - 1]
        assert question.cell_type == "markdown", cell.source
        asked = re.findall(
            r"^\*\*Q(\d+)\.\*\* \([^)]+: set `interactive` to True\.\) .*\?", question.source, re.MULTILINE
        )
        assert len(asked) == 1, question.source
        numbers.append(int(asked[0]))
        start = max(k for k in range(n) if re.search(r"^##? ", cells[k].source, re.MULTILINE))
        drawn = [shown for other in cells[start:n] for shown in other.get("outputs", [])]
        assert any("image/png" in shown.get("data", {}) for shown in drawn), "nothing to see without the slider"
    assert numbers == list(range(1, len(numbers) + 1))


@each_notebook
def test_a_prediction_is_asked_before_and_checked_after(path: Path) -> None:
    code = _cells(path, "code")
    asked = [n for n, cell in enumerate(code) if "prediction" in cell.metadata.get("tags", [])]
    assert asked or path.stem.startswith("13")
    for n, stop in zip(asked, [*asked[1:], len(code)], strict=True):
        name = re.match(r"(\w+) = (?:\(\s*)?None  # .+", code[n].source)
        assert name, code[n].source
        assert any(f"check({name[1]}," in cell.source.replace("\n    ", "") for cell in code[n + 1 : stop])


@each_notebook
def test_claims_are_in_cells_that_nbval_compares(path: Path) -> None:
    claims = _cells(path, "code", "nbval-check-output")
    assert claims
    for cell in claims:
        assert cell.outputs, f"nothing printed: {cell.source}"
        assert "assert" in cell.source or re.search(r"[<>=]=?", cell.source), cell.source


@each_notebook
def test_local_links_lead_to_what_exists(path: Path) -> None:
    for cell in _cells(path, "markdown"):
        for target, anchor in re.findall(r"\]\(([\w./]*)(?:#([^)\s]+))?\)", cell.source):
            file = path.parent / target if target else path
            assert file.exists(), target
            if anchor and file.suffix == ".ipynb":
                text = "\n".join(other.source for other in _cells(file, "markdown"))
                headings = {line.strip().replace(" ", "-") for line in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
                anchors = headings | set(re.findall(r'<a id="([^"]+)"', text))
                assert unquote(anchor) in anchors, f"{target}#{anchor}"


def test_refreshing_stores_outputs_or_keeps_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(code: str) -> None:
        old = new_markdown_cell("of old", metadata={"tags": ["navigation"]})
        cells = [old, new_markdown_cell("# What?"), new_code_cell(code)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)

    path = tmp_path / "notebooks" / "01_small.ipynb"
    path.parent.mkdir()
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    write("print(6 * 7)")
    refresh(path)
    assert [cell.source for cell in _cells(path)] == ["**01 small**", "# What?", "print(6 * 7)", "**01 small**"]
    assert _outputs(path)[0].text == "42\n"
    write("raise ValueError")
    before = path.read_bytes()
    with pytest.raises(CellExecutionError):
        refresh(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@each_notebook
def test_solutions_are_right_and_mistakes_get_hints(path: Path) -> None:
    space: dict[str, Any] = {}
    for tag in ("setup", "parameters"):
        (cell,) = _cells(path, "code", tag)
        exec(cell.source, space)
    calls: list[tuple[Any, Any, Any, dict[str, Any]]] = []

    def listening(answer: Any, expected: Any, mistakes: Any = None, **options: Any) -> exercises.Verdict:
        calls.append((answer, expected, mistakes, options))
        return exercises.check(answer, expected, mistakes, **options)

    space["check"] = listening
    text = "\n".join(cell.source for cell in _cells(path, "markdown"))
    folded = re.findall(r"<details><summary>Solution \d+</summary>.*?```python\n(.*?)```\s*</details>", text, re.DOTALL)
    judged = [one for one in marked(nbformat.read(path, as_version=4)) if one.check]
    assert len(judged) >= 2
    for number, one in enumerate(judged, 1):
        stub = without_solution(one.task)  # the answer stands in the cell itself, or below it to be opened
        solution = one.task if stub != one.task else folded.pop(0)
        for code, outcome in ((stub, "not attempted"), (solution, "right")):
            exec(code, space)
            exec(without_hidden(one.check), space)
            answer, expected, mistakes, options = calls[-1]
            assert exercises.check(answer, expected, mistakes, **options).outcome == outcome, f"exercise {number}"
        exec(one.check, space)  # the hidden tests, too
        assert mistakes, f"exercise {number} explains no mistake"
        for hint, wrong in mistakes.items():
            verdict = exercises.check(wrong, expected, mistakes, **options)
            assert verdict == exercises.Verdict("wrong", f"Not yet: {hint}"), f"exercise {number}"
    assert not folded, "a solution without its exercise"
