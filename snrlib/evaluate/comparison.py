"""What `snrlib.evaluate.compare` returns: a table of scores, and what a difference between its rows is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from snrlib.stats import holm, paired_over_classes
from snrlib.utils.checks import check_choice, check_number

__all__ = ["SCORE_WORDS", "Comparison"]

SCORE_WORDS: Mapping[str, str] = {"precision_at_1": "R@1", "mean_average_precision_at_r": "MAP@R"}
"""The scores that differences are tested for, as the field calls them."""


class Comparison(pd.DataFrame):
    """One row per way to search, one column per score; and the scores of every query behind them.

    Attributes:
        queries: of each way the scores of each query, one row each, in the same order for all ways (that of the folds).
        query_classes: (queries,), the class of each.
        ranking: of each way a name for the order in which it ranks: two ways with one name rank alike, by algebra.
        about: how it was judged: numbers of classes, images, queries, folds, and so on.
    """

    _metadata: ClassVar[list[str]] = ["queries", "query_classes", "ranking", "about"]  # pandas copies them
    queries: Mapping[str, pd.DataFrame] = {}
    query_classes: NDArray[Any] = np.empty(0)
    ranking: Mapping[str, str] = {}
    about: Mapping[str, Any] = {}

    @property
    def _constructor(self) -> type[Comparison]:
        return Comparison

    def differences(
        self, baseline: str = "Euclid", score: str = "precision_at_1", level: float = 0.95, seed: int = 0
    ) -> pd.DataFrame:
        """Each way minus the baseline, paired by query (`snrlib.stats.paired_over_classes`).

        Ways that rank alike by algebra have the same neighbours: SNR with the query as anchor ranks as centred Euclid,
        relative Euclid so anchored as Euclid. They differ in EER alone. Such a way is not tested against its twin, nor
        one that found the same for every query; of twins the first is tested. All others are one family for Holm.

        Args:
            baseline: the way that the others are compared with.
            score: "precision_at_1" (R@1) or "mean_average_precision_at_r" (MAP@R).
            level: of the intervals, and 1 minus that of the tests.
            seed: of the draws.

        Returns:
            One row per other way: ``mean``; ``low`` and ``high``, the interval over classes; ``low_queries`` and
            ``high_queries``; ``p``, by sign flips of whole classes; ``p_holm``; ``effect``, over the means of classes;
            ``ranks_as``, the way that it ranks like, or ""; ``verdict``: "higher", "lower" or "no difference shown".

        Raises:
            ValueError: no such way or score, or fewer than two queries that have one.
        """
        check_choice(baseline, "baseline", [str(name) for name in self.queries])
        check_choice(score, "score", tuple(SCORE_WORDS))
        alpha = 1 - check_number(level, "level", above=0, at_most=1)
        base = self.queries[baseline][score].to_numpy()
        rows: dict[str, dict[str, Any]] = {}
        first = {self.ranking[baseline]: baseline}
        for name, scores in self.queries.items():
            if name == baseline:
                continue
            one = paired_over_classes(scores[score], base, self.query_classes, level, seed=seed)
            twin = first.setdefault(self.ranking[name], name)
            twin = "" if twin == name else twin
            same = np.array_equal(scores[score], base, equal_nan=True)
            rows[name] = {
                "mean": one.mean,
                **dict(zip(("low", "high"), one.over_classes, strict=True)),
                **dict(zip(("low_queries", "high_queries"), one.over_queries, strict=True)),
                "p": np.nan if twin or same else one.p,
                "effect": one.effect,
                "ranks_as": twin or (baseline if same else ""),
                "classes": one.classes,
                "queries": one.queries,
            }
        if not rows:
            raise ValueError(f"there is no way beside {baseline!r} to compare with it")
        table = pd.DataFrame(rows).T.infer_objects()
        table.insert(6, "p_holm", holm(table.p.astype(float)))
        shown = table.p_holm.to_numpy() < alpha
        upwards = table["mean"].to_numpy(dtype=float) > 0
        verdict = dict(
            zip(table.index, np.where(shown, np.where(upwards, "higher", "lower"), "no difference shown"), strict=True)
        )
        # What is shown of a way is shown of its twin.
        table["verdict"] = [verdict.get(twin or name, verdict[name]) for name, twin in table.ranks_as.items()]
        return table

    def answer(self, baseline: str = "Euclid", score: str = "precision_at_1", level: float = 0.95) -> str:
        """One plain sentence: what to use, by how much, or that no difference is shown.

        Arguments and errors are those of `differences`.
        """
        table = self.differences(baseline, score, level)
        tested = table[table.p.notna()]
        word, own = SCORE_WORDS[score], f"{_at(self, baseline, score):.3f}"
        C, ways = int(table.classes.max()), _count(len(tested), "way", "ways")
        size = f"{_count(C, 'class', 'classes')}, {_count(int(table.queries.max()), 'query', 'queries')}"
        if not len(tested):
            return f"All ways find the same as {baseline}: {word} is {own} ({size})."
        better, worse = ([str(name) for name in tested.index[tested.verdict == one]] for one in ("higher", "lower"))
        top = str(tested.loc[better or [*tested.index], "mean"].astype(float).idxmax())
        by = (
            f"{_at(tested, top, 'mean'):+.3f}, {level:.0%} interval over classes {_at(tested, top, 'low'):+.3f} to "
            f"{_at(tested, top, 'high'):+.3f}"
        )
        p = f"p = {_at(tested, top, 'p_holm'):.2g} after Holm's correction for {ways}"
        least = len(tested) * 2.0 ** (1 - min(C, 60))  # all classes agree, and Holm multiplies by the ways
        if least >= 1 - level:
            return (
                f"Too few classes to tell: with {_count(C, 'class', 'classes')} and {ways} no p can be below "
                f"{min(least, 1):.2g}, and {1 - level:.2g} is asked for; {word} is {own} under {baseline}, and {top} "
                f"differs the most upwards, {by} ({size})."
            )
        if better:
            also = [name for name in better if name != top]
            rest = f" Also shown to be better: {'; '.join(also)}." if also else ""
            return (
                f"Use {top}: {word} is {_at(self, top, score):.3f} instead of {own} under {baseline} ({by}; {p}; "
                f"{size}).{rest}"
            )
        shown = "no way is shown to be better" if worse else "no difference is shown"
        rest = f" Shown to be worse: {'; '.join(worse)}." if worse else ""
        return (
            f"Stay with {baseline}, {word} {own}: {shown}; the best of the others is {top}: {by} ({p}; {size}).{rest}"
        )


def _at(table: pd.DataFrame, row: str, column: str) -> float:
    return float(table.to_dict("index")[row][column])


def _count(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"
