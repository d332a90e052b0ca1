"""What stands in the copies of notebooks, and in the slides; and that each runs without anything from elsewhere."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser_cases import Visit, wait_until
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from snrlib.notebooks import exercises as checks
from snrlib.notebooks.find import notebooks
from snrlib.notebooks.regions import without_hidden, without_solution
from snrlib.teach.build import build, sessions
from snrlib.teach.copies import exercises, student_copy


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teach")
    assert len(list(build(folder))) == 2 * len(notebooks()) + 5
    return folder


def _notebook(path: Path) -> NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_student_copies_hold_no_answer(built: Path) -> None:
    for source in notebooks():
        stored, text = _notebook(source), (built / "student" / source.name).read_text()
        made = _notebook(built / "student" / source.name)
        for taken in ("### BEGIN", "### END", "HIDDEN", "<summary>Solution", "<summary>Rubric", "<summary>Answer"):
            assert taken not in text, taken
        assert "For teachers" not in text
        code = [cell for cell in made.cells if cell.cell_type == "code"]
        assert not any(cell.outputs or cell.execution_count for cell in code)
        asked = [cell for cell in code if "prediction" in cell.metadata.get("tags", [])]
        assert all("None" in cell.source for cell in asked)
        assert len(exercises(made)) == len(exercises(stored))
        for one in exercises(stored):
            if f"{one.name} = None" in one.task and one.check:
                assert one.check not in [cell.source for cell in code], "what computes the answer is packed"


def test_checks_of_student_copies_judge_stubs_and_answers(built: Path) -> None:
    space: dict[str, Any] = {}
    path = built / "student" / "01_signal_and_noise.ipynb"
    for cell in _notebook(path).cells:
        if {"setup", "parameters"} & set(cell.metadata.get("tags", [])):
            exec(cell.source, space)
    solved = {one.name: one.task for one in exercises(_notebook(built / "instructor" / path.name))}
    for one in exercises(_notebook(path)):
        if one.check:
            for task, outcome in ((one.task, "not attempted"), (solved[one.name], "right")):
                exec(task, space)
                assert checks.run_packed(checks.packed(one.check), space).outcome == outcome, one.name


def test_instructor_copies_hold_everything_and_nbgraders_marks(built: Path) -> None:
    for source in notebooks():
        made = _notebook(built / "instructor" / source.name)
        assert [cell.source for cell in made.cells[1:]] == [cell.source for cell in _notebook(source).cells]
        marks = [cell.metadata.nbgrader for cell in made.cells if "nbgrader" in cell.metadata]
        assert sum(mark.get("points", 0) for mark in marks) == sum(one.points for one in exercises(made))
        assert len({mark.grade_id for mark in marks}) == len(marks)


@pytest.mark.parametrize(
    "code", ["### BEGIN SOLUTION\nx = 1", "### BEGIN HIDDEN TESTS\nx\n### END SOLUTION", "### BEGIN SOLUTIONS\n### END"]
)
def test_a_region_without_its_end_is_refused(code: str) -> None:
    for strip in (without_solution, without_hidden):
        with pytest.raises(ValueError, match="no region"):
            strip(code)


def test_an_exercise_without_its_check_is_refused() -> None:
    task = new_code_cell("answer_1 = None", metadata={"tags": ["exercise"]})
    with pytest.raises(ValueError, match="no check"):
        exercises(new_notebook(cells=[task]))
    check = new_code_cell("check(answer_1, 1)", metadata={"tags": ["check"]})
    with pytest.raises(ValueError, match="no exercise comes before"):
        exercises(new_notebook(cells=[check]))


def test_local_links_of_a_student_copy_are_text() -> None:
    cell = new_markdown_cell("[a](../data/README.md) [b](02_x.ipynb) [c](https://d.example) [e](#f)")
    assert student_copy(new_notebook(cells=[cell]), "x").cells[1].source == (
        "a [b](02_x.ipynb) [c](https://d.example) [e](#f)"
    )


def test_slides_load_nothing_and_show_all_figures(built: Path) -> None:
    assert len(sessions()) == 5
    for number, session in enumerate(sessions(), 1):
        page = (built / "slides" / f"session_{number}.html").read_text()
        body = page[page.index("<body>") :]
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", body.replace('<a href="https://', ""))
        figures = [
            output
            for path in session.notebooks
            for cell in _notebook(path).cells
            for output in cell.get("outputs", [])
            if "image/png" in output.get("data", {})
        ]
        assert page.count('<img src="data:image/png') == len(figures)


def test_the_syllabus_is_that_of_the_sessions(repository: Path) -> None:
    text = (repository / "notebooks" / "teach" / "README.md").read_text()
    for session in sessions():
        assert session.title in text
        for minutes, what in session.parts:
            assert f"| {minutes} | {what} |" in text
        assert all(f"../{path.name}" in text for path in session.notebooks)


@pytest.mark.browser
@pytest.mark.slow
def test_slides_fit_and_turn_by_key(built: Path, visit: Visit) -> None:
    for number in range(1, 6):
        page = visit(built / "slides" / f"session_{number}.html", 1280, 720)
        wait_until(page, "Reveal.isReady()")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("Reveal.getIndices().h") == 1
        wide = """() => [...document.querySelectorAll('.slides > section')].filter((slide, number) => {
          Reveal.slide(number); return slide.scrollHeight > slide.clientHeight + 2; }).length"""
        assert page.evaluate(wide) <= 2, "few need scrolling"
