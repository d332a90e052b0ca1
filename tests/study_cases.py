"""Small studies: their profiles, a notebook whose cells misbehave when told to, and results that look finished."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml

from snrlib.notebooks.find import find_notebook
from snrlib.notebooks.parameters import parameters
from snrlib.notebooks.run import experiment_fingerprint, result_path, source_fingerprint
from snrlib.study.profiles import Task

BLOCK: dict[str, Any] = {"data": ["digits"], "backbone": ["conv4"], "loss": ["triplet"], "seed": [0]}
BLOCK["distance"] = ["euclidean", "snr"]
BODY = """
import os, pathlib, time
from snrlib.notebooks.inside import record
root = pathlib.Path(os.environ["SNR_ROOT"])
with open(root / "starts", "a") as log:
    log.write(f"{seed} {os.getpid()} {os.environ.get('OMP_NUM_THREADS')}\\n")
if (root / f"raise-{seed}").exists():
    raise ValueError("a cell that raises")
while (root / f"hold-{seed}").exists():
    time.sleep(0.05)
settings = {"data": data, "backbone": backbone, "loss": loss, "distance": distance, "map": None, "seed": seed}
settings |= {"margin": 0.3, "scale": None, "learning_rate": 0.1}
row = {"trained": True, "settings": settings, "cost": {"flops": 7}}
row |= {"scores": [{"judge": "training", "anchor": "query", "precision_at_1": seed / 10}], "classes": 5, "images": 9}
record({"precision_at_1": seed / 10}, experiment=row | {"files": "", "best_step": 1, "seconds": 0.1})
"""
"""Of notebook 07: it records its seed as score."""


def profile(root: Path, *blocks: Any, name: str = "quick") -> None:
    """Write a ``study.yaml`` of one profile."""
    (root / "study.yaml").write_text(yaml.safe_dump({"profiles": {name: list(blocks)}}))


def finish(task: Task, **changes: Any) -> dict[str, Any]:
    """Put a result row there, as of a run that has just ended; returns it."""
    notebook = find_notebook(task.notebook)
    values = {key: known.default for key, known in parameters(task.notebook).items()} | task.values
    row: dict[str, Any] = {"notebook": task.notebook, "parameters": values, "metrics": {}}
    row |= {"wall_time_s": 1.0, "git_commit": None, "finished": "now", "source": source_fingerprint(notebook)}
    if task.is_cell:
        scores = [{"judge": judge, "anchor": "ref", "precision_at_1": 0.4} for judge in ("training", "snr")]
        scores.insert(1, {"judge": "training", "anchor": "query", "precision_at_1": 0.5})
        settings = {**values, "map": None, "margin": 0.3, "learning_rate": 0.1}
        about = {"trained": True, "settings": settings, "cost": {"flops": 7}, "best_step": 1, "files": ""}
        about["seconds"] = 1.0
        row |= {"experiment": {"scores": scores, **about}, "experiment_source": experiment_fingerprint(notebook)}
    task.output.parent.mkdir(parents=True, exist_ok=True)
    task.output.write_text("{}")
    result_path(task.output).write_text(json.dumps(row | changes))
    return row | changes


def forked(do: Callable[[], int | None], said: Path) -> Any:
    """A process that need not import everything anew: it goes on from here, and what it says goes to a file."""

    def child() -> None:
        with said.open("w", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
            sys.exit(do())

    process = get_context("fork").Process(target=child, daemon=True)
    process.start()
    return process
