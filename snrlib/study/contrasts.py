"""What acts in the SNR distance? Four contrasts, fixed before the first run, over the arms of the profiles ``acts_*``.

The SNR distance differs from Euclid's in more than one thing at a time: rows are centred, the distance is divided by a
unit, the unit is the anchor's own, and the gradient goes through it. Each contrast changes one of these and holds the
rest, the form of the loss included, which compares squares throughout. Where several pairs of arms differ by that one
thing, a seed counts with their mean. The differences are tested as one family (Holm); a difference that is not shown is
tested for equivalence, too: whether it lies within +-`EQUAL`. The profiles ``acts_*_near`` and ``acts_*_far`` have the
arms whose margins have one unit at one setting, where tuning cannot part them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from snrlib.stats import equivalence_test, holm, mean_interval, t_test, verdict
from snrlib.study.tables import under_training_distance

__all__ = ["CONTRASTS", "EQUAL", "Arm", "contrasts"]

EQUAL = 0.02
"""Differences of a score up to which two arms count as equal."""


class Arm(NamedTuple):
    """A way to compare two embeddings, as a study tells it: its distance, and the variant of that."""

    distance: str
    variant: str = ""


CONTRASTS: dict[str, tuple[tuple[Arm, Arm], ...]] = {
    "centring": (
        (Arm("centred_euclidean"), Arm("euclidean")),
        (Arm("centred_euclidean", "unit batch"), Arm("euclidean", "unit batch")),
        (Arm("snr", "unit detached"), Arm("relative_euclidean", "unit detached")),
        (Arm("snr"), Arm("relative_euclidean")),
        (Arm("symmetric_snr"), Arm("euclidean", "unit both")),
    ),
    "own unit": (
        (Arm("relative_euclidean"), Arm("euclidean", "unit batch")),
        (Arm("snr"), Arm("centred_euclidean", "unit batch")),
    ),
    "gradient through the unit": (
        (Arm("relative_euclidean"), Arm("relative_euclidean", "unit detached")),
        (Arm("snr"), Arm("snr", "unit detached")),
    ),
    "power": (
        (Arm("euclidean"), Arm("euclidean", "power 1")),
        (Arm("centred_euclidean"), Arm("centred_euclidean", "power 1")),
    ),
}
"""By name, pairs of arms that differ by it alone: with and without; for the unit the anchor's and the batch's, for the
power the square and the distance itself."""


def contrasts(
    runs: pd.DataFrame, score: str = "mean_average_precision_at_r", beside: str = "", level: float = 0.95
) -> pd.DataFrame:
    """Each of `CONTRASTS` that a study holds: its mean difference over the seeds, and what that says.

    Args:
        runs: of `snrlib.study.stored.Results`, of one data set, network and loss.
        score: the column.
        beside: what all variants have beside that of the arms, as "softplus" or "sgd"; "" is nothing.
        level: of confidence.

    Returns:
        Index ``contrast``; ``mean`` and ``half_width`` of the t-interval over the seeds, ``pairs`` of arms and
        ``seeds``; ``p`` of the t-test and ``p_holm``, corrected for the rows; ``p_equal`` of equivalence within
        +-`EQUAL` (`snrlib.stats.equivalence_test`); ``verdict``: higher, lower or no difference shown.

    Raises:
        ValueError: runs of several data sets, networks or losses, or none of the contrasts.
    """
    own = under_training_distance(runs)
    several = [name for name in ("data", "backbone", "loss") if own[name].nunique() != 1]
    if several:
        raise ValueError(f"runs must be of one data set, network and loss, got several or no {', '.join(several)}")
    wide = own.pivot(index="seed", columns=["distance", "variant"], values=score)
    rows: dict[str, dict[str, Any]] = {}
    for name, pairs in CONTRASTS.items():
        found = [(_with(a, beside), _with(b, beside)) for a, b in pairs]
        found = [(a, b) for a, b in found if a in wide and b in wide]
        if not found:
            continue
        values = pd.concat([wide[a] - wide[b] for a, b in found], axis=1).mean(axis=1, skipna=False).dropna()
        mean, half = mean_interval(values, level)
        rows[name] = {"mean": mean, "half_width": half, "pairs": len(found), "seeds": len(values)}
        rows[name] |= {"p": t_test(values), "p_equal": equivalence_test(values, EQUAL), "verdict": verdict(mean, half)}
    if not rows:
        raise ValueError(f"none of {', '.join(CONTRASTS)} is among these runs")
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("contrast")
    table.insert(5, "p_holm", holm(table.p))
    return table


def _with(arm: Arm, beside: str) -> tuple[str, str]:
    """Its distance and its variant, with what stands beside that."""
    return arm.distance, ", ".join(part for part in (arm.variant, beside) if part)
