"""Strict parameters, and outputs that appear whole or not at all."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from process_cases import until

from snrlib.cli.main import main
from snrlib.notebooks import run as runs
from snrlib.notebooks.inside import checkpoint_folder, files_folder
from snrlib.notebooks.parameters import parameters

SEED = "seed: int = 0  # of the draws"
PARAMETERS = f"""
sigma2: float = 0.5  # variance of the noise [0.01 to 10]
count: int = 3  # how many
m: int = 2  # images per class [2 | 4]
name: str = "snr"  # which one [snr | euclidean]
free: str = "x"  # any text
flag: bool = False  # a switch
several: list[str] = ["a"]  # some of them [a | b | c]
interactive: bool = False  # draw sliders
{SEED}
"""
BODY = """
from types import SimpleNamespace
from snrlib.notebooks.inside import record
from snrlib.utils.files import data_folder
made = SimpleNamespace(name="made, test", fingerprint="0123")
record({"doubled": 2 * sigma2, "count": count, "flag": flag, "cache": str(data_folder("cache"))}, made)
"""
WRITES = """
import os, pathlib
from snrlib.notebooks.inside import checkpoint_folder, files_folder
root = pathlib.Path(os.environ["SNR_ROOT"])
folder, log = files_folder(), checkpoint_folder() / "log"
(folder / "scores.csv").write_text(f"seed {seed}")
(folder / "figures").mkdir()
(folder / "figures" / "one.txt").write_text(f"figure {seed}")
beside = [path.name for path in folder.parent.iterdir() if not path.name.startswith(".")]
(root / "beside").write_text(" ".join(sorted(beside)))
started = log.read_text() if log.exists() else ""
log.parent.mkdir(parents=True, exist_ok=True)
log.write_text(started + "x")
(root / "started").write_text(str(len(started)))
"""
UNLUCKY = f"{WRITES}\nif seed == 13 and len(started) < 2:\n    raise RuntimeError('unlucky')"
OUTPUTS = ["05_files.ipynb", "figures/one.txt", "result.json", "ro-crate-metadata.json", "scores.csv"]


def _write(path: Path, *code: str) -> None:
    cells = [new_code_cell(text.strip()) for text in code]
    cells[0].metadata["tags"] = ["parameters"]
    notebook = new_notebook(cells=[new_markdown_cell("# What is it?"), *cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three small notebooks; 05 writes files and fails the first two times with seed 13."""
    _write(tmp_path / "notebooks" / "03_small.ipynb", PARAMETERS, BODY)
    _write(tmp_path / "notebooks" / "04_other.ipynb", SEED, "print(seed)")
    _write(tmp_path / "notebooks" / "05_files.ipynb", SEED, UNLUCKY)
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    monkeypatch.setenv("SNR_RUNS", str(tmp_path / "data" / "runs"))
    return tmp_path


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells run in this process: a kernel takes a second to start, and most of these tests are about folders."""

    def execute(source: str, output: str, parameters: dict[str, Any], **_: Any) -> None:
        notebook = nbformat.read(source, as_version=4)
        notebook.metadata["papermill"] = nbformat.from_dict({})
        names: dict[str, Any] = {}
        try:
            for number, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), start=1):
                shown = lambda data, raw, cell=cell: cell.outputs.append(new_output("display_data", data))  # noqa: E731
                with monkeypatch.context() as patched:
                    patched.setattr("IPython.display.display", shown)
                    exec(cell.source, names)
                names |= parameters
                cell.execution_count = number
        except RuntimeError as error:
            given: Any = (number, number, cell.source, type(error).__name__, str(error), [])
            raise papermill.exceptions.PapermillExecutionError(*given) from None
        finally:
            nbformat.write(notebook, output)

    monkeypatch.setattr(papermill, "execute_notebook", execute)


def _left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in _left(folder)}


def _unlucky(**options: Any) -> None:
    with pytest.raises(runs.NotebookError, match="unlucky"):
        runs.run("05", {"seed": 13}, **options)


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notebook", "values", "message"),
    [
        ("03", {"sigma": 1.0}, "03_small has no parameter sigma; valid: sigma2, count, m, name, free, flag, several,"),
        ("03", {"sigma2": 0.0}, "sigma2 must be from 0.01 to 10, got 0.0"),
        ("03", {"sigma2": float("nan")}, "sigma2 must be from 0.01 to 10, got nan"),
        ("03", {"sigma2": "0.5"}, r"sigma2 must be float, got '0.5' \(str\)"),
        ("03", {"sigma2": True}, "sigma2 must be float, got True"),
        ("03", {"count": 2.0}, "count must be int, got 2.0"),
        ("03", {"m": 3}, "m must be one of 2, 4; got 3"),
        ("03", {"flag": 1}, "flag must be bool, got 1"),
        ("03", {"several": ["a", "z"]}, "several must be one of a, b, c; got"),
        ("03", {"several": [1]}, "several must be a list of strings"),
        ("03", {"several": "a"}, r"several must be list\[str\], got 'a'"),
        ("03", {"interactive": True}, "sliders need a live kernel"),
        ("07", {}, "no notebook '07'; there are: 03_small, 04_other, 05_files"),
        ("/elsewhere/04_other.ipynb", {}, r"no notebook '/elsewhere/04_other\.ipynb'"),
    ],
)
def test_wrong_values_are_refused_before_anything_runs(
    study: Path, notebook: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        runs.run(notebook, values)
    assert not (study / "data").exists()
    assert parameters(str(study / "notebooks" / "04_other.ipynb")), "a path to one of ours is one of ours"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sigma2=half", "sigma2 must be float, got 'half'"),
        ("count=2.5", "count must be int, got '2.5'"),
        ("flag=0", "flag must be true or false, got '0'"),
        ("name=", "name must be one of snr, euclidean; got ''"),
        ("sigma2=1 sigma2=2", "sigma2 is given twice"),
        ("sigma2", "-p takes NAME=VALUE, got 'sigma2'"),
        ("stigma=2", "03_small has no parameter stigma; valid: sigma2,"),
    ],
)
def test_the_command_refuses_them_with_status_2(
    study: Path, text: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["run", "03", *(part for value in text.split(" ") for part in ("-p", value))]) == 2
    assert message in capsys.readouterr().err
    assert not (study / "data").exists()


def test_the_command_parses_every_type(study: Path, here: None, capsys: pytest.CaptureFixture) -> None:
    values = ["sigma2=2", "count=5", "m=4", "free=a=b", "flag=true", "several=a, c"]
    output = study / "o" / "out.ipynb"
    assert main(["run", "03", "-o", str(output), *(part for value in values for part in ("-p", value))]) == 0
    chosen = {"sigma2": 2.0, "count": 5, "m": 4, "free": "a=b", "flag": True, "several": ["a", "c"]}
    assert chosen.items() <= json.loads((study / "o" / "result.json").read_text())["parameters"].items()
    assert str(output) in capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [
        "width: tuple = (1, 2)  # a pair",
        "b: int = 2  # the same as n=2",
        "s: str = 'a#b'  # with a hash",
        "n: int = 2",
        "n = 2  # no type",
        "n: int = 0.5  # another type",
        "f: float = 1  # an int",
        "n: int = 2  # outside [3 to 4]",
        "n: int = two  # no literal",
    ],
)
def test_lines_that_would_be_misread_are_refused(study: Path, line: str) -> None:
    _write(study / "notebooks" / "05_files.ipynb", line)
    with pytest.raises(ValueError, match=r"in the parameters of 05_files|must be"):
        parameters("05")


def test_papermill_reads_the_same_parameters(repository: Path) -> None:
    for path in sorted((repository / "notebooks").glob("*.ipynb")):
        assert list(papermill.inspect_notebook(str(path))) == list(parameters(path.stem))


def test_list_and_params_say_what_there_is(study: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["list"]) == main(["params", "03"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"03_small +What is it\?", out)
    assert "sigma2: float = 0.5  variance of the noise  [0.01 to 10]" in out
    assert "name: str = 'snr'  which one  [snr | euclidean]" in out
    shutil.rmtree(study / "notebooks")
    for command in ("list", "study"):
        assert main([command]) == 2
        assert f"no notebooks in {study / 'notebooks'}" in capsys.readouterr().err


def test_the_command_starts_light_and_ends_quietly(study: Path) -> None:
    said = "import sys, snrlib.cli.main; print(sorted({'numpy', 'pandas', 'torch'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", said], text=True).strip() == "[]"
    command = f"{sys.executable} -m snrlib params 03 | true"  # a reader that has seen enough is no error
    assert subprocess.run(command, shell=True, capture_output=True, text=True).stderr == ""


# --- outputs ----------------------------------------------------------------------------------------------------------


def test_a_run_writes_notebook_and_result_row(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study)
    monkeypatch.setenv("SNR_CACHE", "near")  # counted from here, though the notebook runs elsewhere
    target = study / "{seed}" / "a{b}.ipynb"
    row = runs.run("03", {"sigma2": np.float32(2), "count": np.int64(4), "several": ["a", "c"]}, target)
    stored = json.loads((target.parent / "result.json").read_text())
    assert row == {**stored, "output": str(target)}
    assert stored["metrics"] == {"doubled": 4.0, "count": 4, "flag": False, "cache": str(study / "near")}
    chosen = {"sigma2": 2.0, "count": 4, "m": 2, "name": "snr", "free": "x", "flag": False, "several": ["a", "c"]}
    assert stored["parameters"] == chosen | {"interactive": False, "seed": 0}
    assert (stored["seed"], stored["data"]) == (0, {"made, test": "0123"})
    assert {"python", "torch", "snrlib"} <= stored["versions"].keys()
    assert stored["wall_time_s"] > 0
    assert len(stored["source"]) == 16
    executed = nbformat.read(target, as_version=4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    assert executed.metadata.papermill.output_path == target.name
    assert _left(target.parent) == ["a{b}.ipynb", "result.json", "ro-crate-metadata.json"], "nothing else is left"


def test_runs_of_other_values_share_no_folder(study: Path) -> None:
    default = runs.default_output("03")
    assert default == runs.default_output("03", {"sigma2": 0.5}), "the default, said aloud, is the default"
    others = [runs.default_output("03", {"sigma2": 0.6}), runs.default_output("03", {"count": 4})]
    assert len({default, *others}) == 3


@pytest.mark.parametrize("ending", ["import os; os._exit(1)", "import sys; sys.exit()"])
def test_a_kernel_that_ends_early_has_failed(study: Path, ending: str) -> None:
    _write(study / "notebooks" / "05_files.ipynb", SEED, ending, "print('never')")
    target = study / "o" / "out.ipynb"
    assert main(["run", "05", "-o", str(target)]) == 1
    assert _left(target.parent) == ["out.failed.ipynb"]


def test_files_appear_when_the_output_is_whole(study: Path, here: None) -> None:
    target = study / "o" / "05_files.ipynb"
    mine = ["notes.txt", "figures/mine.txt", ".hidden", "model.pt", "result.txt", "checkpoints/last.pt"]
    for name in mine:
        (target.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (target.parent / name).write_text("precious")
    there = "checkpoints figures model.pt notes.txt result.txt"
    for seed in (0, 1):
        runs.run("05", {"seed": seed}, output=target, force=True)
        assert (study / "beside").read_text() == there, "nothing of its own while it runs"
        there = "05_files.ipynb checkpoints figures model.pt notes.txt result.json result.txt "
        there += "ro-crate-metadata.json scores.csv"
        assert (target.parent / "scores.csv").read_text() == f"seed {seed}"
        assert (target.parent / "figures" / "one.txt").read_text() == f"figure {seed}"
    _unlucky(output=target, force=True)
    assert all((target.parent / name).read_text() == "precious" for name in mine), "the user's are never deleted"


def test_a_failed_run_keeps_what_was_there(study: Path, here: None, capsys: pytest.CaptureFixture) -> None:
    target = study / "o" / "05_files.ipynb"
    assert main(["run", "05", "-p", "seed=13", "-o", str(target)]) == 1
    visible = [name for name in _left(target.parent) if not name.startswith(".")]
    assert visible == ["05_files.failed.ipynb"], "a partial copy, whose name says so"
    err = capsys.readouterr().err
    assert "RuntimeError: unlucky" in err
    assert "05_files.failed.ipynb" in err
    assert main(["run", "05", "-o", str(target)]) == 0
    before = _contents(target.parent)
    assert list(before) == OUTPUTS, "a success clears the failed copy"
    _unlucky(output=target, force=True)
    assert before.items() <= _contents(target.parent).items()


def test_what_stands_in_the_way_is_not_replaced(study: Path, here: None, capsys: pytest.CaptureFixture) -> None:
    target, source = study / "mine.ipynb", study / "notebooks" / "04_other.ipynb"
    target.write_text("precious")
    before = source.read_bytes()
    with pytest.raises(FileExistsError, match=r"mine.ipynb exists; .*--force"):
        runs.run("04", output=target)
    assert target.read_text() == "precious"
    runs.run("04", output=target, force=True)
    assert nbformat.read(target, as_version=4)
    with pytest.raises(FileExistsError, match=r"result.json exists; choose another folder"):
        runs.run("03", output=study / "other.ipynb")
    assert not (study / "other.ipynb").exists()
    with pytest.raises(FileExistsError, match="choose another folder"):
        runs.run("04", output=source, force=True)
    assert source.read_bytes() == before
    with pytest.raises(ValueError, match=r"must end in .ipynb, got 'out.json'"):
        runs.run("04", output=study / "out.json")
    assert main(["run", "04", "-o", str(target / "out.ipynb")]) == 2
    assert f"cannot write into {target}: " in (err := capsys.readouterr().err)
    assert "SNR_RUNS=FOLDER" in err


def test_outputs_are_renewed_if_not_current(study: Path, here: None, capsys: pytest.CaptureFixture) -> None:
    target = study / "o" / "out.ipynb"
    result = target.with_name("result.json")
    renewed = []

    def renew(*arguments: str) -> None:
        before = target.stat().st_mtime_ns if target.exists() else 0
        assert main(["run", "04", "-o", str(target), "--renew", *arguments]) == 0
        renewed.append(target.stat().st_mtime_ns > before)
        assert runs.is_current(target)
        assert "04_other: " in capsys.readouterr().out

    renew()
    renew()
    _write(study / "notebooks" / "04_other.ipynb", SEED, "print(seed + 1)")
    assert not runs.is_current(target)
    renew()
    renew("-p", "seed=7")
    assert json.loads(result.read_text())["parameters"]["seed"] == 7, "other values are another run"
    for damage in ("{", "[]", "{}", ""):
        result.write_text(damage)
        assert not runs.is_current(target)
    renew()
    assert renewed == [True, False, True, True, True]


def test_checkpoints_serve_the_same_run_again_only(study: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    target = study / "o" / "05_files.ipynb"

    def started() -> int:
        return int((study / "started").read_text())

    def begin_again(why: str) -> None:
        _unlucky(output=target, force=True)
        assert started() == 0, why

    begin_again("the first")
    runs.run("05", {"seed": 1}, output=target, force=True)
    assert started() == 0, "other parameters"
    begin_again("another run was there between")
    _write(study / "notebooks" / "05_files.ipynb", SEED, UNLUCKY + "\n# changed")
    begin_again("another notebook")
    of = runs.source_fingerprint
    monkeypatch.setattr(runs, "source_fingerprint", lambda notebook: of(notebook)[::-1])
    begin_again("another library")
    _unlucky(output=target, force=True)
    runs.run("05", {"seed": 13}, output=target, force=True)
    assert started() == 2, "those of failed runs"
    assert _left(target.parent) == OUTPUTS, "and then they are gone"
    begin_again("from the beginning")


def test_a_runs_places_are_restored_after_it(study: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("SNR_RUN_FILES", "SNR_RUN_CHECKPOINTS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert files_folder() == study / "data" / "runs" / "by_hand"
    assert checkpoint_folder() is None
    for before in (None, "/of/the/outer/run"):
        for run in (lambda: runs.run("04"), _unlucky):
            run()
            assert [os.environ.get(name) for name in names] == [before] * 2
        for name in names:
            monkeypatch.setenv(name, "/of/the/outer/run")


# --- runs that are ended ----------------------------------------------------------------------------------------------


def _begun(study: Path, code: str) -> subprocess.Popen:
    """A first run of notebook 05 that goes on for a minute, once it has begun; the next ends at once."""
    begun = study / "begun"
    waits = f"import pathlib, time\nbegun = pathlib.Path({str(begun)!r})\nfirst = not begun.exists()\nbegun.touch()"
    _write(study / "notebooks" / "05_files.ipynb", SEED, f"{code}\n{waits}\ntime.sleep(60 * first)")
    command, piped = [sys.executable, "-m", "snrlib", "run", "05"], subprocess.PIPE
    process = subprocess.Popen(command, stdout=piped, stderr=piped, text=True, start_new_session=True)
    until(begun.exists, process, 60)
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing(study: Path, number: int, status: int) -> None:
    process = _begun(study, "")
    os.killpg(process.pid, number)  # as a terminal's Ctrl-C reaches the whole group
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert status == 143 or "interrupted" in err
    assert "Traceback" not in err
    assert _left(study / "data") == []


def test_a_killed_run_keeps_results_and_checkpoints(study: Path, here: None) -> None:
    output = runs.default_output("05")
    runs.run("05")
    before = _contents(output.parent)
    process = _begun(study, WRITES)
    for refused, place in (("05", None), ("03", output.with_name("other.ipynb"))):
        with pytest.raises(FileExistsError, match="another run is writing"):
            runs.run(refused, output=place)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert before.items() <= _contents(output.parent).items()
    assert {path.name for path in output.parent.glob("[!.]*")} == {name.partition("/")[0] for name in OUTPUTS}
    assert not runs.is_current(output)
    runs.run("05")
    assert (study / "started").read_text() == "1", "it goes on"
    assert runs.is_current(output)
    assert _left(output.parent) == OUTPUTS, "what the killed one left is gone"


@pytest.mark.parametrize("status", [0, 1])
def test_a_whole_study_says_where_to_go(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, status: int
) -> None:
    monkeypatch.setattr("snrlib.study.workflow.run_study", lambda *_: status)
    monkeypatch.setattr("snrlib.report.index.build", lambda: "index.html")
    assert main(["study"]) == status
    out = capsys.readouterr().out
    assert "index.html" in out
    assert ("make lab" in out) == (status == 0)


@pytest.mark.usefixtures("here")
def test_a_file_of_no_run_is_never_replaced(study: Path) -> None:
    for output in (None, study / "own" / "05.ipynb"):
        place = runs.default_output("05") if output is None else output
        mine = place.with_name("scores.csv")
        mine.parent.mkdir(parents=True)
        mine.write_text("my own")
        for _ in range(2):
            with pytest.raises(
                FileExistsError, match=r"^scores\.csv in .* is of no run and would be replaced; move it"
            ):
                runs.run("05", output=output)
            assert mine.read_text() == "my own"
            assert not runs.result_path(place).exists()
        mine.rename(study / "elsewhere")
        runs.run("05", output=output)
        assert mine.read_text() == "seed 0"
        runs.run("05", output=output, force=output is not None)
        runs.run("05", output=output, force=True, skip_current=True)
        mine.write_text("my own")
        runs.result_path(place).unlink()
        runs.run("05", output=output, force=True)
        assert mine.read_text() == "seed 0", "as asked"


@pytest.mark.usefixtures("here")
def test_what_an_unfinished_run_made_is_replaced(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, row: dict[str, Any]) -> None:
        if path.name == "result.json":
            raise KeyboardInterrupt
        written(path, row)

    written = runs.write_json
    monkeypatch.setattr(runs, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        runs.run("05")
    place = runs.default_output("05")
    assert not runs.result_path(place).exists()
    assert place.with_name("scores.csv").exists()
    monkeypatch.setattr(runs, "write_json", written)
    runs.run("05")
    assert _left(place.parent) == OUTPUTS


@pytest.mark.usefixtures("here")
def test_an_error_is_blamed_on_its_own_path(study: Path) -> None:
    _write(study / "notebooks" / "04_other.ipynb", SEED, "open('/nowhere/x')")
    with pytest.raises(OSError, match="/nowhere/x") as raised:
        runs.run("04")
    assert "cannot write into" not in str(raised.value)


@pytest.mark.usefixtures("here")
def test_executed_notebooks_name_no_private_place(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, photos = study / "home" / "alice", study / "disk" / "alices photos"
    monkeypatch.setenv("HOME", str(home))
    first = f"root: str = None  # the images [auto | path]\n{SEED}"
    fails = f"if seed == 13:\n    raise RuntimeError(root, {str(study / 'y')!r})"
    shows = f"from IPython.display import display\ndisplay({{'text/plain': f'{home}/x and {{root}}/1.jpg'}}, raw=True)"
    _write(study / "notebooks" / "04_other.ipynb", first, shows, fails)
    row = runs.run("04", {"root": str(photos)})
    assert row["parameters"]["root"] == str(photos), "the row is what tells whether it is current"
    with pytest.raises(runs.NotebookError):
        runs.run("04", {"root": str(photos), "seed": 13}, study / "out" / "04.ipynb")
    executed, failed = Path(row["output"]).read_text(), (study / "out" / "04.failed.ipynb").read_text()
    assert "~/x and None/1.jpg" in executed or "~/x and alices photos/1.jpg" in executed
    for text in (executed, failed):
        assert str(study) not in text
