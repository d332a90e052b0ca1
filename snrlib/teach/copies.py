"""Copies of a notebook for students and for instructors. A notebook is marked by tags and by nbgrader's own comments.

====================================================  =======================================  ======================
what                                                  mark                                     in a student copy
====================================================  =======================================  ======================
a cell that a student fills                           tag ``exercise``                         kept
its check; its points (1 if not said)                 tags ``check``, ``points-3``             kept
a check of a function that computes the answer        tag ``packed``                           packed
a question that a person judges                       tags ``exercise``, ``open``              kept
what a student writes                                 ``### BEGIN SOLUTION`` to ``### END``    a stub
what is tested besides                                ``### BEGIN HIDDEN TESTS`` to ``### END``  gone
a solution, an answer, a rubric, a note for teachers  ``<details>`` of that summary            gone
a prediction                                          tag ``prediction``                       open, as it is
====================================================  =======================================  ======================

The regions are those of `snrlib.notebooks.regions`. The stored notebook holds all of it and runs.
"""

from __future__ import annotations

import ast
import copy
import re
from dataclasses import dataclass

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from snrlib.notebooks.exercises import packed
from snrlib.notebooks.regions import without_hidden, without_solution

__all__ = ["Exercise", "exercises", "instructor_copy", "student_copy"]

_TEACHER = re.compile(
    r"<details><summary>(?:Solution|Answer|Rubric|For teachers)\b.*?</details>\s*", re.DOTALL | re.IGNORECASE
)
_LOCAL = re.compile(r"\[([^\]]+)\]\((?!https?:|#|[0-9][0-9]_\w+\.ipynb)[^)]+\)")
_PACKED = "from snrlib.notebooks.exercises import run_packed  # packed, so that nobody reads the answer by accident\n\n"


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook.

    Attributes:
        name: of the variable or function that the student's cell defines.
        task: code of that cell, solution included.
        check: code of the cell that checks it, hidden tests included; nothing if a person judges it.
        points: for the right answer.
    """

    name: str
    task: str
    check: str
    points: int


def exercises(notebook: NotebookNode) -> list[Exercise]:
    """The exercises of a notebook, in order.

    Raises:
        ValueError: an exercise without a check, a check without an exercise, or a cell that defines nothing.
    """
    found: list[Exercise] = []
    waiting: NotebookNode | None = None
    for cell in notebook.cells:
        tags = _tags(cell)
        if "exercise" in tags:
            if waiting is not None:
                raise ValueError(f"no check follows the exercise {waiting.source!r}")
            if "open" in tags:
                found.append(Exercise(_name(cell), cell.source, "", _points(cell)))
            else:
                waiting = cell
        elif "check" in tags:
            if waiting is None:
                raise ValueError(f"no exercise comes before the check {cell.source!r}")
            found.append(Exercise(_name(waiting), waiting.source, cell.source, _points(cell)))
            waiting = None
    if waiting is not None:
        raise ValueError(f"no check follows the exercise {waiting.source!r}")
    return found


def student_copy(notebook: NotebookNode, name: str) -> NotebookNode:
    """Without answers, outputs, hidden tests and notes for teachers; predictions are open.

    The check of a number computes the answer, so its code is packed; that of a function compares values and stays,
    unless it is tagged ``packed``.

    Args:
        notebook: as it is stored.
        name: of its file, for the line on top.
    """
    made = copy.deepcopy(notebook)
    numbers = {one.check for one in exercises(notebook) if f"{one.name} = None" in one.task}
    for cell in made.cells:
        if cell.cell_type == "markdown":
            cell.source = _LOCAL.sub(r"\1", _TEACHER.sub("", cell.source)).strip()
        elif cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            code = without_hidden(without_solution(cell.source))
            if cell.source in numbers or "packed" in _tags(cell):
                code = f'{_PACKED}run_packed("{packed(code)}", globals())'
            cell.source = code
    made.cells = [cell for cell in made.cells if cell.source]
    made.cells.insert(
        0,
        _top(
            f"Your copy of **{name}**. Run the cells in order, write in those of the exercises, hand in this file. For "
            "marks only the imports and parameters at the top and the cells of exercises are run: an exercise may use "
            "those, and no function of another cell."
        ),
    )
    return made


def instructor_copy(notebook: NotebookNode, name: str) -> NotebookNode:
    """With everything, notes and hidden tests included, and with nbgrader's metadata, so that it too can take them."""
    made = copy.deepcopy(notebook)
    for number, cell in enumerate(made.cells):
        tags, about = _tags(cell), {"schema_version": 3, "task": False, "grade_id": f"cell-{number:03d}"}
        if cell.cell_type == "code" and "open" in tags:
            about |= {"grade": True, "solution": True, "locked": False, "points": _points(cell)}
        elif cell.cell_type == "code" and "exercise" in tags:
            about |= {"grade": False, "solution": True, "locked": False}
        elif "check" in tags:
            about |= {"grade": True, "solution": False, "locked": True, "points": _points(cell)}
        else:
            continue
        cell.metadata["nbgrader"] = about
    made.cells.insert(0, _top(f"Instructor's copy of **{name}**, with solutions, hidden tests, rubrics and notes."))
    return made


def _top(text: str) -> NotebookNode:
    cell = new_markdown_cell(text)
    cell["id"] = "about-this-copy"
    return cell


def _tags(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def _points(cell: NotebookNode) -> int:
    return next((int(tag.removeprefix("points-")) for tag in _tags(cell) if tag.startswith("points-")), 1)


def _name(cell: NotebookNode) -> str:
    """What a cell defines last at its outer level."""
    for statement in reversed(ast.parse(cell.source).body):
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            return statement.name
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            return statement.targets[0].id
    raise ValueError(f"an exercise defines a variable or a function; this one defines none: {cell.source!r}")
