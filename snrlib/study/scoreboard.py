"""The scoreboard: stored studies in one table with corrected comparisons, and what it says in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from snrlib.evaluate import retrieval
from snrlib.notebooks.run import result_path
from snrlib.stats import holm, paired, paired_over_queries
from snrlib.study.grid import Grid, Task
from snrlib.study.robustness import compare_drops
from snrlib.study.tables import Results, differences, read_run, read_runs, stored, summary, under_training_distance
from snrlib.utils.files import data_folder, write_json, write_table

__all__ = ["BOARD", "SCORES", "answers", "by_search_and_training", "hits", "scoreboard", "sentence", "store", "tally"]

BOARD: tuple[str, ...] = ("full_glyphs", "full_omniglot", "full_cub_features", "full_cub200", "glyphs", "omniglot")
"""The studies on the scoreboard: those of the profile *full*, and more networks under triplet loss."""
SCORES: dict[str, str] = {"precision_at_1": "R@1", "mean_average_precision_at_r": "MAP@R", "r_precision": "R-precision"}
"""How the columns are called in words."""
_KEY = ["backbone", "loss", "distance"]
_WORDS = ("higher", "lower", "no difference shown")


def scoreboard(studies: Sequence[str], score: str = "precision_at_1", level: float = 0.95) -> pd.DataFrame:
    """Every network, loss and distance of some stored studies, judged by its training distance, query as anchor.

    Args:
        studies: names of CSV files in ``data/reference``, as in `snrlib.study.tables.stored`. What one of them
            measured, the later ones do not again: of each data set, network and loss the first study counts.
        score: the column that is compared.
        level: of confidence.

    Returns:
        One row each: study, backbone, loss, distance; mean over seeds and ``half_width`` of its t-interval, seeds;
        ``difference`` to Euclid under the same loss, paired by seed, ``difference_half_width``, ``verdict``, ``p`` of
        the paired t-test, ``p_holm``, corrected for all differences of this table, and ``effect`` (`snrlib.stats`).
        Where single queries were kept and R@1 is compared, ``low`` and ``high`` are the interval of the difference over
        seeds and queries together (`snrlib.stats.paired_over_queries`), at 95 %. NaN and "" where nothing is compared.

    Raises:
        FileNotFoundError: a study that is not stored.
        ValueError: no study, or one that is damaged or has no Euclid.
    """
    if not studies:
        raise ValueError("studies must name at least one study, got none")
    tables = []
    for name, found in _each_once(studies):
        own = under_training_distance(found.runs)
        against = differences(own, "distance", "euclidean", score, level).reset_index()
        against = against.drop(columns=["seeds", "p_holm"])
        against = against.rename(columns={"mean": "difference", "half_width": "difference_half_width"})
        table = summary(own, score, level).reset_index().drop(columns="judged_by").merge(against, "left", _KEY)
        queries = pd.DataFrame(found.about.get("same_queries", []), columns=[*_KEY, "low", "high"])
        if score != "precision_at_1":
            queries = queries[:0]
        queries = queries.astype({"low": float, "high": float})
        tables.append(table.merge(queries, "left", _KEY).assign(study=name))
    board = pd.concat(tables, ignore_index=True)
    board["verdict"] = board.verdict.fillna("")
    board["p_holm"] = holm(board.p)
    return board[["study", *(column for column in board if column != "study")]]


def _each_once(studies: Sequence[str]) -> Iterator[tuple[str, Results]]:
    """Stored studies, the later ones without the networks and losses that an earlier one has of the same data set."""
    seen: set[tuple[str, str, str]] = set()
    for name in studies:
        found = stored(name)
        data = found.about.get("grid", found.about.get("study", {"data": name}))["data"]
        keys = [(data, *key) for key in found.runs[["backbone", "loss"]].itertuples(index=False, name=None)]
        runs = found.runs[[key not in seen for key in keys]]
        seen |= set(keys)
        if not under_training_distance(runs).empty:
            yield name, replace(found, runs=runs)


def tally(board: pd.DataFrame, by: Sequence[str] = ("distance",), level: float = 0.95) -> pd.DataFrame:
    """How often a distance is higher or lower than Euclid.

    Args:
        board: of `scoreboard`.
        by: its columns that make the rows.
        level: of confidence; 1 - level is the bound of the corrected p-values.

    Returns:
        Counts: "higher", "lower", "no difference shown" by themselves; of these, "higher, Holm" and "lower, Holm" also
        with the correction.
    """
    compared = board[board.verdict != ""]
    counts = compared.groupby([*by, "verdict"], sort=False).size().unstack(fill_value=0)
    counts = counts.reindex(columns=list(_WORDS), fill_value=0)
    certain = compared[compared.p_holm < 1 - level].groupby([*by, "verdict"], sort=False).size().unstack(fill_value=0)
    for word in _WORDS[:2]:
        counts[f"{word}, Holm"] = certain[word].reindex(counts.index, fill_value=0) if word in certain else 0
    return counts.rename_axis(columns=None)


def by_search_and_training(studies: Sequence[str], score: str = "precision_at_1") -> pd.DataFrame:
    """Where differences to Euclid come from: the search under another distance, or what was trained under it.

    A network trained under a distance is searched under it, and under Euclid as well. What the first has over the
    second is due to the search; what the second has over the network that was trained under Euclid, to training.

    Args:
        studies: as for `scoreboard`.
        score: the column that is compared.

    Returns:
        Index study, backbone, loss, distance; ``search``, ``training``, and their sum, ``difference``, means over the
        seeds that both have.

    Raises:
        FileNotFoundError: a study that is not stored.
    """
    tables = []
    for name, found in _each_once(studies):
        runs = found.runs
        own = under_training_distance(runs).set_index([*_KEY, "seed"])[score]
        by_euclid = runs[(runs.judged_by == "Euclid") & (runs.loss != "untrained")].set_index([*_KEY, "seed"])[score]
        parts = pd.DataFrame({"own": own, "by_euclid": by_euclid}).reset_index()
        parts.loc[parts.distance == "euclidean", "by_euclid"] = parts.own  # one judgement, not two
        euclid = parts[parts.distance == "euclidean"].set_index(["backbone", "loss", "seed"]).own.rename("euclid")
        parts = parts[parts.distance != "euclidean"].join(euclid, on=["backbone", "loss", "seed"])
        parts = parts.assign(
            study=name, search=parts.own - parts.by_euclid, training=parts.by_euclid - parts.euclid
        ).assign(difference=lambda table: table.search + table.training)
        parts = parts.dropna(subset=["difference"])
        tables.append(parts.groupby(["study", *_KEY], sort=False)[["search", "training", "difference"]].mean())
    return pd.concat(tables)


def sentence(board: pd.DataFrame, distance: str, score: str = "R@1", level: float = 0.95) -> str:
    """What the scoreboard says of a distance, in words that follow its numbers.

    Args:
        board: of `scoreboard`.
        distance: the one spoken of.
        score: how the compared score is called.
        level: of confidence.

    Raises:
        ValueError: the distance is not compared there.
    """
    part = board[(board.distance == distance) & (board.verdict != "")]
    if part.empty:
        others = board[board.verdict != ""].distance.unique()
        raise ValueError(f"{distance!r} is not compared; there are {', '.join(others)}")
    up, down, none, certain_up, certain_down = tally(part, level=level).iloc[0].tolist()
    much = "more often than" if up > down else "less often than" if up < down else "as often as"
    lead = f"{distance} is higher than Euclid {much} it is lower"
    if up + down == 0:
        lead = f"{distance} is nowhere shown to differ from Euclid"
    ordered = part.sort_values("difference").iloc[[0, -1]]
    ends = [f"{row.difference:+.3f} ({row.study}, {row.backbone}, {row.loss})" for row in ordered.itertuples()]
    return (
        f"{lead}: in {len(part)} comparisons of {score} {up} higher, {down} lower, {none} without a difference shown; "
        f"with Holm's correction {certain_up} higher, {certain_down} lower. From {' to '.join(ends)}."
    )


def answers(studies: Sequence[str] = BOARD, score: str = "precision_at_1", level: float = 0.95) -> dict[str, str]:
    """The study's question, answered from its tables: nothing but counts, means and words that follow them.

    Args:
        studies: as for `scoreboard`.
        score: the column that is compared.
        level: of confidence.

    Returns:
        Questions to answers.

    Raises:
        FileNotFoundError: a study, or the table of robustness, is not stored.
    """
    name = SCORES.get(score, score)
    board, verification = scoreboard(studies, score, level), scoreboard(studies, "EER", level)
    snr, one_threshold = (table[table.distance == "snr"] for table in (board, verification))
    better, worse = reversed(_WORDS[:2]) if score == "EER" else _WORDS[:2]
    helps, hurts = ((snr.verdict == word).sum() for word in (better, worse))
    much = "More" if helps > hurts else "Less" if helps < hurts else "As"
    means = snr[snr.verdict != ""].groupby("loss").difference.mean()
    parts = by_search_and_training(studies, score).xs("snr", level="distance")
    search, training = parts.search.abs().max(), parts.training.abs().max()
    causes = {"what it does to training": training > 5 * search, "the search under it": search > 5 * training}
    cause = next((name for name, holds in causes.items() if holds), "both training and search")
    falls = compare_drops(stored("robustness").runs, level).xs("snr", level="distance").reset_index()
    kept = [
        f"With {spoiled} the share of its own clean R@1 that it keeps {_clause(falls[falls.when == when], level)}."
        for when, spoiled in (("test", "spoiled queries"), ("training", "spoiled training images, or wrong labels,"))
    ]
    other, other_threshold = (table[table.distance == "mahalanobis"] for table in (board, verification))
    return {
        "Does the SNR distance help?": f"{much} {'often as' if much == 'As' else 'often than'} it hurts: {name} "
        f"{_clause(snr, level)}. The error of one threshold for all, EER, {_clause(one_threshold, level)}.",
        "When?": f"By loss, its mean difference to Euclid in {name} goes from {means.min():+.3f} ({means.idxmin()}) to "
        f"{means.max():+.3f} ({means.idxmax()}).",
        "Why?": f"Because of {cause}: the search under it moves {name} by at most {search:.3f}, the training under it "
        f"by up to {training:.3f}.",
        "Is it robust?": " ".join(kept),
        "What helps more?": f"With a whitening of the spread within classes that follows the training, {name} "
        f"{_clause(other, level)}; EER {_clause(other_threshold, level)}.",
    }


def _clause(part: pd.DataFrame, level: float) -> str:
    up, down, none = ((part.verdict == word).sum() for word in _WORDS)
    certain = part[part.p_holm < 1 - level].verdict.value_counts()
    sure = " and ".join(f"{certain[word]} {word}" for word in _WORDS[:2] if word in certain)
    return (
        f"is higher than Euclid's in {up} of {up + down + none} comparisons, lower in {down}, and in {none} no "
        f"difference is shown (with Holm's correction {sure or 'none'})"
    )


def hits(run: Path) -> NDArray[np.float64]:
    """R@1 of every test image of a run of notebook 05, by its training distance: 1, 0, or NaN alone in its class.

    Args:
        run: its result.json, with embeddings.npz beside it.
    """
    done = read_run(run)
    return retrieval(done.embeddings, done.labels, done.distance, ks=(1,)).precision_at_1.to_numpy(dtype=float)


def store(profile: str) -> list[Path]:
    """Make studies of a profile's finished cells, one a data set: ``data/reference/PROFILE_DATA.csv`` and ``.json``.

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
    for data in dict.fromkeys(task.values["data"] for task in grid.cells):
        tasks = [task for task in grid.cells if task.values["data"] == data]
        found = read_runs([result_path(task.output) for task in tasks])
        if found.runs.duplicated([*_KEY, "seed", "judged_by"]).any():
            raise ValueError(
                f"blocks of profile {profile} with {data} differ by their settings alone; they are no study"
            )
        rows = [grid.row(task) for task in tasks]
        about = _about(profile, data, tasks, [row for row in rows if row is not None])
        about |= {"rows": len(found.runs), "most_confused": found.confused.groupby(_KEY).head(12).to_dict("records")}
        path = data_folder("reference") / f"{profile}_{data}.csv"
        write_json(path.with_suffix(".json"), about)
        write_table(path, found.runs)
        paths.append(path)
    return paths


def _about(profile: str, data: str, tasks: list[Task], rows: list[dict[str, Any]]) -> dict[str, Any]:
    varied = {"seed", "backbone", "loss", "distance", "margin", "learning_rate"}
    shared = {key: value for key, value in rows[0]["parameters"].items() if key not in varied}
    chosen = {tuple(task.values[key] for key in _KEY): row["metrics"] for task, row in zip(tasks, rows, strict=True)}
    return {
        "command": f"snr study --profile {profile}, then snr study --profile {profile} --store",
        "grid": {"data": data, "seeds": sorted({task.values["seed"] for task in tasks}), "cells": len(tasks)},
        "settings": shared,
        "chosen": [
            dict(zip(_KEY, key, strict=True))
            | {name: metrics[f"setting {name}"] for name in ("margin", "learning_rate")}
            for key, metrics in chosen.items()
        ],
        "same_queries": _same_queries(tasks),
        "data": rows[-1]["data"],
        "core_minutes": round(sum(row["wall_time_s"] for row in rows) / 60, 1),
        "git_commit": sorted({str(row["git_commit"]) for row in rows}),
        "versions": rows[-1]["versions"],
        "finished": max(row["finished"] for row in rows),
    }


def _same_queries(tasks: list[Task]) -> list[dict[str, Any]]:
    """Against Euclid, on the same seeds and the same queries."""
    found: dict[tuple[str, str, str], dict[int, NDArray[np.float64]]] = {}
    for task in tasks:
        key = (task.values["backbone"], task.values["loss"], task.values["distance"])
        found.setdefault(key, {})[task.values["seed"]] = hits(result_path(task.output))
    rows = []
    for (backbone, loss, distance), own in found.items():
        euclid = found.get((backbone, loss, "euclidean"), {})
        if distance == "euclidean" or own.keys() != euclid.keys():
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
        names = {"backbone": backbone, "loss": loss, "distance": distance, "queries": both.queries}
        rows.append(names | {name: float(f"{value:.5g}") for name, value in numbers.items()})
    return rows
