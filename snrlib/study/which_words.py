"""What `snrlib.study.which` measured, in words that follow its numbers: which distance for which embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from snrlib.evaluate.comparison import SCORE_WORDS
from snrlib.utils.checks import check_choice

__all__ = ["answers", "best_ways", "set_names", "shown"]

SNR: tuple[str, ...] = ("SNR, anchor query", "SNR, anchor ref", "symmetric SNR")
"""The ways in units of the signal."""
WHITENED = "whitening, centred, length 1"


def set_names(scores: pd.DataFrame) -> list[str]:
    """The sets of a table, as "data, features", in its order."""
    return list(dict.fromkeys(scores.data + ", " + scores.features))


def shown(
    differences: pd.DataFrame, way: str, baseline: str = "Euclid", score: str = "precision_at_1"
) -> dict[str, list[str]]:
    """The sets where a way is shown to be "higher" or "lower" than the baseline, and those of "no difference shown".

    Args:
        differences: of `snrlib.study.which.measure_which`.
        way: a row of `snrlib.evaluate.compare`.
        baseline: one of `snrlib.study.which.BASELINES`.
        score: "precision_at_1" or "mean_average_precision_at_r".

    Raises:
        ValueError: no such way, baseline or score in the table.
    """
    for value, column in ((score, "score"), (baseline, "baseline"), (way, "way")):
        check_choice(value, column, list(dict.fromkeys(differences[column])))
    rows = differences[(differences.way == way) & (differences.baseline == baseline) & (differences.score == score)]
    names = rows.data + ", " + rows.features
    return {word: list(names[rows.verdict == word]) for word in ("higher", "lower", "no difference shown")}


def best_ways(
    scores: pd.DataFrame, differences: pd.DataFrame, baseline: str = "Euclid", score: str = "precision_at_1"
) -> pd.DataFrame:
    """The way to use on each set: of those shown to be higher than the baseline the highest; without any, the baseline.

    Args:
        scores: of `snrlib.study.which.measure_which`.
        differences: likewise.
        baseline: as for `shown`.
        score: likewise.

    Returns:
        Index the set; ``use``, ``classes``, ``images``, ``value`` and ``baseline``, the scores of both; ``mean``,
        ``low`` and ``high`` of their difference, 0 where the baseline stays; ``highest``, the way with the highest
        score, shown or not.
    """
    found = {}
    for name in set_names(scores):
        own = scores[scores.data + ", " + scores.features == name].set_index("way")
        rows = differences[
            (differences.data + ", " + differences.features == name)
            & (differences.baseline == baseline)
            & (differences.score == score)
        ]
        better = rows[(rows.verdict == "higher") & rows.p.notna()].set_index("way")
        use = str(better["mean"].idxmax()) if len(better) else baseline
        interval: Any = (
            better.loc[use, ["mean", "low", "high"]] if len(better) else dict.fromkeys(["mean", "low", "high"], 0.0)
        )
        found[name] = {
            "use": use,
            "classes": int(own.classes.iloc[0]),
            "images": int(own.images.iloc[0]),
            "value": own[score][use],
            "baseline": own[score][baseline],
            **{key: interval[key] for key in ("mean", "low", "high")},
            "highest": str(own[score].idxmax()),
        }
    return pd.DataFrame(found).T.infer_objects()


def answers(
    scores: pd.DataFrame, differences: pd.DataFrame, random: Mapping[str, Any], score: str = "precision_at_1"
) -> dict[str, str]:
    """A text for each question.

    Args:
        scores: of `snrlib.study.which.measure_which`.
        differences: likewise.
        random: what its ``which.json`` says of random vectors.
        score: "precision_at_1" or "mean_average_precision_at_r".
    """
    word, names = SCORE_WORDS[score], set_names(scores)
    best = best_ways(scores, differences, score=score)
    texts = {"What should be used?": "; ".join(_used(name, row, word) for name, row in best.iterrows()) + "."}
    ever = [name for name in names if best.use[name] in SNR]
    highest = [f"{name} ({best.highest[name]})" for name in names if best.highest[name] in SNR]
    told = [f"{way} minus {base}: {_counts(shown(differences, way, base, score))}" for way, base in _pairs(SNR)]
    texts["Is SNR ever the one to use?"] = (
        (f"Yes, on {'; '.join(ever)}" if ever else f"On none of these {len(names)} sets")
        + f", by {word}, starting from Euclid. Highest, shown or not, on {'; '.join(highest) or 'none'}. "
        + ". ".join(told)
        + "."
    )
    texts["And the cosine?"] = f"cosine minus Euclid: {_counts(shown(differences, 'cosine', 'Euclid', score))}."
    told = [f"minus {base}: {_counts(shown(differences, WHITENED, base, score))}" for base in ("Euclid", "cosine")]
    texts["Does a whitened search help?"] = f"{WHITENED}, {'; '.join(told)}."
    texts["Does the test cry wolf?"] = (
        "; ".join(_rate(how, k, random) for how, k in random["called"][score].items()) + "."
    )
    return texts


def _pairs(ways: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(way, base) for way in ways for base in ("Euclid", "cosine")]


def _used(name: Any, row: pd.Series, word: str) -> str:
    size = f"{row.classes:,} classes, {row.images:,} rows"
    if row.use == "Euclid":
        return f"{name} ({size}): Euclid, {word} {row.baseline:.3f}, no way is shown to be better"
    gain = f"{row['mean']:+.3f}, {row.low:+.3f} to {row.high:+.3f}"
    return f"{name} ({size}): {row.use}, {word} {row.value:.3f} instead of {row.baseline:.3f} ({gain})"


def _counts(found: Mapping[str, list[str]]) -> str:
    """How often each verdict, and where."""
    total = sum(map(len, found.values()))
    said = [
        f"{word} on {len(sets)}" + f" ({'; '.join(sets)})" * bool(sets)
        for word, sets in found.items()
        if word != "no difference shown"
    ]
    return f"{', '.join(said)} of {total}"


def _rate(how: str, count: int, random: Mapping[str, Any]) -> str:
    low, high = binomtest(count, random["draws"]).proportion_ci()
    share = count / random["draws"]
    return f"{how}: called in {count} of {random['draws']} draws, {share:.1%} ({low:.1%} to {high:.1%})"
