"""What a difference between trainings is worth: intervals, paired tests, effect sizes, many looks at one table.

Trainings with the same seed share first weights and batches and are compared in pairs: ``values`` are one number per
seed, as a rule a difference. An interval over seeds speaks of other trainings on these images, one over queries
(`interval`) of other images for these trainings, `paired_over_queries` of both, and `paired_over_classes` of other
classes for one set of embeddings. All raise TypeError
or ValueError for what is no row of finite numbers, or a level outside (0, 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln
from scipy.stats import binomtest, bootstrap, permutation_test
from scipy.stats import t as student_t

__all__ = [
    "OverClasses",
    "Paired",
    "TwoLevel",
    "effect_size",
    "equivalence_test",
    "holm",
    "interval",
    "mean_interval",
    "paired",
    "paired_over_classes",
    "paired_over_queries",
    "sign_flip_test",
    "sign_test",
    "stratified_interval",
    "t_test",
    "verdict",
]


def mean_interval(values: ArrayLike, level: float = 0.95, test_share: float = 0.0) -> tuple[float, float]:
    """The mean and the half width of its t-interval, ``t sd sqrt(1/n + test share / training share)``; NaN for one.

    Scores of random splits of one data set are not independent, since their training parts overlap; the second term
    under the root corrects for that (Nadeau and Bengio 2003, doi:10.1023/A:1024068626366). Seeds need none.

    Args:
        values: (n,), one per seed or split.
        level: of confidence.
        test_share: 0 for seeds; for random splits the share that was tested, below 1.

    >>> [round(x, 4) for x in mean_interval([0.01, 0.02, 0.06])]
    [0.03, 0.0657]
    """
    x = _numbers(values)
    if not 0 < level < 1 or not 0 <= test_share < 1:
        raise ValueError(f"level must be in (0, 1) and test_share in [0, 1), got {level!r} and {test_share!r}")
    if len(x) == 1:
        return float(x[0]), float("nan")
    error = x.std(ddof=1) * np.sqrt(1 / len(x) + test_share / (1 - test_share))
    return float(x.mean()), float(student_t.ppf((1 + level) / 2, len(x) - 1) * error)


def interval(scores: ArrayLike, level: float = 0.95, n_resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over queries, of one column of `snrlib.evaluate.retrieval`.

    It tells how much the score owes to the choice of the queries; not how it would vary over trainings or classes.

    Args:
        scores: one a query; NaN is left out.
        level: of confidence, in (0, 1).
        n_resamples: bootstrap samples.
        seed: of these.

    Raises:
        ValueError: fewer than two scores, or a level outside (0, 1).
    """
    values = np.asarray(scores, dtype=float)
    values = values[~np.isnan(values)]
    if len(values) < 2 or not 0 < level < 1:
        raise ValueError(f"an interval needs two scores and a level in (0, 1), got {len(values)} and {level}")
    done = bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=n_resamples, batch=100, method="percentile", rng=seed
    )
    return float(done.confidence_interval.low), float(done.confidence_interval.high)


def t_test(values: ArrayLike) -> float:
    """Two-sided p-value of the t-test that the mean is 0; of paired differences it is the paired t-test.

    It is below ``1 - level`` where `mean_interval` leaves 0 out; NaN for one value, and without spread 0, or 1 if all
    are 0. It takes the differences for normal, which a handful can neither show nor refute; see `sign_flip_test`.
    """
    x = _numbers(values)
    if len(x) == 1:
        return float("nan")
    error = x.std(ddof=1) / np.sqrt(len(x))
    return float(2 * student_t.sf(abs(x.mean()) / error, len(x) - 1)) if error else float(not x.any())


def equivalence_test(values: ArrayLike, bound: float) -> float:
    """p of the two one-sided t-tests (Schuirmann 1987): small where the mean lies between -bound and bound.

    "No difference shown" is not "no difference": this is the test of the second. The larger of the two p-values, of
    ``mean <= -bound`` and of ``mean >= bound``; NaN for one value.

    Args:
        values: (n,), differences.
        bound: the largest difference that means nothing, above 0.

    >>> round(equivalence_test([0.001, -0.002, 0.003, 0.000], 0.02), 5)
    0.00017
    """
    x = _numbers(values)
    if not bound > 0:
        raise ValueError(f"bound must be above 0, got {bound!r}")
    if len(x) == 1:
        return float("nan")
    error = x.std(ddof=1) / np.sqrt(len(x))
    if error == 0:
        return float(abs(x.mean()) >= bound)
    return float(student_t.cdf((abs(x.mean()) - bound) / error, len(x) - 1))


def sign_flip_test(values: ArrayLike, n_resamples: int = 2**14, seed: int = 0) -> float:
    """Two-sided p-value of the permutation test that flips the signs of paired differences, all 2^n ways.

    It asks only that a difference and its negative are equally likely if there is none in truth. The price: it is
    never below 2 / 2^n, which is 0.25 for three seeds, 0.0625 for five and 0.031 for six. With more than 14 seeds
    ``n_resamples`` ways are drawn at random.
    """
    x = _numbers(values)
    if len(x) == 1:
        return 1.0
    return float(permutation_test((x,), np.mean, permutation_type="samples", n_resamples=n_resamples, rng=seed).pvalue)


def sign_test(up: int, down: int) -> float:
    """Exact two-sided p-value that ups and downs are equally frequent; ties are not counted, and 1 without any.

    It takes the counted cases for independent. Comparisons that share images or networks are not, and then it is too
    small: what it does not show is not there to be seen, what it shows wants an interval beside it.

    >>> sign_test(5, 6), round(sign_test(10, 0), 4)
    (1.0, 0.002)
    """
    for count in (up, down):
        if isinstance(count, bool) or int(count) != count or count < 0:
            raise ValueError(f"up and down must be counts, got {up!r} and {down!r}")
    return float(binomtest(int(up), int(up + down)).pvalue) if up + down else 1.0


def stratified_interval(
    strata: Sequence[ArrayLike], weights: ArrayLike | None = None, level: float = 0.95
) -> tuple[float, float]:
    """The weighted mean of the means of strata and the half width of its t-interval, the strata themselves fixed.

    ``sum_k w_k mean_k +- t sqrt(sum_k w_k^2 s_k^2 / n_k)``, each stratum with its own variance; the degrees of freedom
    of t are Welch's and Satterthwaite's. With networks as strata and seeds as values it speaks of other trainings of
    these networks, not of other networks: for those take `mean_interval` of the means. NaN if a stratum has one value.

    Args:
        strata: rows of values, (n_k,) each.
        weights: (K,), made to sum to 1; None weighs all strata alike.
        level: of confidence.

    >>> [round(x, 4) for x in stratified_interval([[0.01, 0.02, 0.06], [0.03, 0.05, 0.04]])]
    [0.035, 0.0287]
    """
    values = [_numbers(one) for one in strata]
    w = np.ones(len(values)) if weights is None else _numbers(weights, "weights")
    if not values or len(w) != len(values) or (w <= 0).any():
        raise ValueError(f"need a positive weight for each stratum, got {len(w)} for {len(values)}")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level!r}")
    w = w / w.sum()
    mean = float(sum(weight * x.mean() for weight, x in zip(w, values, strict=True)))
    if min(map(len, values)) == 1:
        return mean, float("nan")
    parts = np.array([weight**2 * x.var(ddof=1) / len(x) for weight, x in zip(w, values, strict=True)])
    if not parts.any():
        return mean, 0.0
    freedom = parts.sum() ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, values, strict=True))
    return mean, float(student_t.ppf((1 + level) / 2, freedom) * np.sqrt(parts.sum()))


def effect_size(values: ArrayLike) -> float:
    """Cohen's d_z, the mean of paired differences in units of *their* standard deviation, with Hedges' correction.

    It says how surely a single seed shows the sign, not how large a gain is: where seeds agree, one point is a large
    effect. The factor ``J = Gamma(f/2) / (sqrt(f/2) Gamma((f-1)/2))``, f = n - 1, makes it unbiased for normal values:
    0.56 for three seeds, 0.80 for five. NaN for fewer than three; without spread infinite, or 0 if all are 0.
    """
    x = _numbers(values)
    if (f := len(x) - 1) < 2:
        return float("nan")
    mean, spread = x.mean(), x.std(ddof=1)
    if spread == 0:
        return float(np.copysign(np.inf, mean)) if mean else 0.0
    return float(np.exp(gammaln(f / 2) - gammaln((f - 1) / 2)) / np.sqrt(f / 2) * mean / spread)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's p-values (1979): the k-th smallest of m times m - k + 1, none smaller than one before it, at most 1.

    Calling all below 0.05 differences makes a false one in at most 5 % of such tables, however the tests depend. NaN,
    a test that was not made, stays and is not counted.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = _numbers(p_values, "p_values", missing=True)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"p_values must be in [0, 1], got {p[(p < 0) | (p > 1)][0]:g}")
    order = np.argsort(p)[: (~np.isnan(p)).sum()]  # NaN comes last
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return adjusted


def verdict(mean: float, half_width: float) -> str:
    """An interval in words: "higher", "lower", or "no difference shown" if it holds 0 or is not known (NaN)."""
    return ("higher" if mean > 0 else "lower") if abs(mean) > half_width else "no difference shown"


@dataclass(frozen=True)
class Paired:
    """What `paired` found, by `mean_interval`, `t_test`, `sign_flip_test` and `effect_size`, over ``n`` seeds.

    ``low`` and ``high`` are the percentile bootstrap interval, for few seeds too narrow (some 85 % instead of 95 %
    for five normal differences): a look at whether the t-interval hangs on its symmetric shape.
    """

    mean: float
    half_width: float
    n: int
    p: float
    p_sign_flip: float
    effect: float
    low: float
    high: float

    def __repr__(self) -> str:
        found = f"{verdict(self.mean, self.half_width)}, {self.mean:+.3g} ± {self.half_width:.2g}, {self.n} seeds"
        flips = f"sign flips {self.p_sign_flip:.2g}, at least {2 / 2**self.n:.2g}"
        rest = f"effect {self.effect:.2g}, bootstrap {self.low:+.3g} to {self.high:+.3g}"
        return f"Paired({found}, p = {self.p:.2g} ({flips}), {rest})"


def paired(a: ArrayLike, b: ArrayLike, level: float = 0.95, n_resamples: int = 2000, seed: int = 0) -> Paired:
    """``a`` minus the baseline ``b``, (n,) each, paired by seed; two pandas Series must have the same index."""
    less = _difference(a, b, 1)
    mean, half = mean_interval(less, level)
    low, high = interval(less, level, n_resamples, seed) if len(less) > 1 else (float("nan"), float("nan"))
    return Paired(mean, half, len(less), t_test(less), sign_flip_test(less), effect_size(less), low, high)


@dataclass(frozen=True)
class TwoLevel:
    """What `paired_over_queries` found; ``half_width`` is that of the t-interval over seeds, these queries kept."""

    mean: float
    half_width: float
    over_queries: tuple[float, float]
    over_both: tuple[float, float]
    seeds: int
    queries: int


def paired_over_queries(
    a: ArrayLike, b: ArrayLike, level: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> TwoLevel:
    """``a`` minus the baseline ``b``, paired by seed *and* query.

    Every seed answers the same queries: the levels are crossed, not nested. The bootstrap over both draws seeds and,
    independently, queries, and keeps the rectangle (pigeonhole bootstrap, Owen 2007, doi:10.1214/07-AOAS122); queries
    drawn anew within each seed would take what is hard for all of them for chance that averages out. It is too wide
    where answers are mostly noise, and too narrow where three or five seeds differ more than queries do. There the
    t-interval over seeds is the wider: a difference is shown where both leave out 0.

    Args:
        a: (seeds, queries), as hits; NaN, a query without a score, in whole columns only.
        b: the same of the baseline.
        level: of confidence.
        n_resamples: bootstrap samples.
        seed: of these.
    """
    less = _difference(a, b, 2)
    missing = np.isnan(less)
    if (missing.any(axis=0) != missing.all(axis=0)).any():
        raise ValueError("a query without a score must have none in all seeds, got NaN in part of a column")
    less = less[:, ~missing.any(axis=0)]
    S, Q = less.shape
    over_queries = interval(less.mean(axis=0), level, n_resamples, seed)
    mean, half = mean_interval(less.mean(axis=1), level)
    rng = np.random.default_rng(seed)
    often = rng.multinomial(S, [1 / S] * S, n_resamples) / S
    drawn = [(weights @ less)[rng.integers(Q, size=Q)].mean() for weights in often]
    low, high = (float(np.quantile(drawn, q)) for q in ((1 - level) / 2, (1 + level) / 2))
    return TwoLevel(mean, half, over_queries, (low, high), S, Q)


_MANY = 10_000  # queries, whose mean is as good as normal


@dataclass(frozen=True)
class OverClasses:
    """What `paired_over_classes` found: mean difference, intervals, p by sign flips, effect, and of how many."""

    mean: float
    over_classes: tuple[float, float]
    over_queries: tuple[float, float]
    p: float
    effect: float
    classes: int
    queries: int


def paired_over_classes(
    a: ArrayLike, b: ArrayLike, classes: ArrayLike, level: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> OverClasses:
    """``a`` minus the baseline ``b``, of the same queries, which come in classes.

    Queries of one class are not independent: what moves one moves the others. So the first interval draws whole
    classes, each with all its queries (cluster bootstrap; Field and Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x),
    and the test flips the signs of whole classes. With S_c the sum and n_c the number of the differences of class c:

        mean = sum_c S_c / sum_c n_c          p = share of signs s with |sum_c s_c S_c| >= |sum_c S_c|

    All 2^C signs for up to 14 classes, else 2^14 of them at random, and the ones that were seen. So p is never below
    2 / 2^C, which is above .05 for fewer than six classes. The second interval draws queries as if they came alone:
    where it is much the narrower, the classes are what varies. Of over 10,000 queries it is the t-interval.

    Args:
        a: (queries,), as hits; NaN, a query without a score, in both or in neither.
        b: the same of the baseline.
        classes: (queries,), a number or word for each.
        level: of confidence.
        n_resamples: bootstrap samples.
        seed: of these, and of the signs.

    Returns:
        ``effect`` is `effect_size` of the means of the classes.

    Raises:
        TypeError, ValueError: as all here; fewer than two queries with a score.

    >>> found = paired_over_classes([1, 1, 1, 0], [0, 0, 1, 0], ["auk", "auk", "gull", "tern"])
    >>> found.mean, found.p, found.classes
    (0.5, 1.0, 3)
    """
    x, y = (_numbers(values, name, missing=True) for values, name in ((a, "a"), (b, "b")))
    given = np.asarray(classes)
    if not x.shape == y.shape == given.shape:
        raise ValueError(f"a, b and classes must pair, got shapes {x.shape}, {y.shape} and {given.shape}")
    if (np.isnan(x) != np.isnan(y)).any():
        raise ValueError("a query without a score must have none in a and none in b, got NaN in one of them")
    less, known = (x - y)[~np.isnan(x)], given[~np.isnan(x)]
    over_queries = interval(less, level, n_resamples, seed) if len(less) <= _MANY else _normal(less, level)
    _, members = np.unique(known, return_inverse=True)
    S, n = np.bincount(members, less).astype(float), np.bincount(members)
    C = len(n)
    rng = np.random.default_rng(seed)
    rows = max(1, 2**22 // C)  # so many draws at a time
    drawn = []
    for start in range(0, n_resamples, rows):
        often = rng.multinomial(C, np.full(C, 1 / C), min(rows, n_resamples - start))
        drawn.append((often @ S) / (often @ n))
    low, high = (float(np.quantile(np.concatenate(drawn), q)) for q in ((1 - level) / 2, (1 + level) / 2))
    effect = effect_size(S / n)
    return OverClasses(float(less.mean()), (low, high), over_queries, _flips(S, rng), effect, C, len(less))


def _normal(less: NDArray[np.float64], level: float) -> tuple[float, float]:
    mean, half = mean_interval(less, level)
    return mean - half, mean + half


def _flips(S: NDArray[np.float64], rng: np.random.Generator, n: int = 2**14) -> float:
    """Share of signs that bring the sum of S as far from 0 as it is."""
    S = S[S != 0]  # whose sign does not matter
    C = len(S)
    bound = abs(S.sum()) * (1 - 1e-12)  # sums that are equal but for rounding
    if n >= 2**C:
        signs = (np.arange(2**C)[:, None] >> np.arange(C) & 1) * 2 - 1
        return float((abs(signs @ S) >= bound).mean())
    rows = max(1, 2**22 // C)
    far = sum(
        int((abs((rng.integers(0, 2, (min(rows, n - start), C), dtype=np.int8) * 2 - 1) @ S) >= bound).sum())
        for start in range(0, n, rows)
    )
    return (far + 1) / (n + 1)


def _numbers(values: Any, name: str = "values", ndim: int = 1, missing: bool = False) -> NDArray[np.float64]:
    try:
        x = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be numbers, got {values!r:.80}") from error
    if x.ndim != ndim or x.size == 0:
        raise ValueError(f"{name} must have {ndim} dimension(s) and at least one number, got shape {x.shape}")
    if np.isinf(x).any() or (not missing and np.isnan(x).any()):
        raise ValueError(f"{name} must be finite, got NaN or infinity in {(~np.isfinite(x)).sum()} of {x.size}")
    return x


def _difference(a: Any, b: Any, ndim: int) -> NDArray[np.float64]:
    if isinstance(a, pd.Series) and isinstance(b, pd.Series) and not a.index.equals(b.index):
        raise ValueError(f"a and b must have the same seeds as index, got {list(a.index)} and {list(b.index)}")
    x, y = (_numbers(values, name, ndim, missing=ndim == 2) for values, name in ((a, "a"), (b, "b")))
    if x.shape != y.shape:
        raise ValueError(f"a and b must pair, got shapes {x.shape} and {y.shape}")
    return x - y
