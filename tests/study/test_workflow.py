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
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import pytest
from process_cases import kill, processes, until
from study_cases import BLOCK, finish, profile

from snrlib.cli.main import main
from snrlib.study.grid import NOT_RUN, Grid
from snrlib.study.workflow import summarize

SEEDS = {**BLOCK, "distance": ["snr"], "seed": [1, 2, 3]}
slow = pytest.mark.slow


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_plan_says_what_would_run_and_runs_nothing(root: Path, capsys: pytest.CaptureFixture) -> None:
    profile(root, {**BLOCK, "data": ["omniglot"], "loss": ["triplet", "lifted"]}, {**BLOCK, "seed": [0, 1]})
    assert main(["study", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "Profile quick: 8 cells, 0 up to date; 1 notebooks, 0 up to date. Nothing is run." in out
    assert "4 cells of omniglot with conv4: 2 distances, 2 losses, 1 seed; omniglot is not in" in out
    assert "4 cells of digits with conv4: 2 distances, 1 loss, 2 seeds\n" in out
    assert "  8 take the usual margin and learning rate; `snr tune --profile quick` tunes them\n" in out
    assert "absent   grid/omniglot-conv4-snr-triplet-seed=0\n" in out
    assert "to do    grid/digits-conv4-snr-triplet-seed=0\n" in out
    assert "to do    05_train\n" in out
    assert not (root / "data").exists()
    finish(Grid("quick").cells[4])
    assert main(["study", "--dry-run"]) == 0
    assert "finished grid/digits-conv4-euclidean-triplet-seed=0\n" in capsys.readouterr().out


def test_the_summary_has_finished_cells_and_reasons(root: Path) -> None:
    profile(root, {**BLOCK, "seed": [0, 1]})
    first, second, *_ = Grid("quick").cells
    finish(first)
    second.output.parent.mkdir(parents=True)
    second.job().log.write_text("snr: 05_train failed: cell 3: ValueError: no\nThe partial copy is there\n")
    path = summarize(Grid("quick"))
    assert path == root / "data" / "runs" / "grid" / "quick.csv"
    (row,) = _rows(path)
    known = {"cell": "digits-conv4-euclidean-triplet-seed=0", "precision_at_1": "0.5", "margin": "0.3", "flops": "7"}
    assert row.items() >= known.items()
    assert (row["loss"], row["distance"], row["seed"], row["wall_time_s"]) == ("triplet", "euclidean", "0", "1.0")
    missing = [row["why"] for row in _rows(path.with_suffix(".missing.csv"))]
    assert missing == ["05_train failed: cell 3: ValueError: no", NOT_RUN, NOT_RUN]
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


def _start(*arguments: str, command: str = "study", **options: Any) -> subprocess.Popen:
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([sys.executable, "-m", "snrlib", command, *arguments], **piped)


def _study(*arguments: str) -> subprocess.CompletedProcess:
    process = _start(*arguments)
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in out + err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _starts(root: Path) -> list[list[str]]:
    """Of every cell that has begun: its seed, the kernel's process, and its threads."""
    path = root / "starts"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def _is_begun(root: Path, seed: int, times: int) -> bool:
    return _begun(root, seed) == times


def _begun(root: Path, seed: int) -> int:
    return [start[0] for start in _starts(root)].count(str(seed))


def _kernels(root: Path) -> list[int]:
    found = []
    for pid in processes("ipykernel_launcher"):
        with contextlib.suppress(OSError):
            if f"SNR_ROOT={root}".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found


def _results(place: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in place.rglob("result.json")}


def _assert_whole(place: Path) -> None:
    """Whatever has a result row has all of it, and nothing else looks finished."""
    for path in place.rglob("result.json"):
        assert json.loads(path.read_text())["metrics"]
        assert nbformat.read(path.with_name("05_train.ipynb"), as_version=4)
    for path in (place / "data" / "runs").rglob("05_train.ipynb"):
        assert path.with_name("result.json").exists()


def _all_but_one(root: Path, place: Path) -> tuple[subprocess.Popen, dict[str, int]]:
    """A study in which all is finished but the cell of seed 2, which goes on until its file is gone; the results."""
    profile(root, SEEDS)
    (root / "hold-2").touch()
    process = _start("--cores", "2")
    until(lambda: len(_starts(root)) == 4 and len(_results(place)) == 3, process)
    until(lambda: len(_kernels(root)) == 1, process)
    return process, _results(place)


@slow
def test_the_smallest_profile_runs_and_runs_no_cell_twice(
    real_root: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real notebook 05 alone, whose own run at its defaults takes too long here."""
    (real_root / "notebooks").unlink()
    (real_root / "notebooks").mkdir()
    name = "notebooks/05_train.ipynb"
    (real_root / name).write_bytes((repository / name).read_bytes())
    (real_root / "study.yaml").write_bytes((repository / "study.yaml").read_bytes())
    finish(Grid("smoke").notebooks[0])
    first = _study("--profile", "smoke")
    assert first.returncode == 0, first
    assert "2 of 2 cells and 1 of 1 notebooks done" in first.stdout
    table = real_root / "data" / "runs" / "grid" / "smoke.csv"
    rows = _rows(table)
    assert [row["distance"] for row in rows] == ["euclidean", "snr"]
    assert all(float(row["precision_at_1"]) > 0.5 and row["best_step"] == "10" for row in rows)
    before = _results(real_root)
    second = _study("--profile", "smoke")
    assert "Profile smoke: 2 cells, 2 up to date; 1 notebooks, 1 up to date" in second.stdout
    assert _results(real_root) == before
    assert _rows(table) == rows


@slow
def test_a_cell_that_raises_is_missing_and_the_rest_goes_on(root: Path) -> None:
    profile(root, SEEDS)
    (root / "raise-2").touch()
    first = _study("--cores", "2")
    assert first.returncode == 1, first
    assert "2 of 3 cells and 1 of 1 notebooks done" in first.stdout
    assert "Missing: grid/digits-conv4-snr-triplet-seed=2: 05_train failed: cell " in first.stdout
    assert "ValueError: a cell that raises" in first.stdout
    assert _begun(root, 2) == 2, "tried once more"
    assert {start[2] for start in _starts(root)} == {"1"}, "a thread each"
    table = root / "data" / "runs" / "grid" / "quick.csv"
    assert [row["precision_at_1"] for row in _rows(table)] == ["0.1", "0.3"]
    (missing,) = _rows(table.with_suffix(".missing.csv"))
    assert missing["why"].endswith("ValueError: a cell that raises")
    assert (root / "data" / "runs" / "report" / "index.html").exists()
    before = _results(root)
    (root / "raise-2").unlink()
    second = _study()
    assert second.returncode == 0, second
    assert "3 of 3 cells and 1 of 1 notebooks done" in second.stdout
    after = _results(root)
    assert len(after) == 4
    assert before.items() <= after.items(), "what was finished is as it was"
    (root / "raise-1").touch()
    forced = _study("--force")
    assert forced.returncode == 1
    assert "Missing: grid/digits-conv4-snr-triplet-seed=1: 05_train failed" in forced.stdout
    assert len(_starts(root)) == (3 + 1 + 1) + 1 + (4 + 1)
    kept = {name for name, written in _results(root).items() if after[name] == written}
    assert kept == {"digits-conv4-snr-triplet-seed=1"}, "of a run that failed the old result is kept"


@slow
def test_a_cell_of_changed_images_is_run_again(root: Path) -> None:
    profile(root, {**SEEDS, "seed": [1]})
    (cell,) = Grid("quick").cells
    row = finish(cell)
    finish(cell, experiment=row["experiment"] | {"files": "others"})
    assert _study().returncode == 0
    assert _begun(root, 1) == 1
    assert Grid("quick").row(cell)


@slow
@pytest.mark.parametrize("which", ["everything", "the study"])
def test_a_study_that_is_killed_goes_on_to_the_same_rows(root: Path, which: str) -> None:
    process, finished = _all_but_one(root, root)
    if which == "everything":
        kill([process.pid, *processes("snrlib", str(root)), *_kernels(root)])
    else:
        process.kill()
        until(lambda: not processes("snrlib", str(root)) + _kernels(root), seconds=60)  # nothing outlives it
    process.communicate()
    assert _results(root) == finished
    assert (root / "data" / "runs" / "grid" / "quick.missing.csv").exists(), "which tells the page of this profile"
    (root / "hold-2").unlink()
    again = _study()
    assert again.returncode == 0, again
    assert "3 of 3 cells and 1 of 1 notebooks done" in again.stdout
    assert finished.items() <= _results(root).items(), "what was finished is as it was"
    assert len(_starts(root)) == 5, "and was not begun again"
    table = root / "data" / "runs" / "grid" / "quick.csv"
    assert [(row["seed"], row["precision_at_1"]) for row in _rows(table)] == [("1", "0.1"), ("2", "0.2"), ("3", "0.3")]
    _assert_whole(root)


@slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_study_leaves_no_process_and_no_half(root: Path, number: int, status: int) -> None:
    profile(root, SEEDS)
    (root / "hold-2").touch()
    process = _start("--cores", "2")
    until(lambda: _begun(root, 2), process)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    assert "Traceback" not in err
    assert not processes("snrlib", str(root)) + _kernels(root)
    _assert_whole(root)
    assert not list((root / "data" / "runs").rglob(".05_train.partial-*"))


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
        _assert_whole(place)
        before = len(_starts(root))
        refused = _study()
        assert (refused.returncode, refused.stdout) == (2, ""), refused
        assert refused.stderr.startswith(f"snr: cannot write into {place / 'runs' / 'grid'}: No space left on device.")
        (place / "ballast").unlink()
        again = _study()
        assert again.returncode == 0, again
        assert "3 of 3 cells and 1 of 1 notebooks done" in again.stdout
        assert finished.items() <= _results(place).items()
        assert [start[0] for start in _starts(root)[before:]] == ["2"]
        _assert_whole(place)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (2**16, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


@slow
def test_a_cell_or_kernel_that_is_killed_is_tried_again(root: Path) -> None:
    """The process of seed 1 and the kernel of seed 2: once, and the cell is finished; twice, and it is missing."""
    profile(root, SEEDS)
    for seed in (1, 2):
        (root / f"hold-{seed}").touch()
    process = _start("--cores", "3")
    for attempt in (1, 2):
        until(partial(_is_begun, root, 1, attempt), process)
        kill(processes("-m\0snrlib\0run", str(root), "seed=1\0"))
        until(partial(_is_begun, root, 2, attempt), process)
        kill([int(pid) for seed, pid, _ in _starts(root) if seed == "2"][-1:])
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "1 of 3 cells and 1 of 1 notebooks done" in out
    assert "seed=1: it ended with status 137; -9 or 137 is a kill" in out or "seed=1: it ended with status -9" in out
    assert re.search("seed=2: .*DeadKernelError", out), out
    assert not _kernels(root)
    _assert_whole(root)
    before = _results(root)
    (root / "hold-2").unlink()
    process = _start("--cores", "2")
    until(lambda: _begun(root, 1) == 3, process)
    kill(processes("-m\0snrlib\0run", str(root), "seed=1\0"))
    until(lambda: _begun(root, 1) == 4, process)
    (root / "hold-1").unlink()
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0, out
    assert before.items() <= _results(root).items()
    _assert_whole(root)


@slow
def test_a_second_study_of_the_folder_waits(root: Path) -> None:
    profile(root, SEEDS)
    (root / "hold-1").touch()
    first = _start()
    until(lambda: _starts(root), first)
    second = _start()
    time.sleep(10)
    assert second.poll() is None
    dry = [sys.executable, "-m", "snakemake", "-n", "--quiet"]
    assert subprocess.run(dry, cwd=root, capture_output=True, timeout=120).returncode == 0, "a plan does not wait"
    (root / "hold-1").unlink()
    assert first.wait(timeout=180) == second.wait(timeout=180) == 0
    out, _ = second.communicate()
    assert f"Another study is at work in {root / 'data' / 'runs'}; this one waits for it to end." in out
    assert "3 of 3 cells" in out
    assert len(_starts(root)) == 4, "each was run once"
    first.communicate()


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
    profile(root, {**SEEDS, "seed": [1, 3]}, name="full")
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

    def submit() -> subprocess.CompletedProcess:
        return subprocess.run([*command, *faster], cwd=root, capture_output=True, text=True, timeout=300)

    done = submit()
    assert done.returncode == 1, done.stderr
    submitted = (stub / "submitted").read_text().splitlines()
    assert len(submitted) == 4, "two cells, one twice, and a notebook"
    assert all("--cpus-per-task=1 --mem=4000M --time=240 --output=.slurm/%j.log" in line for line in submitted)
    table = root / "data" / "runs" / "grid" / "full.csv"
    assert [row["seed"] for row in _rows(table)] == ["1"]
    (missing,) = _rows(table.with_suffix(".missing.csv"))
    assert missing["why"].endswith("ValueError: a cell that raises")
    (root / "raise-3").unlink()
    (cell, _) = Grid("full").cells
    finish(cell, experiment_source="of old")  # which is run again
    before = _results(root)
    done = submit()
    assert done.returncode == 0, done.stderr
    assert len((stub / "submitted").read_text().splitlines()) == 6
    assert [row["seed"] for row in _rows(table)] == ["1", "3"]
    same = {name for name, written in _results(root).items() if before.get(name) == written}
    assert same == {"default"}, "the notebook"
