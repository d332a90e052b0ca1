"""The scoreboard: stored studies in one table, each distance against Euclid, with what the differences come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from snrlib.data import DATASETS
from snrlib.stats import mean_interval, sign_test, stratified_interval, verdict
from snrlib.study import stored
from snrlib.study.stored import KEY, Results
from snrlib.study.tables import (
    corrected,
    differences,
    paired_differences,
    summary,
    under_training_distance,
)
from snrlib.study.untrained import untrained_runs, untrained_scores

__all__ = [
    "BOARD",
    "SCORES",
    "SHOWN",
    "by_search_and_training",
    "mean_differences",
    "scoreboard",
    "tally",
    "training_helped",
]

BOARD: tuple[str, ...] = (
    "boards_glyphs",
    "boards_omniglot",
    "omniglot",
    "cars",
    "birds",
    "acts_birds",
    "full_cub_features",
    "full_cub200",
)
"""The studies on the scoreboard."""
SHOWN: tuple[str, ...] = ("snr", "relative_euclidean", "cosine", "mahalanobis", "relative_mahalanobis")
"""The distances that are compared with Euclid, in the order of their panels."""
SCORES: dict[str, str] = {"precision_at_1": "R@1", "mean_average_precision_at_r": "MAP@R", "r_precision": "R-precision"}
"""How the columns are called in words."""
_FIRST = "mean_average_precision_at_r"  # the score of the protocol by which a training is tuned, and is said to help
_FEWEST = 3  # data sets of which an interval speaks of others: of two it is 13 standard errors wide
_WORDS = ("higher", "lower", "no difference shown")


def scoreboard(studies: Sequence[str], score: str = "precision_at_1", level: float = 0.95) -> pd.DataFrame:
    """Every network, loss and distance of some stored studies, judged by its training distance, query as anchor.

    Args:
        studies: names, as `snrlib.study.stored.read` takes them. What one of them measured, the later ones do not
            again: of each data set, network and loss the first study counts.
        score: the column that is compared.
        level: of confidence.

    Returns:
        One row each: study, data, backbone, loss, distance, map; mean over seeds and ``half_width`` of its t-interval,
        seeds; ``difference`` to Euclid under the same loss, paired by seed, ``difference_half_width``, ``verdict``,
        ``p`` of the paired t-test, ``p_holm``, corrected for all differences of this table as one family but for
        relative Euclid, a near-copy of SNR (`snrlib.study.tables.corrected`), and ``effect`` (`snrlib.stats`). Where
        single queries were kept and R@1 is compared, ``low`` and ``high`` are the interval of the difference over
        seeds and queries together (`snrlib.stats.paired_over_queries`), at 95 %. ``untrained``: what the network gives
        before training, by cosine; ``classes`` and ``images`` of the gallery; ``helped``, see `training_helped`. NaN
        and "" where nothing is compared or known; verdict and p also where training did not help.

    Raises:
        FileNotFoundError: a study that is not stored.
        ValueError: no study, or one that is damaged or has no Euclid.
    """
    if not studies:
        raise ValueError("studies must name at least one study, got none")
    key = list(KEY)
    tables = []
    for name, found in _each_once(studies):
        own = under_training_distance(found.runs)
        against = differences(own, "distance", "euclidean", score, level).reset_index()
        against = against.drop(columns=["seeds", "p_holm"])
        against = against.rename(columns={"mean": "difference", "half_width": "difference_half_width"})
        table = summary(own, score, level).reset_index().drop(columns=["judge", "anchor"]).merge(against, "left", key)
        queries = pd.DataFrame(found.about.get("same_queries", []), columns=[*KEY[1:], "low", "high"])
        if score != "precision_at_1":
            queries = queries[:0]
        queries = queries.astype({"low": float, "high": float})
        before = untrained_scores(name, score).rename(columns={"mean": "untrained"})[["untrained", "classes", "images"]]
        table = table.merge(queries, "left", key[1:]).merge(before, "left", left_on="backbone", right_index=True)
        helped = training_helped(name, level).rename("helped")
        tables.append(table.merge(helped, "left", on=["backbone", "loss"]).assign(study=name))
    board = pd.concat(tables, ignore_index=True)
    board["verdict"] = board.verdict.astype(object).fillna("").where(board.helped, "")
    board["p"] = board.p.where(board.helped)
    board.insert(list(board.columns).index("p") + 1, "p_holm", corrected(board))
    return board[["study", *(column for column in board if column != "study")]]


def _each_once(studies: Sequence[str]) -> Iterator[tuple[str, Results]]:
    """Stored studies, the later ones without the networks and losses that an earlier one has of the same data set."""
    seen: set[tuple[str, str, str]] = set()
    for name in studies:
        found = stored.read(name)
        keys = list(found.runs[["data", "backbone", "loss"]].itertuples(index=False, name=None))
        usual = (found.runs.variant == "").to_numpy()
        runs = found.runs[[key not in seen for key in keys] & usual]
        seen |= set(keys)
        if not under_training_distance(runs).empty:
            yield name, replace(found, runs=runs)


def training_helped(study: str, level: float = 0.95) -> pd.Series:
    """Whether training beats doing nothing, by data, network and loss; what does not, counts in no comparison.

    It does if the best arm, by its mean MAP@R, has more than the same network untrained under cosine, by an interval
    over the seeds that leaves 0 out: a rule that is the same for every arm, and favours none. Where it is not known
    what doing nothing gives, it does.

    Args:
        study: its name.
        level: of confidence.

    Returns:
        Booleans by ``backbone`` and ``loss``.

    Raises:
        FileNotFoundError: it is not stored.
    """
    return _helped(study, level, stored.state(study) + stored.state("untrained")).copy()


@lru_cache(maxsize=32)
def _helped(study: str, level: float, files: tuple[tuple[str, int, int], ...]) -> pd.Series:
    before, runs = untrained_runs(study), under_training_distance(stored.read_table(study))
    runs = runs[runs.variant == ""]
    found = {}
    for (backbone, loss), part in runs.groupby(["backbone", "loss"], sort=False):
        arms = part.pivot(index="seed", columns=["distance", "map", "variant"], values=_FIRST)
        best = arms[arms.mean().idxmax()]
        nothing = before[before.backbone == backbone].groupby("seed")[_FIRST].mean() if _FIRST in before else best[:0]
        if nothing.dropna().empty:
            found[backbone, loss] = True
            continue
        gain = best - nothing.reindex(best.index).fillna(nothing.mean())  # given features have no seed
        mean, half = mean_interval(gain, level)
        found[backbone, loss] = bool(mean - half > 0)
    return pd.Series(found, dtype=bool).rename_axis(["backbone", "loss"])


def _that_count(name: str, found: Results, level: float) -> pd.DataFrame:
    """The runs of a study whose training helped."""
    runs = found.runs
    helped = training_helped(name, level)
    keys = runs[["backbone", "loss"]].itertuples(index=False, name=None)
    return runs[[bool(helped.get(key, False)) for key in keys]]


def tally(board: pd.DataFrame, by: Sequence[str] = ("distance",), level: float = 0.95) -> pd.DataFrame:
    """How often a distance is higher or lower than Euclid.

    Args:
        board: of `scoreboard`.
        by: its columns that make the rows.
        level: of confidence; 1 - level is the bound of the corrected p-values.

    Returns:
        Counts: "higher", "lower", "no difference shown" by themselves; of these, "higher, Holm" and "lower, Holm" also
        with the correction, missing where none is in the family; "p", of the exact sign test of higher against lower.
    """
    compared = board[board.verdict != ""]
    rows = {}
    for key, part in compared.groupby(list(by), sort=False):
        counts: dict[str, Any] = {word: int((part.verdict == word).sum()) for word in _WORDS}
        certain = part[part.p_holm < 1 - level]
        corrected = part.p_holm.notna().any()
        counts |= {f"{word}, Holm": int((certain.verdict == word).sum()) if corrected else None for word in _WORDS[:2]}
        rows[key] = counts | {"p": sign_test(counts["higher"], counts["lower"])}
    table = _table(rows, by)
    return table.astype(dict.fromkeys(table.columns[:-1], "Int64"))


def mean_differences(
    studies: Sequence[str],
    score: str = "precision_at_1",
    by: Sequence[str] = ("distance", "map", "loss"),
    level: float = 0.95,
    baseline: str = "euclidean",
) -> pd.DataFrame:
    """Mean differences to Euclid over all data, networks and seeds, each data set counted once, with two intervals.

    What training did not help (`training_helped`) is left out.

    Networks of one data set share its images, so what is averaged first is their differences, seed by seed and network
    by network; the data set is the unit, and with it what has its images too (`snrlib.data.DataSet.same_images_as`).
    ``half_width`` is of the t-interval over the means of data sets, K - 1 degrees of freedom: it speaks of other data,
    and with three or four it is wide, as it must be (a bootstrap of so few is too narrow; of fewer than three there is
    none). ``half_width_seeds`` is of `snrlib.stats.stratified_interval` over seeds, network by network: it speaks of
    other trainings on these same data.

    Args:
        studies: as for `scoreboard`.
        score: the column that is compared.
        by: the columns of `snrlib.study.stored.KEY` that make the rows.
        level: of confidence.
        baseline: another distance than Euclid; studies without it are passed over, and without any there is no row.

    Returns:
        ``mean``, ``half_width``, ``verdict``; ``half_width_seeds``, ``verdict_seeds``; how many ``data_sets``,
        ``comparisons`` (networks and losses) and ``runs``. An interval that cannot be had is NaN.

    Raises:
        FileNotFoundError, ValueError: as `scoreboard`.
    """
    counted = [_that_count(name, found, level) for name, found in _each_once(studies)]
    pairs = [
        paired_differences(under_training_distance(runs), "distance", baseline, score)
        for runs in counted
        if (runs.distance == baseline).any()
    ]
    if not pairs:
        return pd.DataFrame(index=pd.Index([], name=by[0]))
    return _over_data(pd.concat(pairs, ignore_index=True), "difference", by, level)


def _over_data(pairs: pd.DataFrame, column: str, by: Sequence[str], level: float) -> pd.DataFrame:
    """``column``, a number per run, averaged for each value of ``by``, as `mean_differences` says."""
    rows = {}
    for key, part in pairs.groupby(list(by), sort=False):
        strata = [
            (_images(str(names[0])), values.to_numpy()) for names, values in part.groupby(list(KEY), sort=False)[column]
        ]
        data = [name for name, _ in strata]
        weights = [1 / data.count(name) for name in data]
        mean, half_seeds = stratified_interval([values for _, values in strata], weights, level)
        means = [np.mean([values.mean() for other, values in strata if other == name]) for name in dict.fromkeys(data)]
        half = mean_interval(means, level)[1] if len(means) >= _FEWEST else float("nan")
        rows[key] = {
            "mean": mean,
            "half_width": half,
            "verdict": verdict(mean, half),
            "half_width_seeds": half_seeds,
            "verdict_seeds": verdict(mean, half_seeds),
            "data_sets": len(means),
            "comparisons": len(strata),
            "runs": len(part),
        }
    return _table(rows, by)


def _images(data: str) -> str:
    """The data set that counts for ``data``."""
    return DATASETS[data].same_images_as or data if data in DATASETS else data


def _table(rows: dict[Any, dict[str, Any]], by: Sequence[str]) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples(list(rows), names=list(by))
    return pd.DataFrame(list(rows.values()), index if len(by) > 1 else index.get_level_values(0))


def by_search_and_training(
    studies: Sequence[str], score: str = "precision_at_1", level: float = 0.95
) -> dict[str, pd.DataFrame]:
    """Where differences to Euclid come from: the search under another distance, or what was trained under it.

    A network trained under a distance is searched under it, and under Euclid as well. What the first has over the
    second is due to the search; what the second has over the network that was trained under Euclid, to training. With
    the query as anchor a relative distance ranks as its absolute twin does, so of R@K the search can change nothing
    but through the row mean (SNR) or not at all (relative Euclid): that is algebra, no finding. Of EER it can.
    Distances with a map are left out: a layer can take over any part of it, and the split would mean nothing.

    Args:
        studies: as for `scoreboard`.
        score: the column that is compared.
        level: of confidence.

    Returns:
        ``search``, ``training`` and ``difference``, their sum: each a table as `mean_differences`, by distance, over
        the runs that have a partner.

    Raises:
        FileNotFoundError: a study that is not stored.
    """
    tables = []
    for name, found in _each_once(studies):
        runs = _that_count(name, found, level)
        runs = runs[runs["map"] == ""]
        key = [*KEY, "seed"]
        own = under_training_distance(runs)
        by_euclid = runs[runs.judge == "euclidean"].set_index(key)[score].rename("by_euclid")
        parts = own[own.distance != "euclidean"].set_index(key)[[score]].join(by_euclid).reset_index()
        alike = [*KEY[:3], "seed"]
        euclid = own[own.distance == "euclidean"].set_index(alike)[score].rename("euclid")
        parts = parts.join(euclid, on=alike)
        parts["search"], parts["training"] = parts[score] - parts.by_euclid, parts.by_euclid - parts.euclid
        parts["difference"] = parts.search + parts.training
        tables.append(parts.dropna(subset=["difference"]))
    pairs = pd.concat(tables, ignore_index=True)
    return {column: _over_data(pairs, column, ["distance"], level) for column in ("search", "training", "difference")}
