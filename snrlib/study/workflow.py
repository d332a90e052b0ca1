"""The whole study: the cells of a profile and all notebooks, on this machine or on a cluster, and what came out.

On one machine a pool of processes runs what is missing (`snrlib.utils.processes`). On a cluster snakemake submits it:
the ``Snakefile`` asks `begin` what there is to do. In both, a run is finished when its result row says so.
"""

from __future__ import annotations

import atexit
import errno
import os
import shlex
import shutil
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snrlib.study.grid import Grid, scores
from snrlib.study.profiles import Task, check
from snrlib.utils.crate import write_crate
from snrlib.utils.files import data_folder, resolve_places, write_text
from snrlib.utils.locks import one_study_at_a_time
from snrlib.utils.processes import run_jobs
from snrlib.utils.provenance import ONE_THREAD, provenance

__all__ = ["Begun", "begin", "cores", "finish_tasks", "plan", "run_study", "summarize"]

_ROOM = 2**20  # bytes, of a run
_held = ExitStack()  # until this process ends
atexit.register(_held.close)


def run_study(profile: str = "quick", at_once: int | None = None, force: bool = False) -> int:
    """Run what is missing of a profile and the notebooks, and say what came out.

    A run that fails is tried once more; the others go on. A second study of the same folder waits for the first. If
    this process is killed, its runs end.

    Args:
        profile: of ``study.yaml``.
        at_once: runs at a time, each on one thread; None takes all cores.
        force: run again what is finished, too.

    Returns:
        The exit status: 0, or 1 if anything is missing or failed.

    Raises:
        ValueError: the profile does not exist, or has a cell that cannot be.
        OSError: the folder of the runs cannot be written, or its disk is full.
    """
    started = time.monotonic()
    resolve_places()
    grid = Grid(profile, force)
    check(grid.cells)
    _writable(data_folder("runs") / "grid")
    with one_study_at_a_time(data_folder("runs")):
        print(f"{_describe(grid)}. Cores: {at_once or cores()}", flush=True)
        summarize(grid)  # so that a study that is killed has one, too
        finish_tasks(grid.to_do(), at_once, force)
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
        _writable(data_folder("runs") / "grid")  # if its disk is full, that is why, and nothing below can be
        path = summarize(grid)
    if grid.cells:
        print(f"Cells: {path}")
    return int(bool(missing))


def finish_tasks(tasks: list[Task], at_once: int | None = None, force: bool = False) -> None:
    """Run tasks, some at a time, each on one thread; why one failed stands in its log."""
    run_jobs([task.job(force) for task in tasks], at_once or cores(), ONE_THREAD)


def summarize(grid: Grid) -> Path:
    """Write ``PROFILE.csv``, a row per finished cell, and ``PROFILE.missing.csv``, the other cells and why.

    Scores are those under the training distance, its query the anchor. ``ro-crate-metadata.json`` says of these two
    and of each cell's ``result.json`` its size and SHA-256; each cell has a crate of its own for its other files.
    """
    import pandas as pd  # slow to import

    path = data_folder("runs") / "grid" / f"{grid.profile}.csv"
    done = {task: row for task in grid.cells if (row := grid.row(task)) is not None}
    rows = [{"cell": task.output.parent.name, **task.values, **scores(row)} for task, row in done.items()]
    missing = grid.missing()
    others = [
        {"cell": task.output.parent.name, "why": missing[task.name]} for task in grid.cells if task.name in missing
    ]
    for file, table in ((path, rows), (path.with_suffix(".missing.csv"), others)):
        frame = pd.DataFrame(table, columns=None if table else ["cell", "why"])
        write_text(file, frame.to_csv(index=False, lineterminator="\n"))
    write_crate(
        path.parent,
        f"Grid of the profile {grid.profile}",
        {path.name: "a row per finished cell", path.with_suffix(".missing.csv").name: "the other cells, and why"},
        provenance(),
        command=f"snr study --profile {grid.profile}",
        used={f"{task.output.parent.name}/result.json": "what came out of a cell" for task in done},
    )
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
        counts = []
        for axis, many in (("distance", "distances"), ("loss", "losses"), ("seed", "seeds")):
            n = len({task.values[axis] for task in same})
            counts.append(f"{n} {many if n > 1 else axis}")
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


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = " Free some, then call it again: what is finished is kept." if full else ""
        raise OSError(
            f"cannot write into {folder}: {error.strerror}.{advice} SNR_RUNS=FOLDER chooses another place"
        ) from error


# --- on a cluster: the Snakefile calls this ---------------------------------------------------------------------------


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
        return shlex.join(self.grid.tasks[name].job(self.grid.force).command)


def begin(config: dict[str, Any], workflow: Any) -> Begun:
    """Check the profile that ``--config profile=`` names, and clear away what a killed snakemake has left.

    Until the other one ends, it waits for another study at work in this folder. A job of snakemake's, which builds one
    task, does none of this.
    """
    resolve_places()
    grid = Grid(str(config.get("profile", "quick")), bool(config.get("force", False)))
    folder = data_folder("runs")
    if not workflow.is_main_process:
        return Begun(grid, str(folder), [])
    check(grid.cells)
    if not workflow.output_settings.dryrun:
        _writable(folder / "grid")
        _held.enter_context(one_study_at_a_time(folder))
        for left in (folder / ".study", folder / ".snakemake" / "locks"):
            shutil.rmtree(left, ignore_errors=True)
        summarize(grid)  # so that a study that is killed has one, too
    return Begun(grid, str(folder), [task.name for task in grid.to_do()])
