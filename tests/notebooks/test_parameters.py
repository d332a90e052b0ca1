"""``auto`` and ``none``: the words for None, where a parameter declares them and nowhere else."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from snrlib.cli.main import main
from snrlib.notebooks.parameters import check_values, parameters
from snrlib.notebooks.run import default_output

LINES = """
margin: float = None  # of the loss; auto takes the usual one [auto | -1 to 1]
steps: int = None  # auto suits the data [auto]
weights: str = None  # imagenet, or the path of a file [none]
map: str = "running"  # where it is from [auto | running | learned]
clip: float = 0.5  # the largest length [none | 0 to 9]
seed: int = 0  # of the draws [0 to 9]
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of one notebook with these parameters."""
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    _write(tmp_path, LINES)
    return tmp_path


def _write(folder: Path, lines: str) -> None:
    (folder / "notebooks").mkdir(exist_ok=True)
    cell = new_code_cell(lines.strip(), metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell]), folder / "notebooks" / "07_small.ipynb")


def test_the_word_means_none_on_the_command_line(study: Path) -> None:
    known = parameters("07")
    parsed = {"margin": "auto", "steps": "auto", "weights": "none", "map": "auto", "clip": "none"}
    assert {name: known[name].parse(word) for name, word in parsed.items()} == dict.fromkeys(parsed)
    given: dict[str, tuple[str, Any]] = {
        **{"margin": ("-0.5", -0.5), "steps": ("7", 7), "weights": ("w.pt", "w.pt")},
        **{"map": ("learned", "learned"), "clip": ("0", 0.0)},
    }
    assert {name: known[name].parse(text) for name, (text, _) in given.items()} == {
        name: value for name, (_, value) in given.items()
    }


def test_none_is_a_value_where_it_is_declared(study: Path) -> None:
    nothing = dict.fromkeys(("margin", "steps", "weights", "map", "clip"))
    assert check_values("07", nothing) == nothing
    assert {name: known.default for name, known in parameters("07").items()} == {
        **{"margin": None, "steps": None, "weights": None, "map": "running", "clip": 0.5, "seed": 0}
    }
    assert default_output("07", {"margin": None}) == default_output("07"), "None, said aloud, is the default"
    assert default_output("07", {"clip": None}) != default_output("07")
    with pytest.raises(ValueError, match=r"seed must be int, got None \(NoneType\)"):
        check_values("07", {"seed": None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed=auto", "seed must be int, got 'auto'"),
        ("clip=auto", "clip must be float or none, got 'auto'"),
        ("margin=none", "margin must be float or auto, got 'none'"),
        ("margin=2", "margin must be from -1 to 1, got 2.0"),
        ("map=whitening", "map must be one of running, learned; got 'whitening'"),
        ("steps=2.5", "steps must be int or auto, got '2.5'"),
    ],
)
def test_no_other_word_does(study: Path, text: str, message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "07", "-p", text]) == 2
    assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"steps must be int or auto, got 2\.5"):
        check_values("07", {"steps": 2.5})


def test_the_word_is_shown_with_what_is_allowed(study: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["params", "07"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "margin: float = auto  of the loss; auto takes the usual one  [auto | -1 to 1]",
        "steps: int = auto  auto suits the data  [auto]",
        "weights: str = none  imagenet, or the path of a file  [none]",
        "map: str = 'running'  where it is from  [auto | running | learned]",
        "clip: float = 0.5  the largest length  [none | 0 to 9]",
        "seed: int = 0  of the draws  [0 to 9]",
    ]


@pytest.mark.parametrize("line", ["n: int = None  # nothing is declared", "n: int = None  # a range alone [0 to 9]"])
def test_a_default_of_none_must_be_declared(study: Path, line: str) -> None:
    _write(study, line)
    with pytest.raises(ValueError, match=r"n must be int, got None"):
        parameters("07")
