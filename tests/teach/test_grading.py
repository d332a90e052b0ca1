"""Marks of right, wrong, empty, hanging and dishonest submissions, and what none of them may do."""

import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from process_cases import processes

from snrlib.notebooks.find import find_notebook
from snrlib.teach import walls
from snrlib.teach.copies import exercises, student_copy
from snrlib.teach.grading import Mark, grade, write_marks
from snrlib.teach.submission import Submission
from snrlib.teach.walls import EndedError, Limits

SOURCE = find_notebook("01")
SOLUTIONS = {one.name: one.task for one in exercises(nbformat.read(SOURCE, as_version=4))}
DISTANCE = "my_snr_distance"
CHEATS = """
import builtins, json, sys
import numpy as np
import snrlib.notebooks.exercises as exercises
import snrlib.teach.pupil as pupil
class Equal(float):
    __eq__ = __le__ = __lt__ = __ge__ = __gt__ = lambda self, other: True
    __hash__ = float.__hash__
np.allclose = np.all = lambda *given, **options: True
exercises.check = lambda *given, **options: exercises.Verdict("right", "Right.")
exercises.Verdict.right = True
builtins.AssertionError = ZeroDivisionError
def my_snr_distance(h_i, h_j):
    return Equal(0.0)
"""


@pytest.fixture
def hand_in(tmp_path: Path) -> Callable[..., None]:
    """Writes a student's file: the student copy with these exercises filled."""

    def write(student: str, filled: dict[str, str]) -> None:
        made = student_copy(nbformat.read(SOURCE, as_version=4), "01")
        for cell in made.cells:
            for name, code in filled.items():
                if "exercise" in cell.metadata.get("tags", []) and name in cell.source:
                    cell.source = code
        (tmp_path / student).mkdir()
        nbformat.write(made, tmp_path / student / SOURCE.name)

    return write


def _of(marks: list[Mark], student: str) -> dict[str, Mark]:
    return {mark.exercise: mark for mark in marks if mark.student == student}


@pytest.mark.slow
def test_right_wrong_empty_hanging_and_dishonest_get_their_marks(hand_in: Callable[..., None], tmp_path: Path) -> None:
    hand_in("right", SOLUTIONS | {"answer_5": 'answer_5 = "=SUM(A1) No: the triangle"'})
    swapped = f"def {DISTANCE}(h_i, h_j):\n    return h_i.var(axis=-1) / (h_j - h_i).var(axis=-1)"
    hand_in("wrong", SOLUTIONS | {DISTANCE: swapped, "answer_2": "answer_2 = 32"})
    hand_in("empty", {})
    hand_in("hanging", SOLUTIONS | {DISTANCE: f"def {DISTANCE}(h_i, h_j):\n    while True: pass"})
    table = f"def {DISTANCE}(h_i, h_j):\n    import numpy as np\n    return np.array([0.55, 0.25])"
    hand_in("dishonest", {DISTANCE: CHEATS, "answer_2": table + "\nanswer_2 = my_snr_distance"})
    hand_in("by_heart", {DISTANCE: table})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / SOURCE.name).write_text("{")
    marks = list(grade(tmp_path, limits=Limits(seconds=3)))
    right = _of(marks, "right")
    assert [one.outcome for one in right.values()] == ["right"] * 4 + ["to read"]
    assert [one.points for one in right.values()] == [3, 1, 2, 3, None]
    wrong = _of(marks, "wrong")
    assert (wrong[DISTANCE].points, wrong[DISTANCE].message) == (
        0,
        "Not yet: is that the SNR? The distance is its reciprocal.",
    )
    assert "still overlap" in wrong["answer_2"].message
    assert wrong["my_snr_gradient"].points == 3
    assert {one.outcome for one in _of(marks, "empty").values()} == {"not attempted"}
    hanging = _of(marks, "hanging")
    assert (hanging[DISTANCE].points, hanging[DISTANCE].message) == (0, "it takes too long")
    assert hanging["my_snr_gradient"].points == 3, "it costs its own points alone"
    for student in ("dishonest", "by_heart", "broken"):
        assert sum(one.points or 0 for one in _of(marks, student).values()) == 0, student
    assert "not in a hidden one" in _of(marks, "by_heart")[DISTANCE].message
    write_marks(tmp_path / "marks.csv", marks)
    rows = list(csv.DictReader((tmp_path / "marks.csv").read_text().splitlines()))
    (total,) = [row for row in rows if (row["student"], row["exercise"]) == ("right", "total")]
    assert (total["points"], total["of"], total["message"]) == ("9", "13", "4 to be read")
    (text,) = [row["message"] for row in rows if row["message"].endswith("triangle")]
    assert text.startswith("'="), "no spreadsheet computes it"
    assert not processes("snrlib.teach.pupil")


FORBIDDEN = {
    "network": "import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
    "hidden tests": f"open({str(SOURCE)!r})",
    "another submission": "open({other!r})",
    "a change of what it imports": "import snrlib; open(snrlib.__file__, 'a')",
    "more memory": "x = bytearray(5 << 30)",
    "a large file": "open('x', 'wb').write(bytes(80 << 20))",
    "a mount": "import subprocess; subprocess.run(['mount', '-t', 'tmpfs', 'x', '/tmp'], check=True)",
    "another process": "import os; os.kill({pid}, 9)",
    "the first process's files": "import os; os.listdir('/proc/1/root')",
}


@pytest.fixture(scope="module")
def submission() -> Iterator[Submission]:
    walls.check_walls()
    one = Submission([], Limits(seconds=20), walls=True)
    yield one
    one.close()


@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_submission_may_not_have(what: str, submission: Submission, tmp_path: Path) -> None:
    import os
    import socket

    (tmp_path / "other").write_text("answer_1 = 1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = FORBIDDEN[what].replace("{port}", str(port)).replace("{pid}", str(os.getpid()))
        code = code.replace("{other!r}", repr(str(tmp_path / "other")))
        submission.begin()
        tried = f"try:\n    {code}\n    answer = 'done'\nexcept (Exception, MemoryError):\n    answer = 'refused'"
        assert submission.define("answer", tried) == "refused"
        submission.begin()
        assert submission.define("answer", "import os; answer = os.getcwd() + os.environ['HOME']") == "/tmp/tmp"


@pytest.mark.parametrize(
    "code", ["answer = 'x' * (2 << 20)", "import os; os._exit(0)", "import os; os.write(3, b'[' * 100000 + b'\\n')"]
)
def test_too_much_said_or_a_death_ends_it(code: str) -> None:
    one = Submission([], Limits(seconds=5), walls=True)
    try:
        said = one.define("answer", code)
    except EndedError:
        return
    finally:
        one.close()
    assert not isinstance(said, str), "what it forges is no answer"


def test_what_it_leaves_behind_ends_with_it() -> None:
    one = Submission([], Limits(seconds=5), walls=True)
    stray = "import subprocess\nsubprocess.Popen(['sleep', '4321'], start_new_session=True)\nanswer = 1"
    assert one.define("answer", stray) == 1
    assert processes("sleep", "4321")
    one.close()
    limit = time.monotonic() + 5
    while processes("sleep", "4321") and time.monotonic() < limit:
        time.sleep(0.05)
    assert not processes("sleep", "4321")


def test_without_walls_grading_refuses(
    monkeypatch: pytest.MonkeyPatch, hand_in: Callable[..., None], tmp_path: Path
) -> None:
    hand_in("one", {})
    walls.check_walls.cache_clear()
    monkeypatch.setattr(walls, "_UNSHARE", ("false",))
    with pytest.raises(OSError, match="cannot be walled in here"):
        list(grade(tmp_path))
    walls.check_walls.cache_clear()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no submission in"):
        list(grade(tmp_path))
