"""Finished experiments become studies in ``data/reference``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from snrlib.evaluate import retrieval
from snrlib.experiment import Experiment, Run, read_run
from snrlib.notebooks.run import result_path
from snrlib.stats import paired, paired_over_queries
from snrlib.study import stored
from snrlib.study.grid import Grid
from snrlib.study.stored import KEY
from snrlib.study.tables import add_confusions, confusions_of, run_rows

__all__ = ["Measured", "hits", "store", "write_studies"]

_MOST = 12  # confusions of each network that are kept


Measured = dict[str, Any]
"""A finished experiment, as JSON can hold it: ``experiment``, as `snrlib.experiment.Experiment.row` gives it; `hits`;
``confused``, rows of `snrlib.study.tables.confusions_of`; ``data``, the fingerprints of its images; ``parameters`` of
notebook 07, that made it; ``wall_time_s``, ``git_commit``, ``versions`` and ``finished``; of one without a notebook the
name of its ``device``."""
_OF_RUN = ("experiment", "data", "parameters", "wall_time_s", "git_commit", "versions", "finished")


def hits(done: Experiment | Run) -> list[float | None]:
    """R@1 of every test image by the training distance: 1, 0, or None alone in its class."""
    labels = done.labels if isinstance(done, Run) else done.test.labels
    found = retrieval(done.embeddings, labels, done.distance, ks=(1,)).precision_at_1
    return [None if np.isnan(hit) else hit for hit in found.tolist()]


def store(profile: str) -> list[Path]:
    """Make studies of a profile's finished cells, one per data set: ``data/reference/PROFILE_DATA.csv`` and ``.json``.

    Of a profile with one data set it is called PROFILE.

    Raises:
        ValueError: the profile has no cells, or some are missing; the message says how many.
    """
    grid = Grid(profile)
    rows = {task: grid.row(task) for task in grid.cells}
    missing = [task for task, row in rows.items() if row is None]
    if missing or not rows:
        first = f", as {missing[0].name}" if missing else ""
        raise ValueError(
            f"{len(missing)} of {len(rows)} cells of profile {profile} are not finished{first}; `snr study` runs them"
        )
    found = []
    for task, row in rows.items():
        done = read_run(result_path(task.output))
        known = {key: value for key, value in (row or {}).items() if key in _OF_RUN}
        found.append({**known, "hits": hits(done), "confused": confusions_of(done).to_dict("records")})
    return write_studies(profile, found)


def write_studies(profile: str, found: Sequence[Measured]) -> list[Path]:
    """Studies of experiments, one per data set; returns the paths of their tables."""
    paths = []
    datasets = dict.fromkeys(one["experiment"]["settings"]["data"] for one in found)
    for data in datasets:
        name = profile if len(datasets) == 1 else f"{profile}_{data}"
        own = [one for one in found if one["experiment"]["settings"]["data"] == data]
        runs = pd.concat([run_rows(one["experiment"]) for one in own], ignore_index=True)
        trained = [one for one in own if one["experiment"]["trained"]]
        confused = add_confusions([pd.DataFrame(one["confused"]) for one in trained])
        confused = confused.groupby(list(KEY), sort=False).head(_MOST)
        paths.append(stored.write(name, runs, _about(profile, data, trained), confused))
    return paths


def _about(profile: str, data: str, found: Sequence[Measured]) -> dict[str, Any]:
    varied = {"seed", "backbone", "loss", "distance", "map", "margin", "scale", "learning_rate"}
    experiments = [one["experiment"] for one in found]
    chosen = {_key(one): one["settings"] for one in experiments}
    seeds = sorted({one["settings"]["seed"] for one in experiments})
    return {
        "command": f"snr measure {profile}",
        "grid": {"data": data, "seeds": seeds, "cells": len(found)},
        "settings": {key: value for key, value in found[0]["parameters"].items() if key not in varied},
        "chosen": [
            dict(zip(KEY, key, strict=True)) | {name: one[name] for name in ("margin", "scale", "learning_rate")}
            for key, one in chosen.items()
        ],
        "precision": sorted({one["precision"] for one in experiments}),
        "devices": sorted({one["device"] for one in found if "device" in one}),
        "same_queries": _same_queries(found),
        "data": {name: mark for one in found for name, mark in one["data"].items()},
        "core_minutes": round(sum(one["wall_time_s"] for one in found) / 60, 1),
        "git_commit": sorted({str(one["git_commit"]) for one in found}),
        "versions": found[-1]["versions"],
        "finished": max(one["finished"] for one in found),
    }


def _key(found: dict[str, Any]) -> tuple[str, ...]:
    """Of an experiment's network, by the columns of `snrlib.study.stored.KEY`."""
    known = found["settings"] | {"variant": found.get("variant", "")}
    return tuple(known[name] or "" for name in KEY)


def _same_queries(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Against Euclid, on the same seeds and the same queries; nothing where each seed has classes of its own."""
    if len({one["experiment"]["settings"].get("split", 0) for one in measured}) > 1:
        return []
    found: dict[tuple[str, ...], dict[int, NDArray[np.float64]]] = {}
    for one in measured:
        own = found.setdefault(_key(one["experiment"]), {})
        own[one["experiment"]["settings"]["seed"]] = np.array(one["hits"], dtype=float)
    rows = []
    for key, answers in found.items():
        names = dict(zip(KEY, key, strict=True))
        usual = names | {"distance": "euclidean", "map": "", "variant": ""}
        euclid = found.get(tuple(usual.values()), {})
        if names == usual or answers.keys() != euclid.keys():
            continue
        ours, theirs = (np.stack([part[seed] for seed in sorted(part)]) for part in (answers, euclid))
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
