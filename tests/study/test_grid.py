"""The grid: only cells that can be, each run once, and none taken for finished that is not."""

import contextlib
import csv
import json
import logging
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from snakemake.logging import LogEvent
from snrlib.study.progress import Progress

from snrlib.cli.main import main
from snrlib.cli.notebooks import values_of
from snrlib.notebooks import run as runs
from snrlib.notebooks.find import find_notebook
from snrlib.study import grid
from snrlib.study import workflow as study

AXES = {"data": ["digits"], "backbone": ["conv4"], "distance": ["euclidean", "snr"], "loss": ["triplet"]}
BLOCK: dict[str, Any] = {**AXES, "seed": [0]}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Path:
    """A study of notebook 05 alone, whose cells record their seed; files beside the study say which ones misbehave."""
    shutil.copy(repository / "Snakefile", tmp_path)
    shutil.copytree(repository / "profiles", tmp_path / "profiles")
    real = nbformat.read(repository / "notebooks" / "05_train.ipynb", as_version=4)
    (head,) = [cell for cell in real.cells if "parameters" in cell.metadata.get("tags", [])]
    body = """
import os, pathlib, threading, time
from snrlib.notebooks.inside import record
root = pathlib.Path(os.environ["SNR_ROOT"])
with open(root / "starts", "a") as log:
    log.write(f"{seed} {os.getpid()} {os.environ.get('OMP_NUM_THREADS')}\\n")
if (root / f"raise-{seed}").exists():
    raise ValueError("a cell that raises")
while (root / f"hold-{seed}").exists():
    time.sleep(0.05)
record({"training distance: precision_at_1": seed / 10, "snr, anchor ref: precision_at_1": 0.5})
"""
    cells = [new_markdown_cell("# What is it?"), new_code_cell(head.source, metadata={"tags": ["parameters"]})]
    notebook = new_notebook(cells=[*cells, new_code_cell(body)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "05_train.ipynb")
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    monkeypatch.setenv("SNR_RUNS", str(tmp_path / "data" / "runs"))
    _profile(tmp_path, BLOCK)
    return tmp_path


def _profile(root: Path, *blocks: Any, name: str = "quick") -> None:
    (root / "study.yaml").write_text(yaml.safe_dump({"profiles": {name: list(blocks)}}))


# --- study.yaml -------------------------------------------------------------------------------------------------------


def test_every_profile_of_the_study_can_be(repository: Path) -> None:
    assert set(grid.profiles()) == {"smoke", "quick", "full", "paper"}
    for profile in grid.profiles():
        grid.check([task for task in grid.cells(profile) if task.values["seed"] == 0])
    smoke = grid.cells("smoke")
    assert [(cell.values["data"], cell.values["backbone"]) for cell in smoke] == [("digits", "conv4")] * 2
    assert {cell.values["seed"] for name in ("full", "paper") for cell in grid.cells(name)} == {0, 1, 2, 3, 4}
    photographs = [cell for cell in grid.cells("paper") if cell.values["backbone"] == "resnet50"]
    assert {cell.values["weights"] for cell in photographs} == {"imagenet"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("profiles: [", "study.yaml: while parsing"),
        ("{}", "study.yaml, at its top: 'profiles' is a required property"),
        ("profiles: {}", "study.yaml, profiles: "),
        (
            {"quick": [{**BLOCK, "datta": ["digits"]}]},
            r"study.yaml, profiles.quick.0: .*'datta' was unexpected.*; a block",
        ),
        ({"quick": [BLOCK, AXES]}, "study.yaml, profiles.quick.1: 'seed' is a required property"),
        ({"quick": [{**BLOCK, "seed": ["0"]}]}, "study.yaml, profiles.quick.0.seed.0: '0' is not of type 'integer'"),
        ({"quick": [{**BLOCK, "loss": []}]}, r"study.yaml, profiles.quick.0.loss: \[\] should be non-empty"),
        ({"quick": [{**BLOCK, "loss": "triplet"}]}, "'triplet' is not of type 'array'"),
        ({"quick": [{**BLOCK, "settings": {"loss": "lifted"}}]}, "study.yaml, profiles.quick.0.settings: 'loss'"),
        ({"quick": [{**BLOCK, "settings": {"steps": [1, 2]}}]}, "study.yaml, profiles.quick.0.settings.steps: "),
    ],
)
def test_a_study_that_does_not_fit_the_schema_is_refused(
    root: Path, content: Any, message: str, capsys: pytest.CaptureFixture
) -> None:
    text = content if isinstance(content, str) else yaml.safe_dump({"profiles": content})
    (root / "study.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        grid.profiles()
    assert main(["study"]) == 2
    assert "study.yaml" in capsys.readouterr().err
    assert not (root / "data").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distance": ["euclid"]}, "distance must be one of euclidean, .*snr.*; got 'euclid'"),
        ({"data": ["mnist"]}, "data must be one of glyphs, digits, .*; got 'mnist'"),
        ({"seed": [-1]}, "seed must be from 0 to"),
        ({"settings": {"step": 10}}, "05_train has no parameter step; valid: data, .*steps"),
        ({"settings": {"steps": 10.5}}, "steps must be int, got 10.5"),
        (
            {"settings": {"weights": "imagenet"}},
            "conv4-euclidean-.* cannot be: conv4 has no ImageNet weights; .*resnet18",
        ),
        ({"settings": {"weights": "w.pth"}}, r"cannot be: its weights, .*w\.pth, are not there"),
        ({"backbone": ["linear"]}, "backbone must be one of|features go with backbone linear and images with another"),
    ],
)
def test_a_cell_that_cannot_be_is_refused_before_anything_runs(
    root: Path, change: dict, message: str, capsys: pytest.CaptureFixture
) -> None:
    _profile(root, BLOCK, {**BLOCK, **change})
    with pytest.raises(ValueError, match=message):
        grid.check(grid.cells("quick"))
    for more in ([], ["--dry-run"]):
        assert main(["study", *more]) == 2
        assert capsys.readouterr().err.startswith("snr: ")
    assert not (root / "data").exists()


def test_an_unknown_profile_or_number_of_cores_is_refused(root: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["study", "--profile", "huge"]) == 2
    assert "unknown profile 'huge'; study.yaml has quick" in capsys.readouterr().err
    assert main(["study", "--cores", "0"]) == 2
    assert "--cores must be positive" in capsys.readouterr().err
    (root / "study.yaml").unlink()
    assert main(["study"]) == 2
    assert f"no study.yaml in {root}" in capsys.readouterr().err


def test_a_run_has_one_folder_that_its_name_tells(root: Path) -> None:
    _profile(root, BLOCK, {**BLOCK, "settings": {"steps": 0, "margin": -1}}, {**BLOCK, "settings": {"steps": 5}})
    names = [cell.name for cell in grid.cells("quick")]
    assert names == [
        "grid/digits-conv4-euclidean-triplet-seed=0",
        "grid/digits-conv4-snr-triplet-seed=0",
        "grid/digits-conv4-euclidean-triplet-steps=5-seed=0",
        "grid/digits-conv4-snr-triplet-steps=5-seed=0",
    ]
    assert grid.cells("quick")[0].output == root / "data" / "runs" / names[0] / "05_train.ipynb"
    _profile(root, {**BLOCK, "settings": {"margin": 1}})
    _profile(root, {**BLOCK, "settings": {"margin": 1.0}}, name="other")
    assert grid.cells("other")[0].name == "grid/digits-conv4-euclidean-triplet-margin=1.0-seed=0"
    for folder in ("a", "b"):
        (root / folder).mkdir()
        (root / folder / "my weights.pt").touch()
    _profile(root, *({**BLOCK, "settings": {"weights": f"{folder}/my weights.pt"}} for folder in "ab"))
    found = grid.cells("quick")
    assert len({cell.name for cell in found}) == 4
    assert all("weights=my_weights.pt." in cell.name for cell in found)
    assert found[0].values["weights"] == str(root / "a" / "my weights.pt"), "as seen from the study"
    grid.check(found)


def test_the_command_of_a_cell_is_what_the_runner_understands(root: Path) -> None:
    settings = {"normalize_embeddings": True, "margin": 0.3, "steps": 7, "root": "some where"}
    _profile(root, {**BLOCK, "settings": settings})
    cell = grid.cells("quick")[0]
    command = cell.command()
    assert command[1:5] == ["-m", "snrlib", "run", "05_train"]
    given = [text for flag, text in pairwise(command) if flag == "-p"]
    assert values_of("05", given) == cell.values == {**settings, **{key: BLOCK[key][0] for key in BLOCK}}
    assert command[-3:] == ["-o", str(cell.output), "--renew"]
    assert cell.command(force=True)[-1] == "--force"


# --- state ------------------------------------------------------------------------------------------------------------


def _finish(task: grid.Task, **changes: Any) -> None:
    task.output.parent.mkdir(parents=True, exist_ok=True)
    task.output.write_text("{}")
    chosen = {key: known.default for key, known in runs.parameters("05").items()} | task.values
    row: dict[str, Any] = {
        "notebook": "05_train",
        "parameters": chosen,
        "source": runs.source_fingerprint(find_notebook("05")),
    }
    row |= {"metrics": {}, "wall_time_s": 1.0, "git_commit": None, "finished": "now"}
    runs.result_path(task.output).write_text(json.dumps(row | changes))


def test_finished_is_what_the_notebook_as_it_is_now_has_run_with_these_values(root: Path) -> None:
    first, second = grid.cells("quick")
    _finish(first)
    found = grid.Grid("quick")
    assert [task.name for task in found.to_do()] == [second.name, "05_train/default"]
    assert [task.name for task in grid.Grid("quick", force=True).to_do()] == list(found.tasks)
    _finish(second, parameters={**second.values, "seed": 9})
    assert grid.Grid("quick").row(second) is None, "another seed's"
    _finish(second, source="0" * 16)
    assert (
        grid.Grid("quick").missing()[second.name]
        == "its result is of other values, or of an earlier notebook or library"
    )
    second.output.unlink()
    _finish(first)
    runs.result_path(first.output).write_text("{")
    assert grid.Grid("quick").row(first) is None


def test_a_cell_without_its_images_is_not_tried_and_said_to_be_missing(
    root: Path, capsys: pytest.CaptureFixture
) -> None:
    _profile(root, {**BLOCK, "data": ["omniglot"]}, BLOCK)
    found = grid.Grid("quick")
    assert [task.values.get("data") for task in found.to_do()] == ["digits", "digits", None]
    missing = found.missing()
    assert "`snr data fetch omniglot`" in missing["grid/omniglot-conv4-snr-triplet-seed=0"]
    assert main(["study", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "Profile quick: 4 cells, 0 up to date; 1 notebooks, 0 up to date. Nothing is run." in out
    assert "2 cells of omniglot with conv4: 2 distances, 1 loss, 1 seed; omniglot is not in" in out
    assert "absent   grid/omniglot-conv4-snr-triplet-seed=0" in out
    assert "to do    grid/digits-conv4-snr-triplet-seed=0" in out
    assert "to do    05_train" in out
    assert not (root / "data").exists()


def test_the_summary_has_a_row_a_finished_cell_and_the_reasons_of_the_others(root: Path) -> None:
    _profile(root, {**BLOCK, "seed": [0, 1]})
    first, second, third, _ = grid.cells("quick")
    scores = {"training distance, anchor query: precision_at_1": 0.5, "euclidean: precision_at_1": 0.4}
    _finish(first, metrics={**scores, "setting margin": 0.3, "setting loss": "triplet", "flops": 7})
    second.log.parent.mkdir(parents=True)
    second.log.write_text("snr: 05_train failed: cell 3: ValueError: no\nThe partial copy is there\n")
    third.log.parent.mkdir(parents=True)
    third.log.write_text("")
    path = study.summarize(grid.Grid("quick"))
    assert path == root / "data" / "runs" / "grid" / "quick.csv"
    (row,) = _rows(path)
    assert row["cell"] == "digits-conv4-euclidean-triplet-seed=0"
    assert (row["precision_at_1"], row["euclidean: precision_at_1"], row["margin"], row["flops"]) == (
        "0.5",
        "0.4",
        "0.3",
        "7",
    )
    assert (row["loss"], row["distance"], row["seed"], row["wall_time_s"]) == ("triplet", "euclidean", "0", "1.0")
    missing = {row["cell"]: row["why"] for row in _rows(path.with_suffix(".missing.csv"))}
    assert list(missing.values()) == ["05_train failed: cell 3: ValueError: no", *["it did not run to its end"] * 2]
    for task in grid.cells("quick"):
        _finish(task)
    study.summarize(grid.Grid("quick"))
    assert len(_rows(path)) == 4
    assert path.with_suffix(".missing.csv").read_text() == "cell,why\n"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def _event(event: LogEvent, **content: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"event": event, **content})


def test_the_progress_line_counts_what_is_done_fails_and_runs() -> None:
    progress = Progress(5)
    progress._over = True
    for job in (1, 2, 3):
        progress.emit(_event(LogEvent.JOB_INFO, jobid=job, rule_name="cell"))
    progress.emit(_event(LogEvent.JOB_INFO, jobid=9, rule_name="all"))
    assert progress.line() == "0 of 5 done, 3 running, 2 to go"
    progress.running = {job: since - 100 for job, since in progress.running.items()}
    progress.emit(_event(LogEvent.JOB_FINISHED, job_id=1))
    progress.emit(_event(LogEvent.JOB_FINISHED, job_id=9))
    assert progress.line() == "1 of 5 done, 2 running, 2 to go, about 2 min left"
    progress.emit(_event(LogEvent.JOB_ERROR, jobid=2))
    assert progress.line().startswith("1 of 5 done, 1 failed, 1 running, 2 to go, about 3 min")
    progress.emit(_event(LogEvent.JOB_INFO, jobid=2, rule_name="cell"))
    progress.emit(_event(LogEvent.JOB_FINISHED, job_id=2))
    progress.emit(_event(LogEvent.JOB_ERROR, jobid=2))
    assert progress.line().startswith("2 of 5 done, 1 running, 2 to go")


# --- real studies, of small cells, and what can befall them -----------------------------------------------------------

slow = pytest.mark.slow


def _start(root: Path, *arguments: str, **options: Any) -> subprocess.Popen:
    command = [sys.executable, "-m", "snrlib", "study", *arguments]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen(command, **piped)


def _study(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    process = _start(root, *arguments)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _starts(root: Path) -> list[list[str]]:
    path = root / "starts"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def _until(condition: Callable[[], Any], process: subprocess.Popen | None = None) -> Any:
    for _ in range(1800):
        if found := condition():
            return found
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.1)
    pytest.fail("it did not happen within three minutes")


def _processes(*words: str) -> list[int]:
    """Processes whose command line has all these words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if all(word in line for word in words) and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found


def _kernels(root: Path) -> list[int]:
    found = []
    for pid in _processes("ipykernel_launcher"):
        try:
            if f"SNR_ROOT={root}".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def _kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _results(root: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in root.rglob("result.json")}


def _whole_rows(root: Path) -> int:
    """How many result rows there are, each whole and with a whole notebook."""
    paths = list(root.rglob("result.json"))
    for path in paths:
        assert json.loads(path.read_text())["metrics"]
        assert nbformat.read(path.with_name("05_train.ipynb"), as_version=4)
    return len(paths)


def _whole(root: Path) -> None:
    """Whatever has a result row has all of it, and nothing else looks finished."""
    _whole_rows(root)
    for path in (root / "data" / "runs").rglob("05_train.ipynb"):
        assert path.with_name("result.json").exists()


SEEDS = {**BLOCK, "distance": ["snr"], "seed": [1, 2, 3]}


@slow
def test_a_cell_that_raises_is_missing_with_its_reason_and_the_rest_goes_on(root: Path) -> None:
    _profile(root, SEEDS)
    (root / "raise-2").touch()
    first = _study(root, "--cores", "2")
    assert first.returncode == 1, first
    assert "2 of 3 cells and 1 of 1 notebooks done" in first.stdout
    assert "Missing: grid/digits-conv4-snr-triplet-seed=2: 05_train failed: cell " in first.stdout
    assert "ValueError: a cell that raises" in first.stdout
    assert "Traceback" not in first.stdout + first.stderr
    assert [start[0] for start in _starts(root)].count("2") == 2, "tried once more"
    assert {start[2] for start in _starts(root)} == {"1"}, "a thread each"
    table = root / "data" / "runs" / "grid" / "quick.csv"
    assert [row["precision_at_1"] for row in _rows(table)] == ["0.1", "0.3"]
    (missing,) = _rows(table.with_suffix(".missing.csv"))
    assert missing["why"].endswith("ValueError: a cell that raises")
    page = (root / "data" / "runs" / "report" / "index.html").read_text()
    assert "Profile quick: 2 of 3 cells done" in page
    assert f"<li>1 cell: {missing['why']}\n<ul><li><code>digits-conv4-snr-triplet-seed=2</code>" in page
    before = _results(root)
    (root / "raise-2").unlink()
    second = _study(root)
    assert second.returncode == 0, second
    assert "3 of 3 cells and 1 of 1 notebooks done" in second.stdout
    after = _results(root)
    assert len(after) == 4
    assert before.items() <= after.items(), "what was finished is as it was"
    third = _study(root)
    assert "3 cells, 3 up to date; 1 notebooks, 1 up to date" in third.stdout
    assert _results(root) == after
    (root / "raise-1").touch()
    forced = _study(root, "--force")
    assert forced.returncode == 1
    assert "Missing: grid/digits-conv4-snr-triplet-seed=1: 05_train failed" in forced.stdout
    assert len(_starts(root)) == (3 + 1 + 1) + 1 + (4 + 1)
    kept = {name for name, written in _results(root).items() if after[name] == written}
    assert kept == {"digits-conv4-snr-triplet-seed=1"}, "of a run that failed the old result is kept"


@slow
@pytest.mark.parametrize("which", ["everything", "the study", "snakemake"])
def test_a_grid_that_is_killed_goes_on_with_what_is_missing(
    root: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/proc/none")  # which nobody can write
    process, finished = _all_but_one(root, root)
    if which == "snakemake":
        _kill(_processes("-m\0snakemake", str(root)))
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "2 of 3 cells and 1 of 1 notebooks done" in out
        assert not _kernels(root)
    elif which == "everything":
        runs = _processes("snakemake", str(root)) + _processes("snrlib", str(root))
        _kill([process.pid, *runs, *_kernels(root)])
        process.communicate()
        assert list((root / "data" / "runs" / ".snakemake" / "locks").iterdir()), "its locks are still there"
    else:
        process.kill()
    assert _results(root) == finished
    assert (root / "data" / "runs" / "grid" / "quick.missing.csv").exists(), "which tells the page of this profile"
    again = _start(root)  # it may have to wait for runs that are about to end
    _until(lambda: [start[0] for start in _starts(root)].count("2") == 2, again)
    assert len(_kernels(root)) == 1, "the first one's has ended"
    (root / "hold-2").unlink()
    out, err = again.communicate(timeout=180)
    assert again.returncode == 0, out + err
    assert "3 of 3 cells and 1 of 1 notebooks done" in out
    assert finished.items() <= _results(root).items(), "what was finished is as it was"
    assert len(_starts(root)) == 5, "and was not begun again"
    _whole(root)
    process.communicate()


def _all_but_one(root: Path, place: Path) -> tuple[subprocess.Popen, dict[str, int]]:
    """A study in which all is finished but the cell of seed 2, which goes on until its file is gone; the results."""
    _profile(root, SEEDS)
    (root / "hold-2").touch()
    process = _start(root, "--cores", "2")
    _until(lambda: len(_starts(root)) == 4 and len(_results(place)) == 3, process)
    _until(lambda: len(_kernels(root)) == 1, process)
    return process, _results(place)


@slow
def test_a_full_disk_is_said_and_the_next_study_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = root / "small disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        monkeypatch.setenv("SNR_RUNS", str(place / "runs"))
        process, finished = _all_but_one(root, place)
        _fill(place / "ballast")
        (root / "hold-2").unlink()
        out, err = process.communicate(timeout=180)
        assert process.returncode == 2, out + err
        assert "Missing: grid/digits-conv4-snr-triplet-seed=2: " in out
        assert f"snr: cannot write into {place / 'runs' / 'grid'}: No space left on device. Free some, then" in err
        assert "Traceback" not in out + err
        assert _results(place) == finished
        assert _whole_rows(place) == len(finished)
        before = len(_starts(root))
        refused = _study(root)
        assert (refused.returncode, refused.stdout) == (2, ""), refused
        assert refused.stderr.startswith(f"snr: cannot write into {place / 'runs' / 'grid'}: No space left on device.")
        (place / "ballast").unlink()
        again = _study(root)
        assert again.returncode == 0, again
        assert "3 of 3 cells and 1 of 1 notebooks done" in again.stdout
        assert finished.items() <= _results(place).items()
        assert [start[0] for start in _starts(root)[before:]] == ["2"]
        assert _whole_rows(place) == 4
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (2**16, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


@slow
def test_a_cell_or_kernel_that_is_killed_is_tried_once_more_then_missing(root: Path) -> None:
    """The process of seed 1 and the kernel of seed 2."""
    _profile(root, SEEDS)
    for seed in (1, 2):
        (root / f"hold-{seed}").touch()

    def starts(seed: int) -> int:
        return [start[0] for start in _starts(root)].count(str(seed))

    def kill(process: subprocess.Popen, attempt: int) -> None:
        _until(lambda: starts(1) == attempt, process)
        _kill([pid for pid in _processes("snrlib\0run", str(root), "seed=1\0") if "bash" not in _name(pid)])
        _until(lambda: starts(2) == attempt, process)
        _kill([int(pid) for seed, pid, _ in _starts(root) if seed == "2"][-1:])

    process = _start(root, "--cores", "3")
    for attempt in (1, 2):
        kill(process, attempt)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "1 of 3 cells and 1 of 1 notebooks done" in out
    assert "seed=1: it ended with status 137; 137 is a kill" in out, out
    assert re.search("seed=2: .*DeadKernelError", out), out
    assert not _kernels(root)
    _whole(root)
    before = _results(root)
    process = _start(root, "--cores", "2")
    kill(process, 3)
    _until(lambda: starts(1) == starts(2) == 4, process)
    for seed in (1, 2):
        (root / f"hold-{seed}").unlink()
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0, out
    assert before.items() <= _results(root).items()
    _whole(root)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


@slow
def test_a_second_study_of_the_same_folder_waits_for_the_first(root: Path) -> None:
    _profile(root, SEEDS)
    (root / "hold-1").touch()
    first = _start(root)
    _until(lambda: _starts(root), first)
    second = _start(root)
    time.sleep(10)
    assert second.poll() is None
    dry = [sys.executable, "-m", "snakemake", "-n", "--quiet"]
    assert subprocess.run(dry, cwd=root, capture_output=True, timeout=60).returncode == 0, "a plan does not wait"
    (root / "hold-1").unlink()
    assert first.wait(timeout=180) == second.wait(timeout=180) == 0
    out, _ = second.communicate()
    assert f"Another study is at work in {root / 'data' / 'runs'}; this one waits for it to end." in out
    assert "3 of 3 cells" in out
    assert len(_starts(root)) == 4, "each was run once"
    first.communicate()


@slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_study_that_is_interrupted_leaves_no_process_and_nothing_half_written(
    root: Path, number: int, status: int
) -> None:
    _profile(root, SEEDS)
    (root / "hold-2").touch()
    process = _start(root, "--cores", "2")
    _until(lambda: "2" in [start[0] for start in _starts(root)], process)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    assert "Traceback" not in err
    assert not _processes("snakemake", str(root)) + _processes("snrlib", str(root)) + _kernels(root)
    _whole(root)
    assert not list((root / "data" / "runs").rglob(".05_train.partial-*"))


@slow
def test_on_a_terminal_one_line_is_renewed(root: Path) -> None:
    _profile(root)
    ours, theirs = pty.openpty()
    process = _start(root, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # its end
        pass
    assert process.wait(timeout=60) == 0
    lines = shown.decode().split("\r\n")
    (renewed,) = [line for line in lines if "running" in line]
    assert "1 of 1 done, 0 running, 0 to go" in renewed.split("\r")[-1]


SBATCH = """#!/bin/sh
for script; do :; done
echo "$@" >> "$SLURM_STUB/submitted"
id=$(wc -l < "$SLURM_STUB/submitted")
(sh "$script" > "$SLURM_STUB/$id.log" 2>&1 && echo COMPLETED > "$SLURM_STUB/$id" || echo FAILED > "$SLURM_STUB/$id") \
  > /dev/null 2>&1 &
echo "$id"
"""
SACCT = """#!/bin/sh
for last; do :; done
cat "$SLURM_STUB/${last#--jobs=}" 2> /dev/null || echo RUNNING
"""


@slow
def test_on_a_cluster_each_cell_is_a_job_of_the_profile(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _profile(root, {**SEEDS, "seed": [1, 3]}, name="full")
    (root / "raise-3").touch()
    stub = root / "slurm"
    stub.mkdir()
    for name, text in (("sbatch", SBATCH), ("sacct", SACCT), ("scancel", "#!/bin/sh\n")):
        (stub / name).write_text(text)
        (stub / name).chmod(0o755)
    monkeypatch.setenv("SLURM_STUB", str(stub))
    monkeypatch.setenv("PATH", f"{stub}:{os.environ['PATH']}")
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm", "--config", "profile=full"]
    faster = ["--seconds-between-status-checks", "1", "--latency-wait", "5"]
    done = subprocess.run([*command, *faster], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    submitted = (stub / "submitted").read_text().splitlines()
    assert len(submitted) == 4, "two cells, one twice, and a notebook"
    assert all("--cpus-per-task=1 --mem=4000M --time=240 --output=.slurm/%j.log" in line for line in submitted)
    table = root / "data" / "runs" / "grid" / "full.csv"
    assert [row["seed"] for row in _rows(table)] == ["1"]
    (missing,) = _rows(table.with_suffix(".missing.csv"))
    assert missing["why"].endswith("ValueError: a cell that raises")
    (root / "raise-3").unlink()
    before = _results(root)
    done = subprocess.run([*command, *faster], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len((stub / "submitted").read_text().splitlines()) == 5
    assert before.items() <= _results(root).items()
    assert (_results(root).keys() - before.keys()) == {"digits-conv4-snr-triplet-seed=3"}


@slow
def test_if_snakemake_cannot_begin_its_own_words_are_shown(root: Path) -> None:
    (root / "Snakefile").write_text("from nowhere import nothing\n")
    done = _study(root)
    assert done.returncode == 1
    assert "snr: snakemake ended with status 1:" in done.stderr
    assert "No module named 'nowhere'" in done.stderr


def test_a_folder_that_cannot_be_written_is_an_error_with_its_name(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (root / "file").write_text("in the way")
    monkeypatch.setenv("SNR_RUNS", str(root / "file"))
    assert main(["study"]) == 2
    err = capsys.readouterr().err
    assert f"cannot write into {root / 'file' / 'grid'}: " in err
    assert "SNR_RUNS=FOLDER chooses another place" in err
