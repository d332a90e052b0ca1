"""Marks for a folder of submissions. Student's code runs behind walls; checks run here, on the data that it gives.

nbgrader and otter run the tests in the interpreter of the submission. There a submission that replaces
``numpy.allclose``, or returns an object that equals everything, has full marks without an answer. Here a check is the
notebook's own cell, in which the student's function is a stand-in: what it is given goes to the other process, and what
comes back are numbers and text. Expected values never leave this process.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import nbformat

from snrlib.notebooks.exercises import Failed, Verdict, check
from snrlib.notebooks.find import find_notebook
from snrlib.notebooks.regions import without_hidden
from snrlib.teach.copies import Exercise, exercises
from snrlib.teach.submission import Submission
from snrlib.teach.walls import EndedError, Limits, check_limits, check_walls
from snrlib.utils.files import write_atomically

__all__ = ["Mark", "grade", "write_marks"]

_LARGEST = 20 << 20  # bytes of a submission
_TEXT, _MESSAGE = 4000, 300  # characters of an open answer, and of what is said of another


@dataclass(frozen=True)
class Mark:
    """One line of marks: of one exercise of one submission; ``points`` is None where a person is to judge."""

    student: str
    notebook: str
    exercise: str
    outcome: str
    points: int | None
    of: int
    message: str


@dataclass(frozen=True)
class _Key:
    """What is known of a notebook: its exercises, its setup, and the variables that the setup makes here."""

    name: str
    exercises: list[Exercise]
    setup: list[str]
    space: dict[str, Any]


def grade(folder: Path, *, limits: Limits | None = None, walls: bool = True) -> Iterator[Mark]:
    """The marks of all submissions in a folder, one by one.

    Args:
        folder: with ``STUDENT/NN_name.ipynb``, copies of a notebook of this study; everything else is passed over.
        limits: of each exercise; None for the usual ones.
        walls: False runs submissions with all rights of whoever calls this: only where the machine itself is the wall.

    Raises:
        ValueError: there is no submission in the folder.
        OSError: submissions cannot be walled in here, or not held to limits, in words.
    """
    found = sorted(path for path in folder.glob("*/[0-9][0-9]_*.ipynb") if path.is_file() and not path.is_symlink())
    if not found:
        raise ValueError(
            f"no submission in {folder}: expected STUDENT/NN_name.ipynb, as STUDENT/01_signal_and_noise.ipynb"
        )
    check_walls() if walls else check_limits()
    keys: dict[str, _Key] = {}
    for path in found:
        if path.name not in keys:
            keys[path.name] = _key(path.name)
        yield from _marks(path, keys[path.name], limits or Limits(), walls)


def write_marks(path: Path, marks: Sequence[Mark]) -> None:
    """As CSV, with a line of the sum after each submission. A text that a spreadsheet would compute is set in quotes.

    Raises:
        OSError: it cannot be written.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(field.name for field in fields(Mark))
            for number, mark in enumerate(marks):
                table.writerow(_harmless(value) for value in astuple(mark))
                whole = (mark.student, mark.notebook)
                if [(one.student, one.notebook) for one in marks[number + 1 : number + 2]] != [whole]:
                    own = [one for one in marks if (one.student, one.notebook) == whole]
                    total = sum(one.points or 0 for one in own), sum(one.of for one in own)
                    left = sum(one.of for one in own if one.points is None)
                    table.writerow([*map(_harmless, whole), "total", "", *total, f"{left} to be read" if left else ""])

    write_atomically(path, write)


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", " ", value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text


def _key(name: str) -> _Key:
    path = find_notebook(name)
    notebook = nbformat.read(path, as_version=4)
    setup = [
        cell.source
        for tag in ("setup", "parameters")
        for cell in notebook.cells
        if cell.cell_type == "code" and tag in cell.metadata.get("tags", [])
    ]
    space: dict[str, Any] = {"__name__": "__main__"}
    for code in setup:
        exec(code, space)
    return _Key(path.stem, exercises(notebook), setup, space)


def _cells(path: Path) -> list[str]:
    """Code of the exercise cells of a submission, which may be any file at all."""
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST >> 20} MB")
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "exercise" in cell.get("metadata", {}).get("tags", [])]
        return ["".join(cell["source"]) for cell in tagged if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("it is no notebook") from error


def _marks(path: Path, key: _Key, limits: Limits, walls: bool) -> Iterator[Mark]:
    """Of one submission. An exercise that ends the process costs its own points; the next begins in a new one."""
    cells: list[str] = []
    damage = ""
    try:
        cells = _cells(path)
    except ValueError as error:
        damage = str(error)
    submission: Submission | None = None
    try:
        for one in key.exercises:
            begins = re.compile(rf"^(?:def {one.name}\(|{one.name} *[:=])", re.MULTILINE)
            written = [code for code in cells if begins.search(code)]
            result: tuple[str, int | None, str]
            if not written:
                result = "not attempted", 0, damage or f"no cell of an exercise defines {one.name}"
            else:
                try:
                    if submission is None:
                        submission = Submission(key.setup, limits, walls)
                    submission.begin()
                    result = _judge(one, submission.define(one.name, written[-1]), key.space)
                except EndedError as error:
                    result, submission = ("wrong", 0, str(error)), None
            outcome, points, message = result
            yield Mark(path.parent.name, key.name, one.name, outcome, points, one.points, message)
    finally:
        if submission:
            submission.close()


def _judge(exercise: Exercise, answer: Any, space: dict[str, Any]) -> tuple[str, int | None, str]:
    """Outcome, points and message: of the check that students see, then of the same with its hidden tests.

    Raises:
        EndedError: the process of the submission ended.
        ValueError: the check calls no ``check(...)``.
    """
    if answer is None:
        return "not attempted", 0, ""
    if isinstance(answer, Failed):
        return ("wrong" if answer.begun else "not attempted"), 0, answer.message
    if not exercise.check:
        return "to read", None, str(answer)[:_TEXT]
    for hidden, code in enumerate((without_hidden(exercise.check), exercise.check)):
        verdicts: list[Verdict] = []
        trouble = ""
        try:
            exec(code, {**space, "check": partial(_listening, verdicts), exercise.name: answer})
        except EndedError:
            raise
        except Exception as error:  # of a check that meets what it did not expect, or a hidden test
            trouble = f"it cannot be judged: {type(error).__name__}: {error}"
        if not verdicts and not trouble:
            raise ValueError(f"the check of {exercise.name} calls no check(...)")
        failed = next((verdict for verdict in verdicts if not verdict.right), Verdict("wrong", trouble))
        if failed.message:
            where = "Right where you see the cases, not in a hidden one. " if hidden else ""
            return failed.outcome, 0, f"{where}{failed.message}"[:_MESSAGE]
    return "right", exercise.points, ""


def _listening(verdicts: list[Verdict], *given: Any, **options: Any) -> Verdict:
    verdicts.append(check(*given, **options))
    return verdicts[-1]
