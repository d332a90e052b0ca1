"""Steps: what has a result is not done again, a failing one is named, the others are kept."""

import json
import os
from pathlib import Path

import pytest

from snrlib.study.steps import Step, finish

MODULE = """
from snrlib.utils.files import write_json

def double(number, path):
    if number == 13:
        raise ValueError("unlucky\\nand more")
    with open(path.with_name("calls"), "a") as calls:
        calls.write(f"{number} ")
    if path.suffix == ".json":
        write_json(path, {"doubled": 2 * number})
    else:
        path.write_text("other")
    return f"{number} is done"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a module of a step's function, for this process and for others."""
    (tmp_path / "doubling.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


def _step(folder: Path, number: int, ending: str = "json") -> Step:
    return Step("doubling:double", {"number": number}, folder / "results" / f"step-{number}.{ending}")


def test_results_come_in_order_none_made_twice(folder: Path, in_process: None, capsys: pytest.CaptureFixture) -> None:
    (folder / "results").mkdir()
    first, second, other = _step(folder, 3), _step(folder, 1), _step(folder, 2, "txt")
    assert finish("doubling", [first], 1) == [{"doubled": 6}]
    assert finish("doubling", [second, other, first], 1) == [{"doubled": 2}, None, {"doubled": 6}]
    assert (folder / "results" / "calls").read_text() == "3 1 2 "
    assert "doubling: 3 steps, 1 finished before" in capsys.readouterr().out
    assert first.path.with_suffix(".log").read_text() == "3 is done\n"
    first.path.write_text(json.dumps({"doubled": 7}))
    assert finish("doubling", [first], 1) == [{"doubled": 7}], "what is there is taken"


def test_a_failed_step_is_named_others_are_kept(folder: Path, in_process: None) -> None:
    steps = [_step(folder, number) for number in (13, 4)]
    with pytest.raises(ChildProcessError, match=r"^1 of 2 steps failed, the others are kept: step-13: ValueError: unl"):
        finish("doubling", steps, 2)
    assert json.loads(steps[1].path.read_text()) == {"doubled": 8}
    assert not steps[0].path.exists()
    assert "Traceback" in steps[0].path.with_suffix(".log").read_text(), "beside the line that says why"


def test_steps_are_done_in_processes_of_their_own(folder: Path) -> None:
    assert finish("doubling", [_step(folder, 3)], 1) == [{"doubled": 6}]
