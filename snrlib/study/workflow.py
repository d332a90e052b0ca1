"""The whole study: the cells of a profile and all notebooks, run by snakemake, and what came out."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from snrlib.study.grid import NOT_RUN, STALE, Grid, check, scores
from snrlib.study.progress import Progress
from snrlib.utils.files import data_folder, study_root, write_atomically
from snrlib.utils.provenance import MEMORY

__all__ = ["Begun", "begin", "plan", "run_study", "summarize"]

_PROGRESS = "SNR_STUDY_PROGRESS"  # set by `run_study` for the snakemake that it starts
_END_S = 30.0  # in which runs that are told to end clean up behind themselves
_ROOM = 2**20  # bytes, of a run
# All that snakemake has by default, but its cache, which would be in the home folder: that may not be writable.
_SHARED = ("persistence", "input-output", "software-deployment", "sources", "storage-local-copies")
_held: list[FileLock] = []  # until this process ends


def run_study(profile: str = "quick", cores: int | None = None, force: bool = False) -> int:
    """Run what is missing of a profile and the notebooks, and say what came out.

    A run that fails is tried once more; the others go on. A second study of the same folder waits for the first. If
    this process is killed, its runs end.

    Args:
        profile: of ``study.yaml``.
        cores: runs at a time, each on one thread; None takes all.
        force: run again what is finished, too.

    Returns:
        The exit status: 0, or 1 if anything is missing or failed.

    Raises:
        ValueError: the profile does not exist, or has a cell that cannot be.
        OSError: the folder of the runs cannot be written, or its disk is full.
    """
    started = time.monotonic()
    _resolve_places()
    grid = Grid(profile, force)
    check(grid.cells)
    _writable(data_folder("runs") / "grid")
    print(f"{_describe(grid)}. Cores: {cores or _cores()}", flush=True)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(study_root() / "Snakefile")]
    command += ["--config", f"profile={profile}", f"force={int(force)}", "--cores", str(cores or _cores())]
    command += ["--keep-going", "--rerun-incomplete", "--scheduler", "greedy", "--nocolor"]
    command += ["--quiet", "rules", "host", "reason"]  # not about its own errors
    command += ["--profile", "none", "--workflow-profile", "none", "--no-hooks", "--shared-fs-usage", *_SHARED]
    with tempfile.TemporaryFile("w+") as said:
        status = _snakemake(command, said) if grid.to_do() else 0
        said.seek(0)
        lines = said.read().strip().splitlines()
    grid = Grid(profile, force)
    missing = grid.missing()
    done = [sum(task.name not in missing for task in tasks) for tasks in (grid.cells, grid.notebooks)]
    print(
        f"\n{done[0]} of {len(grid.cells)} cells and {done[1]} of {len(grid.notebooks)} notebooks done "
        f"in {time.monotonic() - started:.0f} s."
    )
    for name, why in missing.items():
        print(f"Missing: {name.removesuffix('/default')}: {why}")
    if missing:
        print("The others are kept; the next run repeats only what is missing.", flush=True)
    _writable(data_folder("runs") / "grid")  # if its disk is full, that is why, and nothing of the below can be
    path = summarize(grid)
    if status and not set(missing.values()) - {NOT_RUN, STALE}:  # no run says why: it is snakemake itself
        print("\n".join([f"snr: snakemake ended with status {status}:", *lines[-20:]]), file=sys.stderr)
    if grid.cells:
        print(f"Cells: {path}")
    return int(bool(status or missing))


def summarize(grid: Grid) -> Path:
    """Write ``PROFILE.csv``, a row a finished cell, and ``PROFILE.missing.csv``, the other cells and why.

    Scores without a prefix are those under the training distance, its query the anchor.
    """
    import pandas as pd  # slow to import

    path = data_folder("runs") / "grid" / f"{grid.profile}.csv"
    rows = [
        {"cell": task.output.parent.name, **task.values, **scores(row)}
        for task in grid.cells
        if (row := grid.row(task)) is not None
    ]
    missing = grid.missing()
    others = [
        {"cell": task.output.parent.name, "why": missing[task.name]} for task in grid.cells if task.name in missing
    ]
    for file, table in ((path, rows), (path.with_suffix(".missing.csv"), others)):
        frame = pd.DataFrame(table, columns=None if table else ["cell", "why"])
        write_atomically(file, lambda temporary, frame=frame: frame.to_csv(temporary, index=False))  # type: ignore[misc]
    return path


def plan(profile: str, force: bool = False) -> None:
    """Print what `run_study` would run."""
    grid = Grid(profile, force)
    check(grid.cells)
    to_do = {task.name for task in grid.to_do()}
    groups = Counter((task.values["data"], task.values["backbone"]) for task in grid.cells)
    print(f"{_describe(grid)}. Nothing is run.")
    for (data, backbone), count in groups.items():
        same = [task for task in grid.cells if (task.values["data"], task.values["backbone"]) == (data, backbone)]
        numbers = {axis: len({task.values[axis] for task in same}) for axis in ("distance", "loss", "seed")}
        plural = {"loss": "es"}
        counts = [f"{n} {axis}" + (n > 1) * plural.get(axis, "s") for axis, n in numbers.items()]
        absent = f"; {grid.absent(same[0])}" if grid.absent(same[0]) else ""
        print(f"  {count} cells of {data} with {backbone}: {', '.join(counts)}{absent}")
    usual = sum(not {"margin", "learning_rate"} & task.values.keys() for task in grid.cells)
    if usual:
        print(f"  {usual} take the usual margin and learning rate; `snr tune --profile {profile}` tunes them")
    for name, task in grid.tasks.items():
        state = "to do   " if name in to_do else "absent  " if grid.absent(task) else "finished"
        print(f"{state} {name.removesuffix('/default')}")


def _describe(grid: Grid) -> str:
    ready = [sum(grid.row(task) is not None for task in tasks) for tasks in (grid.cells, grid.notebooks)]
    return (
        f"Profile {grid.profile}: {len(grid.cells)} cells, {ready[0]} up to date; "
        f"{len(grid.notebooks)} notebooks, {ready[1]} up to date"
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _resolve_places() -> None:
    """snakemake and the notebooks work in folders of their own."""
    for name in ("SNR_ROOT", "SNR_CACHE", "SNR_RUNS"):
        if place := os.environ.get(name):
            os.environ[name] = str(Path(place).expanduser().resolve())


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = " Free some, then call it again: what is finished is kept." * full
        raise OSError(
            f"cannot write into {folder}: {error.strerror}.{advice} SNR_RUNS=FOLDER chooses another place"
        ) from error


def _snakemake(command: list[str], said: Any) -> int:
    """Run it and all its runs in one process group, of which nothing is left afterwards, however this ends."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # which ends when this process does, however that ends: see `_end_with_the_study`
        stderr=said,
        cwd=data_folder("runs"),
        env={**MEMORY, **os.environ, _PROGRESS: "1"},
        start_new_session=True,
    ) as process:
        try:
            return process.wait()
        finally:
            _end(process)


def _end(process: subprocess.Popen) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        limit = time.monotonic() + _END_S
        try:
            os.killpg(process.pid, number)
            while time.monotonic() < limit:
                time.sleep(0.05)
                process.poll()
                os.killpg(process.pid, 0)  # raises as soon as nothing of it is left
        except (ProcessLookupError, PermissionError):
            return


# --- within snakemake: the Snakefile calls this -----------------------------------------------------------------------


@dataclass(frozen=True)
class Begun:
    """What the Snakefile needs.

    Attributes:
        grid: of the profile.
        folder: of all runs, where snakemake works.
        to_do: names of the tasks to run.
    """

    grid: Grid
    folder: str
    to_do: list[str]

    def command(self, name: str) -> str:
        """The shell command of a task."""
        return shlex.join(self.grid.tasks[name].command(self.grid.force))


def begin(config: dict[str, Any], workflow: Any) -> Begun:
    """Check the profile that ``--config profile=`` names, and clear away what a killed snakemake has left.

    Until the other one ends, it waits for another snakemake at work in this folder. A job of snakemake's, which
    builds one task, does none of this.
    """
    _resolve_places()
    grid = Grid(str(config.get("profile", "quick")), bool(config.get("force", False)))
    folder = data_folder("runs")
    if not workflow.is_main_process:
        return Begun(grid, str(folder), [])
    if os.environ.get(_PROGRESS):
        threading.Thread(target=_end_with_the_study, daemon=True).start()
    else:  # `run_study` has
        check(grid.cells)
    if not workflow.output_settings.dryrun:
        _hold(folder)
        for left in (folder / ".study", folder / ".snakemake" / "locks"):
            shutil.rmtree(left, ignore_errors=True)
        summarize(grid)  # so that a study that is killed has one, too
    to_do = [task.name for task in grid.to_do()]
    if os.environ.get(_PROGRESS):
        logging.getLogger("snakemake.logging").addHandler(Progress(len(to_do)))
    return Begun(grid, str(folder), to_do)


def _end_with_the_study() -> None:
    """If the `run_study` that started this snakemake is killed and cannot end it, end it with all its runs."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(_END_S)
    os.killpg(0, signal.SIGKILL)


def _hold(folder: Path) -> None:
    """Keep other studies out of this folder for as long as this process lives, however it ends."""
    _writable(folder)
    lock = FileLock(folder / ".study.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another study is at work in {folder}; this one waits for it to end.", flush=True)
        lock.acquire()
    _held.append(lock)
