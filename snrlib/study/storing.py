"""Finished cells of the grid become studies in ``data/reference``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snrlib.evaluate import retrieval
from snrlib.experiment import read_run
from snrlib.notebooks.run import result_path
from snrlib.stats import paired, paired_over_queries
from snrlib.study import stored
from snrlib.study.grid import Grid
from snrlib.study.profiles import Task
from snrlib.study.stored import KEY
from snrlib.study.tables import read_runs

__all__ = ["hits", "store"]

_MOST = 12  # confusions of each network that are kept


def hits(run: Path) -> NDArray[np.float64]:
    """R@1 of every test image of a run of notebook 05, by its training distance: 1, 0, or NaN alone in its class.

    Args:
        run: its result.json, with embeddings.npz beside it.
    """
    done = read_run(run)
    return retrieval(done.embeddings, done.labels, done.distance, ks=(1,)).precision_at_1.to_numpy(dtype=float)


def store(profile: str) -> list[Path]:
    """Make studies of a profile's finished cells, one per data set: ``data/reference/PROFILE_DATA.csv`` and ``.json``.

    Of a profile with one data set it is called PROFILE.

    Raises:
        ValueError: the profile has no cells, or some are missing; the message says how many.
    """
    grid = Grid(profile)
    missing = [task for task in grid.cells if grid.row(task) is None]
    if missing or not grid.cells:
        n = len(grid.cells)
        first = f", as {missing[0].name}" if missing else ""
        raise ValueError(
            f"{len(missing)} of {n} cells of profile {profile} are not finished{first}; `snr study` runs them"
        )
    paths = []
    datasets = dict.fromkeys(task.values["data"] for task in grid.cells)
    for data in datasets:
        name = profile if len(datasets) == 1 else f"{profile}_{data}"
        tasks = [task for task in grid.cells if task.values["data"] == data]
        found = read_runs([result_path(task.output) for task in tasks])
        rows = [grid.row(task) for task in tasks]
        about = _about(profile, data, tasks, [row for row in rows if row is not None])
        confused = found.confused.groupby(list(KEY), sort=False).head(_MOST)
        paths.append(stored.write(name, found.runs, about, confused))
    return paths


def _about(profile: str, data: str, tasks: list[Task], rows: list[dict[str, Any]]) -> dict[str, Any]:
    varied = {"seed", "backbone", "loss", "distance", "map", "margin", "scale", "learning_rate"}
    found = [row["experiment"] for row in rows]
    chosen = {_key(one): one["settings"] for one in found}
    return {
        "command": f"snr measure {profile}",
        "grid": {"data": data, "seeds": sorted({task.values["seed"] for task in tasks}), "cells": len(tasks)},
        "settings": {key: value for key, value in rows[0]["parameters"].items() if key not in varied},
        "chosen": [
            dict(zip(KEY, key, strict=True)) | {name: one[name] for name in ("margin", "scale", "learning_rate")}
            for key, one in chosen.items()
        ],
        "precision": sorted({row["experiment"]["precision"] for row in rows}),
        "same_queries": _same_queries(tasks, found),
        "data": rows[-1]["data"],
        "core_minutes": round(sum(row["wall_time_s"] for row in rows) / 60, 1),
        "git_commit": sorted({str(row["git_commit"]) for row in rows}),
        "versions": rows[-1]["versions"],
        "finished": max(row["finished"] for row in rows),
    }


def _key(found: dict[str, Any]) -> tuple[str, ...]:
    """Of an experiment's network, by the columns of `snrlib.study.stored.KEY`."""
    known = found["settings"] | {"variant": found.get("variant", "")}
    return tuple(known[name] or "" for name in KEY)


def _same_queries(tasks: list[Task], experiments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Against Euclid, on the same seeds and the same queries."""
    found: dict[tuple[str, ...], dict[int, NDArray[np.float64]]] = {}
    for task, one in zip(tasks, experiments, strict=True):
        found.setdefault(_key(one), {})[one["settings"]["seed"]] = hits(result_path(task.output))
    rows = []
    for key, own in found.items():
        names = dict(zip(KEY, key, strict=True))
        usual = names | {"distance": "euclidean", "map": "", "variant": ""}
        euclid = found.get(tuple(usual.values()), {})
        if names == usual or own.keys() != euclid.keys():
            continue
        ours, theirs = (np.stack([part[seed] for seed in sorted(part)]) for part in (own, euclid))
        both = paired_over_queries(ours, theirs)
        seeds = paired(np.nanmean(ours, axis=1), np.nanmean(theirs, axis=1))
        numbers = {
            "difference": both.mean,
            "p_sign_flip": seeds.p_sign_flip,
            "bootstrap_low": seeds.low,
            "bootstrap_high": seeds.high,
            "low": both.over_both[0],
            "high": both.over_both[1],
        }
        del names["data"]
        rows.append(
            names | {"queries": both.queries} | {name: float(f"{value:.5g}") for name, value in numbers.items()}
        )
    return rows
