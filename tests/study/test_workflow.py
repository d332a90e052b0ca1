"""The whole study: each cell once, whatever befalls it, on this machine and on a cluster; and what came out."""

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import pytest
from process_cases import kill, processes, until
from study_cases import BLOCK, finish, forked, profile

from snrlib.cli.main import main
from snrlib.report import index
from snrlib.study.grid import NOT_RUN, Grid
from snrlib.study.profiles import Task
from snrlib.study.workflow import summarize

slow = pytest.mark.slow
SNAKEMAKE = [sys.executable, "-m", "snakemake"]


@pytest.fixture(autouse=True)
def _no_pages_to_explore(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which take a while."""
    monkeypatch.setattr(index, "explore_section", lambda: ({}, ""))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_plan_says_all_and_runs_nothing(root: Path, capsys: pytest.CaptureFixture) -> None:
    profile(root, {**BLOCK, "data": ["omniglot"], "loss": ["triplet", "lifted"]}, {**BLOCK, "seed": [0, 1]})
    assert main(["study", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "Profile quick: 8 cells, 0 up to date; 1 notebooks, 0 up to date. Nothing is run." in out
    assert "4 cells of omniglot with conv4: 2 distances, 2 losses, 1 seed; omniglot is not in" in out
    assert "4 cells of digits with conv4: 2 distances, 1 loss, 2 seeds\n" in out
    assert "  8 take the usual margin and learning rate; `snr tune --profile quick` tunes them\n" in out
    assert "absent   grid/omniglot-conv4-snr-triplet-seed=0\n" in out
    assert "to do    grid/digits-conv4-snr-triplet-seed=0\n" in out
    assert "to do    07_train\n" in out
    assert not (root / "data").exists()
    finish(Grid("quick").cells[4])
    assert main(["study", "--dry-run"]) == 0
    assert "finished grid/digits-conv4-euclidean-triplet-seed=0\n" in capsys.readouterr().out


def test_the_summary_has_finished_cells_and_reasons(root: Path) -> None:
    profile(root, {**BLOCK, "seed": [0, 1]})
    first, second, *_ = Grid("quick").cells
    finish(first)
    second.output.parent.mkdir(parents=True)
    second.job().log.write_text("snr: 07_train failed: cell 3: ValueError: no\nThe partial copy is there\n")
    path = summarize(Grid("quick"))
    assert path == root / "data" / "runs" / "grid" / "quick.csv"
    (row,) = _rows(path)
    known = {"cell": "digits-conv4-euclidean-triplet-seed=0", "precision_at_1": "0.5", "margin": "0.3", "flops": "7"}
    assert row.items() >= known.items()
    assert (row["loss"], row["distance"], row["seed"], row["wall_time_s"]) == ("triplet", "euclidean", "0", "1.0")
    missing = [row["why"] for row in _rows(path.with_suffix(".missing.csv"))]
    assert missing == ["07_train failed: cell 3: ValueError: no", NOT_RUN, NOT_RUN]
    for task in Grid("quick").cells:
        finish(task)
    summarize(Grid("quick"))
    assert len(_rows(path)) == 4
    assert path.with_suffix(".missing.csv").read_text() == "cell,why\n"


def test_a_folder_that_cannot_be_written_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (root / "file").write_text("in the way")
    monkeypatch.setenv("SNR_RUNS", str(root / "file"))
    assert main(["study"]) == 2
    err = capsys.readouterr().err
    assert f"cannot write into {root / 'file' / 'grid'}: " in err
    assert "SNR_RUNS=FOLDER chooses another place" in err


# --- real studies, of small cells, and what can befall them -----------------------------------------------------------


def _cells(root: Path, *seeds: int, name: str = "quick") -> list[Task]:
    """The cells of a profile, one per seed; the notebook's own run is finished."""
    profile(root, {**BLOCK, "distance": ["snr"], "seed": list(seeds)}, name=name)
    grid = Grid(name)
    finish(grid.notebooks[0])
    return grid.cells


def _study(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str]:
    status = main(["study", *arguments])
    out, err = capsys.readouterr()
    return status, out + err


def _start(root: Path, name: str = "study") -> tuple[Any, Path]:
    """A study in a process of its own, and what it says."""
    said = root / f"{name}.log"
    return forked(lambda: main(["study", "--cores", "2"]), said), said


def _until(condition: Callable[[], Any], process: Any) -> None:
    until(lambda: condition() or not process.is_alive())
    assert condition(), "the study has ended before"


def _ended(process: Any) -> int | None:
    """Its exit status."""
    process.join(180)
    return process.exitcode


def _starts(root: Path) -> list[list[str]]:
    """Of every cell that has begun: its seed, the kernel's process, and its threads."""
    path = root / "starts"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def _begun(root: Path, seed: int) -> int:
    return [start[0] for start in _starts(root)].count(str(seed))


def _is_begun(root: Path, seed: int, times: int) -> bool:
    return _begun(root, seed) == times


def _at_work(root: Path) -> list[int]:
    """The processes of runs, and their kernels."""
    found = processes("snrlib", str(root))
    for pid in processes("ipykernel_launcher"):
        with contextlib.suppress(OSError):
            if f"SNR_ROOT={root}".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found


def _results(place: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in place.rglob("result.json")}


def _assert_whole(place: Path) -> None:
    """Whatever has a result row has all of it, and nothing else looks finished."""
    for path in place.rglob("grid/*/result.json"):
        assert json.loads(path.read_text())["metrics"]
        assert nbformat.read(path.with_name("07_train.ipynb"), as_version=4)
    for path in (place / "data" / "runs").rglob("07_train.ipynb"):
        assert path.with_name("result.json").exists()


def _all_but_one(root: Path, place: Path) -> tuple[Any, Path, dict[str, int]]:
    """A study in which all is finished but the cell of seed 2, which goes on until its file is gone; the results."""
    _cells(root, 1, 2)
    (root / "hold-2").touch()
    process, said = _start(root)
    _until(lambda: _begun(root, 2) and len(_results(place)) == 2, process)
    return process, said, _results(place)


@slow
def test_a_raising_cell_is_missing_others_go_on(root: Path, capsys: pytest.CaptureFixture) -> None:
    changed, _ = _cells(root, 1, 2)
    row = finish(changed)
    finish(changed, experiment=row["experiment"] | {"files": "others"})
    (root / "raise-2").touch()
    status, said = _study(capsys, "--cores", "2")
    assert status == 1
    assert "1 of 2 cells and 1 of 1 notebooks done" in said
    assert "Missing: grid/digits-conv4-snr-triplet-seed=2: 07_train failed: cell " in said
    assert [_begun(root, seed) for seed in (1, 2)] == [1, 2], "one for its other images; one once more, since it failed"
    assert {start[2] for start in _starts(root)} == {"1"}, "a thread each"
    table = root / "data" / "runs" / "grid" / "quick.csv"
    assert [row["precision_at_1"] for row in _rows(table)] == ["0.1"]
    (missing,) = _rows(table.with_suffix(".missing.csv"))
    assert missing["why"].endswith("ValueError: a cell that raises")
    assert (root / "data" / "runs" / "report" / "index.html").exists()


@slow
def test_a_killed_study_goes_on_to_same_rows(root: Path, capsys: pytest.CaptureFixture) -> None:
    """All of its processes are killed; where only the first is, `test_killed` asks what becomes of the others."""
    process, _, finished = _all_but_one(root, root)
    kill([process.pid, *_at_work(root)])
    until(lambda: not _at_work(root), seconds=60)  # nothing outlives it
    assert _ended(process) == -signal.SIGKILL
    assert _results(root) == finished
    assert (root / "data" / "runs" / "grid" / "quick.missing.csv").exists(), "which tells the page of this profile"
    (root / "hold-2").unlink()
    status, said = _study(capsys)
    assert status == 0
    assert "2 of 2 cells and 1 of 1 notebooks done" in said
    assert finished.items() <= _results(root).items(), "what was finished is as it was"
    assert len(_starts(root)) == 3, "and was not begun again"
    table = root / "data" / "runs" / "grid" / "quick.csv"
    assert [(row["seed"], row["precision_at_1"]) for row in _rows(table)] == [("1", "0.1"), ("2", "0.2")]
    _assert_whole(root)


@slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_study_leaves_no_process_or_half(root: Path, number: int, status: int) -> None:
    _cells(root, 2)
    (root / "hold-2").touch()
    process, said = _start(root)
    _until(lambda: _begun(root, 2), process)
    os.kill(process.pid, number)
    assert _ended(process) == status
    assert "Traceback" not in said.read_text()
    assert not _at_work(root)
    _assert_whole(root)
    assert not list((root / "data" / "runs").rglob(".07_train.partial-*"))


@slow
def test_after_a_full_disk_the_study_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    place = root / "small disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    full = f"snr: cannot write into {place / 'runs' / 'grid'}: No space left on device. Free some, then"
    try:
        monkeypatch.setenv("SNR_RUNS", str(place / "runs"))
        process, log, finished = _all_but_one(root, place)
        with (place / "ballast").open("wb", buffering=0) as ballast:
            while process.is_alive():  # full at once, and again whenever a file goes
                with contextlib.suppress(OSError):
                    while ballast.write(bytes(4096)):
                        pass
                (root / "hold-2").unlink(missing_ok=True)
                time.sleep(0.005)
        assert _ended(process) == 2
        said = log.read_text()
        assert "Missing: grid/digits-conv4-snr-triplet-seed=2: " in said
        assert full in said
        assert "Traceback" not in said
        before = len(_starts(root))
        status, said = _study(capsys)
        assert (status, said[: len(full)]) == (2, full), "and nothing is begun"
        assert _results(place) == finished
        (place / "ballast").unlink()
        status, said = _study(capsys)
        assert status == 0
        assert "2 of 2 cells and 1 of 1 notebooks done" in said
        assert finished.items() <= _results(place).items()
        assert [start[0] for start in _starts(root)[before:]] == ["2"]
        _assert_whole(place)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@slow
def test_a_killed_cell_or_kernel_is_tried_again(root: Path) -> None:
    """The process of seed 1, once, and it is finished; the kernel of seed 2, twice, and it is missing."""
    _cells(root, 1, 2)
    for seed in (1, 2):
        (root / f"hold-{seed}").touch()
    process, said = _start(root)
    _until(partial(_is_begun, root, 1, 1), process)
    kill(processes("-m\0snrlib\0run", str(root), "seed=1\0"))
    _until(partial(_is_begun, root, 1, 2), process)
    (root / "hold-1").unlink()
    for attempt in (1, 2):
        _until(partial(_is_begun, root, 2, attempt), process)
        kill([int(pid) for seed, pid, _ in _starts(root) if seed == "2"][-1:])
    assert _ended(process) == 1
    assert "1 of 2 cells and 1 of 1 notebooks done" in said.read_text()
    assert re.search("seed=2: .*DeadKernelError", said.read_text())
    assert not _at_work(root)
    _assert_whole(root)


@slow
def test_a_second_study_of_the_folder_waits(root: Path) -> None:
    _cells(root, 1)
    (root / "hold-1").touch()
    first, _ = _start(root, "first")
    _until(lambda: _starts(root), first)
    second, said = _start(root, "second")
    waits = f"Another study is at work in {root / 'data' / 'runs'} (process {first.pid} on "
    _until(lambda: said.exists() and waits in said.read_text(), second)
    dry = subprocess.run([*SNAKEMAKE, "-n", "--quiet"], cwd=root, capture_output=True, timeout=120)
    assert dry.returncode == 0, "a plan does not wait"
    assert second.is_alive()
    (root / "hold-1").unlink()
    assert _ended(first) == _ended(second) == 0
    assert "1 of 1 cells" in said.read_text()
    assert len(_starts(root)) == 1, "it was run once"


SBATCH = """#!/bin/sh
for script; do :; done
echo "$@" >> "$SLURM_STUB/submitted"
id=$(wc -l < "$SLURM_STUB/submitted")
(sh "$script" > "$SLURM_STUB/$id.log" 2>&1 && echo COMPLETED > "$SLURM_STUB/$id" || echo FAILED > "$SLURM_STUB/$id") \\
  > /dev/null 2>&1 &
echo "$id"
"""
SACCT = """#!/bin/sh
for last; do :; done
cat "$SLURM_STUB/${last#--jobs=}" 2> /dev/null || echo RUNNING
"""


@slow
def test_on_a_cluster_each_cell_is_a_job(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, other = _cells(root, 1, 3, name="full")
    finish(done)
    (notebook,) = Grid("full").notebooks
    finish(notebook, source="of old")
    before = _results(root)
    (root / "raise-3").touch()
    stub = root / "slurm"
    stub.mkdir()
    for name, text in (("sbatch", SBATCH), ("sacct", SACCT), ("scancel", "#!/bin/sh\n")):
        (stub / name).write_text(text)
        (stub / name).chmod(0o755)
    monkeypatch.setenv("SLURM_STUB", str(stub))
    monkeypatch.setenv("PATH", f"{stub}:{os.environ['PATH']}")
    command = [*SNAKEMAKE, "--workflow-profile", "profiles/slurm", "--config", "profile=full"]
    faster = ["--seconds-between-status-checks", "1", "--latency-wait", "5"]

    def submit() -> tuple[int, list[str], str]:
        """The exit status, all jobs so far, and what was said."""
        told = subprocess.run([*command, *faster], cwd=root, capture_output=True, text=True, timeout=300)
        return told.returncode, (stub / "submitted").read_text().splitlines(), told.stderr

    status, jobs, said = submit()
    assert (status, len(jobs)) == (1, 2 + 1), f"one failed and was tried again; the notebook is a job, too: {said}"
    assert all("--cpus-per-task=1 --mem=4000M --time=240 --output=.slurm/%j.log" in job for job in jobs)
    assert [task.name for task in Grid("full").to_do()] == [other.name]
    assert list(dict(before.items() & _results(root).items())) == [done.output.parent.name]
    table = root / "data" / "runs" / "grid" / "full.csv"
    assert [row["seed"] for row in _rows(table)] == ["1"]
    (missing,) = _rows(table.with_suffix(".missing.csv"))
    assert missing["why"].endswith("ValueError: a cell that raises")
    finish(other)
    status, again, said = submit()
    assert (status, again) == (0, jobs), said
