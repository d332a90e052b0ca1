"""Strict parameters, and outputs that appear whole or not at all."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from snrlib.cli.main import main
from snrlib.notebooks import run as runs
from snrlib.notebooks.inside import checkpoint_folder, files_folder
from snrlib.notebooks.parameters import parameters

PARAMETERS = """
sigma2: float = 0.5  # variance of the noise [0.01 to 10]
count: int = 3  # how many
name: str = "snr"  # which one [snr | euclidean]
free: str = "x"  # any text
flag: bool = False  # a switch
several: list[str] = ["a"]  # some of them [a | b | c]
seed: int = 0  # of the draws
"""
BODY = """
from snrlib.notebooks.inside import record
if name == "euclidean":
    raise RuntimeError("this cell raises")
record({"doubled": 2 * sigma2, "count": count, "flag": flag})
"""


def _write(path: Path, *code: str) -> None:
    tags = [["parameters"], []]
    cells = [new_code_cell(text.strip(), metadata={"tags": tag}) for text, tag in zip(code, tags, strict=False)]
    notebook = new_notebook(cells=[new_markdown_cell("# What is it?"), *cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Path:
    """A study of two small notebooks and no grid, in a folder of its own."""
    shutil.copy(repository / "Snakefile", tmp_path)
    (tmp_path / "study.yaml").write_text("profiles: {quick: []}")
    _write(tmp_path / "notebooks" / "03_small.ipynb", PARAMETERS, BODY)
    _write(tmp_path / "notebooks" / "04_other.ipynb", "seed: int = 0  # of the draws", "print(seed)")
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    monkeypatch.setenv("SNR_RUNS", str(tmp_path / "data" / "runs"))
    return tmp_path


def _left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_run_writes_the_whole_notebook_and_its_result_row(study: Path) -> None:
    row = runs.run("03", {"sigma2": 2, "flag": True, "several": ["a", "c"]})
    output = Path(row["output"])
    stored = json.loads((output.parent / "result.json").read_text())
    assert row == {**stored, "output": str(output)}
    assert stored["metrics"] == {"doubled": 4.0, "count": 3, "flag": True}
    assert stored["parameters"] == {
        **{"sigma2": 2.0, "count": 3, "name": "snr", "free": "x", "flag": True, "several": ["a", "c"], "seed": 0}
    }
    assert stored["seed"] == 0
    assert {"python", "torch", "snrlib"} <= stored["versions"].keys()
    assert stored["wall_time_s"] > 0
    assert stored["data"] == {}
    assert len(stored["source"]) == 16
    executed = nbformat.read(output, as_version=4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    assert len(_left(output.parent)) == 2, "nothing else is left"


def test_runs_of_other_values_do_not_share_a_folder(study: Path) -> None:
    default = runs.default_output("03")
    assert default == runs.default_output("03", {"sigma2": 0.5}), "the default, said aloud, is the default"
    others = [runs.default_output("03", {"sigma2": 0.6}), runs.default_output("03", {"count": 4})]
    assert len({default, *others}) == 3


def test_the_data_of_a_run_are_recorded_by_fingerprint(study: Path) -> None:
    imports = "from snrlib.data import load\nfrom snrlib.notebooks.inside import record\n"
    code = f"{imports}record({{'n': 1}}, load('digits', 'test'))"
    _write(study / "notebooks" / "05_data.ipynb", "seed: int = 0  # of the draws", code)
    from snrlib.data import load

    assert runs.run("05")["data"] == {"digits, test": load("digits", "test").fingerprint}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sigma": 1.0}, "03_small has no parameter sigma; valid: sigma2, count, name, free, flag, several, seed"),
        ({"sigma2": 0.0}, "sigma2 must be from 0.01 to 10, got 0.0"),
        ({"sigma2": float("nan")}, "sigma2 must be from 0.01 to 10, got nan"),
        ({"sigma2": "0.5"}, r"sigma2 must be float, got '0.5' \(str\)"),
        ({"sigma2": True}, "sigma2 must be float, got True"),
        ({"count": 2.0}, "count must be int, got 2.0"),
        ({"count": True}, "count must be int, got True"),
        ({"flag": 1}, "flag must be bool, got 1"),
        ({"name": "snrr"}, "name must be one of snr, euclidean; got 'snrr'"),
        ({"several": ["a", "z"]}, "several must be one of a, b, c; got"),
        ({"several": []}, "several must be one of a, b, c; got"),
        ({"several": [1]}, "several must be a list of strings"),
        ({"several": "a"}, r"several must be list\[str\], got 'a'"),
    ],
)
def test_wrong_values_are_refused_before_anything_runs(study: Path, values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        runs.run("03", values)
    assert not (study / "data").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sigma2=half", "sigma2 must be float, got 'half'"),
        ("sigma2=11", "sigma2 must be from 0.01 to 10, got 11.0"),
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


def test_the_command_parses_every_type(study: Path, capsys: pytest.CaptureFixture) -> None:
    values = ["sigma2=2", "count=5", "free=a=b", "flag=true", "several=a, c"]
    output = study / "o" / "out.ipynb"
    assert main(["run", "03", "-o", str(output), *(part for value in values for part in ("-p", value))]) == 0
    chosen = json.loads((study / "o" / "result.json").read_text())["parameters"]
    assert (chosen["sigma2"], chosen["count"], chosen["free"], chosen["flag"]) == (2.0, 5, "a=b", True)
    assert chosen["several"] == ["a", "c"]
    assert str(output) in capsys.readouterr().out


def test_sliders_are_refused_where_no_one_can_move_them(study: Path) -> None:
    _write(study / "notebooks" / "05_slider.ipynb", "interactive: bool = False  # draw sliders", "print(interactive)")
    with pytest.raises(ValueError, match="sliders need a live kernel"):
        runs.run("05", {"interactive": True})
    assert Path(runs.run("05", {"interactive": False})["output"]).exists()


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
def test_a_parameter_line_that_would_be_lost_or_misread_is_refused(study: Path, line: str) -> None:
    _write(study / "notebooks" / "05_bad.ipynb", line)
    with pytest.raises(ValueError, match=r"in the parameters of 05_bad|must be"):
        parameters("05")


def test_papermill_reads_the_same_parameters(repository: Path) -> None:
    for path in sorted((repository / "notebooks").glob("*.ipynb")):
        assert list(papermill.inspect_notebook(str(path))) == list(parameters(path.stem))


def test_numbers_can_have_choices(study: Path) -> None:
    _write(study / "notebooks" / "05_choice.ipynb", "m: int = 2  # images a class [2 | 4]", "print(m)")
    assert parameters("05")["m"].parse("4") == 4
    with pytest.raises(ValueError, match="m must be one of 2, 4; got 3"):
        parameters("05")["m"].parse("3")


def test_numpy_numbers_are_numbers(study: Path) -> None:
    row = runs.run("03", {"sigma2": np.float32(2), "count": np.int64(4)})
    assert (row["parameters"]["sigma2"], row["parameters"]["count"]) == (2.0, 4)


@pytest.mark.parametrize("ending", ["import os; os._exit(1)", "import sys; sys.exit()"])
def test_a_notebook_whose_kernel_ends_early_has_failed(study: Path, ending: str) -> None:
    path = study / "notebooks" / "05_dies.ipynb"
    _write(path, "seed: int = 0  # of the draws", ending)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(new_code_cell("print('never')"))
    nbformat.write(notebook, path)
    target = study / "o" / "out.ipynb"
    assert main(["run", "05", "-o", str(target)]) == 1
    assert _left(target.parent) == ["out.failed.ipynb"]


def test_braces_in_a_path_are_a_path(study: Path) -> None:
    target = study / "{seed}" / "a{b}.ipynb"
    runs.run("04", output=target)
    assert _left(target.parent) == ["a{b}.ipynb", "result.json"]
    assert str(target) in nbformat.read(target, as_version=4).metadata.papermill.output_path


def test_a_relative_place_is_the_same_place_for_the_notebook(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study)
    monkeypatch.setenv("SNR_CACHE", "near")
    code = (
        "from snrlib.utils.files import data_folder; from snrlib.notebooks.inside import record\n"
        "record({'cache': str(data_folder('cache'))})"
    )
    _write(study / "notebooks" / "05_place.ipynb", "seed: int = 0  # of the draws", code)
    assert runs.run("05")["metrics"]["cache"] == str(study / "near")


def test_a_notebook_of_another_folder_is_not_taken_for_ours(study: Path) -> None:
    assert parameters(str(study / "notebooks" / "04_other.ipynb"))
    with pytest.raises(ValueError, match=r"no notebook '/elsewhere/04_other\.ipynb'"):
        runs.run("/elsewhere/04_other.ipynb")


def test_without_notebooks_the_command_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    for command in ("list", "study"):
        assert main([command]) == 2
        assert f"no notebooks in {tmp_path / 'notebooks'}" in capsys.readouterr().err


def test_an_unknown_notebook_is_refused_with_the_list(study: Path) -> None:
    with pytest.raises(ValueError, match="no notebook '07'; there are: 03_small, 04_other"):
        runs.run("07")


def test_list_and_params_say_what_there_is(study: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["list"]) == 0
    assert main(["params", "03"]) == 0
    out = capsys.readouterr().out
    assert "03_small" in out
    assert "What is it?" in out
    assert "sigma2: float = 0.5  variance of the noise  [0.01 to 10]" in out
    assert "name: str = 'snr'  which one  [snr | euclidean]" in out


def test_a_reader_that_has_seen_enough_is_no_error(study: Path) -> None:
    command = f"{sys.executable} -m snrlib params 03 | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stderr == ""


def test_a_failing_notebook_leaves_a_partial_copy_under_a_name_that_says_so(
    study: Path, capsys: pytest.CaptureFixture
) -> None:
    target = study / "o" / "out.ipynb"
    assert main(["run", "03", "-p", "name=euclidean", "-o", str(target)]) == 1
    assert _left(target.parent) == ["out.failed.ipynb"]
    err = capsys.readouterr().err
    assert "RuntimeError: this cell raises" in err
    assert "out.failed.ipynb" in err
    assert main(["run", "03", "-o", str(target)]) == 0
    assert _left(target.parent) == ["out.ipynb", "result.json"], "a success clears the failed copy"


def test_a_failing_rerun_keeps_the_earlier_result(study: Path) -> None:
    row = runs.run("03")
    _write(study / "notebooks" / "03_small.ipynb", PARAMETERS, "raise RuntimeError('broken now')")
    with pytest.raises(runs.NotebookError, match="broken now"):
        runs.run("03")
    output = Path(row["output"])
    assert json.loads((output.parent / "result.json").read_text())["metrics"] == row["metrics"]
    assert nbformat.read(output, as_version=4).cells[-1].source == BODY.strip()


def test_a_named_output_is_not_replaced_unless_forced(study: Path) -> None:
    target = study / "mine.ipynb"
    target.write_text("precious")
    with pytest.raises(FileExistsError, match=r"mine.ipynb exists; .*--force"):
        runs.run("04", output=target)
    assert target.read_text() == "precious"
    runs.run("04", output=target, force=True)
    assert nbformat.read(target, as_version=4)
    with pytest.raises(FileExistsError, match=r"result.json exists; choose another folder"):
        runs.run("03", output=study / "other.ipynb")
    assert not (study / "other.ipynb").exists()


def test_an_output_is_renewed_only_if_it_is_not_up_to_date(study: Path, capsys: pytest.CaptureFixture) -> None:
    target = study / "o" / "out.ipynb"
    assert main(["run", "04", "-o", str(target), "--renew"]) == 0
    before = target.stat().st_mtime_ns
    assert main(["run", "04", "-o", str(target), "--renew"]) == 0
    assert target.stat().st_mtime_ns == before
    _write(study / "notebooks" / "04_other.ipynb", "seed: int = 0  # of the draws", "print(seed + 1)")
    assert main(["run", "04", "-o", str(target), "--renew"]) == 0
    assert target.stat().st_mtime_ns > before
    assert "04_other: " in capsys.readouterr().out
    assert main(["run", "04", "-p", "seed=7", "-o", str(target), "--renew"]) == 0
    assert json.loads(target.with_name("result.json").read_text())["parameters"]["seed"] == 7, (
        "other values are another run"
    )


def test_the_notebooks_themselves_cannot_be_an_output(study: Path) -> None:
    source = study / "notebooks" / "04_other.ipynb"
    before = source.read_bytes()
    with pytest.raises(FileExistsError, match="choose another folder"):
        runs.run("04", output=source, force=True)
    with pytest.raises(ValueError, match=r"must end in .ipynb, got 'out.json'"):
        runs.run("04", output=study / "out.json")
    assert source.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_an_error_with_its_name(study: Path, capsys: pytest.CaptureFixture) -> None:
    (study / "file").write_text("in the way")
    assert main(["run", "04", "-o", str(study / "file" / "out.ipynb")]) == 2
    assert f"cannot write into {study / 'file'}: " in (err := capsys.readouterr().err)
    assert "SNR_RUNS=FOLDER" in err


def test_the_command_starts_without_the_slow_packages() -> None:
    said = "import sys, snrlib.cli.main; print(sorted({'numpy', 'pandas', 'torch', 'bokeh'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", said], text=True).strip() == "[]"


def _background(study: Path, *arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "SNR_ROOT": str(study), "SNR_RUNS": str(study / "data" / "runs")}
    command = [sys.executable, "-m", "snrlib", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.fixture
def slow_study(study: Path) -> Path:
    """Notebook 04 says that it has begun, then takes its time."""
    _write(
        study / "notebooks" / "04_other.ipynb",
        "seed: int = 0  # of the draws",
        f"import pathlib, time\npathlib.Path({str(study / 'begun')!r}).touch()\ntime.sleep(60)",
    )
    return study


def _wait_for(path: Path, process: subprocess.Popen) -> None:
    for _ in range(600):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    pytest.fail("the notebook did not begin within a minute")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_so_and_leaves_nothing(slow_study: Path, number: int, status: int) -> None:
    process = _background(slow_study, "run", "04")
    _wait_for(slow_study / "begun", process)
    os.killpg(process.pid, number)  # as a terminal's Ctrl-C reaches the whole group
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert status == 143 or "interrupted" in err
    assert "Traceback" not in err
    assert _left(slow_study / "data") == []


def test_a_killed_run_leaves_no_output_and_the_next_one_finishes(slow_study: Path) -> None:
    process = _background(slow_study, "run", "04")
    _wait_for(slow_study / "begun", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    process.communicate()
    output = runs.default_output("04")
    assert not output.exists()
    assert not runs.is_current(output)
    _write(slow_study / "notebooks" / "04_other.ipynb", "seed: int = 0  # of the draws", "print(seed)")
    runs.run("04")
    assert runs.is_current(output)
    assert _left(output.parent) == ["04_other.ipynb", "result.json"], "what the killed run left is gone"


def test_two_runs_never_write_one_output(slow_study: Path) -> None:
    process = _background(slow_study, "run", "04")
    _wait_for(slow_study / "begun", process)
    with pytest.raises(FileExistsError, match="another run is writing"):
        runs.run("04")
    with pytest.raises(FileExistsError, match="another run is writing"):
        runs.run("03", output=runs.default_output("04").with_name("other.ipynb"))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_the_study_runs_what_is_not_up_to_date_and_goes_on_after_a_failure(
    study: Path, capsys: pytest.CaptureFixture
) -> None:
    _write(study / "notebooks" / "01_broken.ipynb", "seed: int = 0  # of the draws", "raise RuntimeError('no')")
    assert main(["study"]) == 1
    first = capsys.readouterr()
    assert "2 of 3 notebooks done" in first.out
    assert "Missing: 01_broken: 01_broken failed: cell 2: RuntimeError: no" in first.out
    finished = (runs.default_output("03").parent / "result.json").read_bytes()
    _write(study / "notebooks" / "01_broken.ipynb", "seed: int = 0  # of the draws", "print('mended')")
    assert main(["study"]) == 0
    second = capsys.readouterr()
    assert "3 notebooks, 2 up to date" in second.out
    assert "3 of 3 notebooks done" in second.out
    assert "make lab" in second.out
    assert (runs.default_output("03").parent / "result.json").read_bytes() == finished


def test_a_changed_notebook_or_a_damaged_result_is_not_up_to_date(study: Path) -> None:
    output = Path(runs.run("04")["output"])
    assert runs.is_current(output)
    _write(study / "notebooks" / "04_other.ipynb", "seed: int = 0  # of the draws", "print(seed + 1)")
    assert not runs.is_current(output)
    runs.run("04")
    for damage in ("{", "[]", "{}", ""):
        (output.parent / "result.json").write_text(damage)
        assert not runs.is_current(output)


# --- files of a notebook's own, and checkpoints -----------------------------------------------------------------------

WRITES = """
import os, pathlib
from snrlib.notebooks.inside import checkpoint_folder, files_folder
folder = files_folder()
(folder / "scores.csv").write_text(f"seed {seed}")
(folder / "figures").mkdir()
(folder / "figures" / "one.txt").write_text(f"figure {seed}")
beside = [path.name for path in folder.parent.iterdir() if not path.name.startswith(".")]
pathlib.Path(os.environ["SNR_ROOT"], f"beside-{seed}").write_text(" ".join(sorted(beside)))
if seed == 13:
    raise RuntimeError("unlucky")
"""
OUTPUTS = ["05_files.ipynb", "figures/one.txt", "result.json", "scores.csv"]


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run cells in this process: a kernel takes a second to start, and most of these tests are about folders."""

    def papermill_here(source: Path, values: dict, output: Path, progress: bool, places: dict[str, str]) -> str:
        notebook = nbformat.read(source, as_version=4)
        notebook.metadata["papermill"] = nbformat.from_dict({})
        names: dict = {}
        with pytest.MonkeyPatch.context() as environment:
            for name, value in places.items():
                environment.setenv(name, value)
            try:
                for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
                    exec(cell.source, names)
                    names |= values
                    cell.execution_count = 1
            except RuntimeError as error:
                return str(error)
            finally:
                nbformat.write(notebook, output)
        return ""

    monkeypatch.setattr(runs, "_papermill", papermill_here)


@pytest.fixture
def files_study(study: Path) -> Path:
    """A study whose notebook 05 writes files of its own."""
    _write(study / "notebooks" / "05_files.ipynb", "seed: int = 0  # of the draws", WRITES)
    return study


def test_files_of_a_notebook_appear_beside_its_output_when_it_is_whole(files_study: Path) -> None:
    target = files_study / "o" / "05_files.ipynb"
    runs.run("05", output=target)
    assert (files_study / "beside-0").read_text() == "", "nothing was there while it ran"
    assert _left(target.parent) == OUTPUTS
    assert (target.parent / "scores.csv").read_text() == "seed 0"
    runs.run("05", {"seed": 1}, output=target, force=True)
    assert (files_study / "beside-1").read_text() == "05_files.ipynb figures result.json scores.csv"
    assert _left(target.parent) == OUTPUTS
    assert (target.parent / "scores.csv").read_text() == "seed 1"
    assert (target.parent / "figures" / "one.txt").read_text() == "figure 1"


def test_a_failed_run_leaves_the_files_before_it_and_none_of_its_own(files_study: Path, no_kernel: None) -> None:
    target = files_study / "o" / "05_files.ipynb"
    with pytest.raises(runs.NotebookError, match="unlucky"):
        runs.run("05", {"seed": 13}, output=target)
    assert _left(target.parent) == ["05_files.failed.ipynb"]
    runs.run("05", output=target)
    before = {name: (target.parent / name).read_bytes() for name in OUTPUTS}
    with pytest.raises(runs.NotebookError, match="unlucky"):
        runs.run("05", {"seed": 13}, output=target, force=True)
    assert _left(target.parent) == sorted([*OUTPUTS, "05_files.failed.ipynb"])
    assert {name: (target.parent / name).read_bytes() for name in OUTPUTS} == before


def test_files_of_the_user_in_the_folder_of_an_output_are_never_deleted(files_study: Path, no_kernel: None) -> None:
    target = files_study / "o" / "05_files.ipynb"
    mine = ["notes.txt", "figures/mine.txt", ".hidden", "model.pt", "result.txt", "checkpoints/last.pt"]
    for name in mine:
        (target.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (target.parent / name).write_text("precious")
    for values in ({"seed": 0}, {"seed": 13}, {"seed": 1}):
        try:
            runs.run("05", values, output=target, force=True)
        except runs.NotebookError:
            assert values == {"seed": 13}
    assert all((target.parent / name).read_text() == "precious" for name in mine)
    assert _left(target.parent) == sorted([*OUTPUTS, *mine])


def test_a_killed_run_leaves_the_files_before_it(files_study: Path) -> None:
    target = files_study / "o" / "05_files.ipynb"
    runs.run("05", output=target)
    before = {name: (target.parent / name).read_bytes() for name in OUTPUTS}
    begun = files_study / "begun"
    slow = f"{WRITES}\nimport time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(60)"
    _write(files_study / "notebooks" / "05_files.ipynb", "seed: int = 0  # of the draws", slow)
    process = _background(files_study, "run", "05", "-o", str(target), "--force")
    _wait_for(begun, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert {name: (target.parent / name).read_bytes() for name in OUTPUTS} == before
    shown = [path.name for path in target.parent.iterdir() if not path.name.startswith(".")]
    assert sorted(shown) == ["05_files.ipynb", "figures", "result.json", "scores.csv"]
    _write(files_study / "notebooks" / "05_files.ipynb", "seed: int = 0  # of the draws", WRITES)
    runs.run("05", output=target, force=True)
    assert _left(target.parent) == OUTPUTS, "what the killed run left is gone"


COUNTS = """
import os, time, pathlib
from snrlib.notebooks.inside import checkpoint_folder
folder = checkpoint_folder()
folder.mkdir(parents=True, exist_ok=True)
log = folder / "log"
started = log.read_text() if log.exists() else ""
log.write_text(started + "x")
pathlib.Path(os.environ["SNR_ROOT"], "seen").write_text(str(len(started)))
if seed == 13 and len(started) < 2:
    raise RuntimeError("unlucky")
"""


@pytest.fixture
def counting_study(study: Path) -> Path:
    """A study whose notebook 05 counts its starts in the folder of its checkpoints; with seed 13 the third succeeds."""
    _write(study / "notebooks" / "05_counts.ipynb", "seed: int = 0  # of the draws", COUNTS)
    return study


def test_checkpoints_outlive_a_failed_run_and_go_with_a_finished_one(counting_study: Path, no_kernel: None) -> None:
    for _ in range(2):
        with pytest.raises(runs.NotebookError, match="unlucky"):
            runs.run("05", {"seed": 13})
    row = runs.run("05", {"seed": 13})
    assert (counting_study / "seen").read_text() == "2"
    assert _left(Path(row["output"]).parent) == ["05_counts.ipynb", "result.json"]
    with pytest.raises(runs.NotebookError, match="unlucky"):
        runs.run("05", {"seed": 13})  # from the beginning again


def test_checkpoints_outlive_a_killed_run(counting_study: Path) -> None:
    begun = counting_study / "begun"
    slow = f"{COUNTS}\nif not started:\n    pathlib.Path({str(begun)!r}).touch()\n    time.sleep(60)"
    _write(counting_study / "notebooks" / "05_counts.ipynb", "seed: int = 0  # of the draws", slow)
    process = _background(counting_study, "run", "05")
    _wait_for(begun, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    runs.run("05")
    assert (counting_study / "seen").read_text() == "1"


def test_checkpoints_of_another_notebook_library_or_choice_are_not_gone_on_from(
    counting_study: Path, no_kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = counting_study / "o" / "05_counts.ipynb"

    def unlucky() -> None:
        with pytest.raises(runs.NotebookError, match="unlucky"):
            runs.run("05", {"seed": 13}, output=target, force=True)

    unlucky()
    runs.run("05", {"seed": 1}, output=target, force=True)
    assert (counting_study / "seen").read_text() == "0", "other parameters"
    unlucky()
    _write(counting_study / "notebooks" / "05_counts.ipynb", "seed: int = 0  # of the draws", COUNTS + "\n# changed")
    unlucky()
    assert (counting_study / "seen").read_text() == "0", "another notebook"
    changed = runs.source_fingerprint
    monkeypatch.setattr(runs, "source_fingerprint", lambda notebook: changed(notebook)[::-1])
    unlucky()
    assert (counting_study / "seen").read_text() == "0", "another library"
    unlucky()
    runs.run("05", {"seed": 13}, output=target, force=True)
    assert (counting_study / "seen").read_text() == "2"
    assert _left(target.parent) == ["05_counts.ipynb", "result.json"], "the outdated ones are gone"


def test_by_hand_files_go_to_a_folder_of_their_own_and_nothing_is_a_checkpoint(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SNR_RUN_FILES", "SNR_RUN_CHECKPOINTS"):
        monkeypatch.delenv(name, raising=False)
    assert files_folder() == study / "data" / "runs" / "by_hand"
    assert checkpoint_folder() is None


@pytest.mark.parametrize("seed", [0, 13])
def test_the_places_of_a_run_are_restored_after_it(
    files_study: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    def once() -> None:
        try:
            runs.run("05", {"seed": seed})
        except runs.NotebookError:
            assert seed == 13

    for name in ("SNR_RUN_FILES", "SNR_RUN_CHECKPOINTS"):
        monkeypatch.delenv(name, raising=False)
    once()
    assert not {"SNR_RUN_FILES", "SNR_RUN_CHECKPOINTS"} & os.environ.keys()
    monkeypatch.setenv("SNR_RUN_FILES", "/of/the/outer/run")
    monkeypatch.setenv("SNR_RUN_CHECKPOINTS", "/of/the/outer/run/too")
    once()
    assert os.environ["SNR_RUN_FILES"] == "/of/the/outer/run"
    assert os.environ["SNR_RUN_CHECKPOINTS"] == "/of/the/outer/run/too"
