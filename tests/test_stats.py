"""Intervals, tests and corrections against scipy, naive loops and their own symmetries."""

import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import bad_options, refusals
from scipy import stats

from snrlib.stats import (
    effect_size,
    equivalence_test,
    holm,
    interval,
    mean_interval,
    paired,
    paired_over_classes,
    paired_over_queries,
    sign_flip_test,
    sign_test,
    stratified_interval,
    t_test,
    verdict,
)

GAINS = [0.031, 0.012, -0.008, 0.044, 0.027]
NAN = math.nan
few = settings(max_examples=40, deadline=None, derandomize=True)
whole = st.lists(st.integers(-50, 50), min_size=3, max_size=7)  # sums of whole numbers are exact
chances = st.lists(st.floats(0, 1), min_size=1, max_size=12)
levels = pytest.mark.parametrize("level", [0.95, 0.8])


@levels
def test_interval_and_p_value_are_those_of_scipy(level: float) -> None:
    for n in (2, 5, 40):
        a, b = np.random.default_rng(n).normal(size=(2, n))
        mean, half = mean_interval(a - b, level)
        theirs = stats.ttest_rel(a, b)
        assert (mean - half, mean + half) == pytest.approx(theirs.confidence_interval(level), rel=1e-12)
        assert t_test(a - b) == pytest.approx(theirs.pvalue, rel=1e-12)


@levels
@few
@given(whole, st.integers(1, 5), st.integers(-20, 20))
def test_intervals_and_tests_keep_their_symmetries(level: float, values: list[int], scale: int, shift: int) -> None:
    x = np.array(values, dtype=float)
    mean, half = mean_interval(x, level)
    assert mean_interval(x + shift, level) == pytest.approx((mean + shift, half))
    for unit in (-1, scale, -scale):
        assert mean_interval(unit * x, level) == pytest.approx((unit * mean, abs(unit) * half))
        assert t_test(unit * x) == pytest.approx(t_test(x), abs=1e-12)
        assert sign_flip_test(unit * x) == pytest.approx(sign_flip_test(x))
        assert effect_size(unit * x) == pytest.approx(math.copysign(1, unit) * effect_size(x))
    zeros = np.zeros(len(x))
    assert paired(x + shift, zeros + shift, n_resamples=50) == paired(x, zeros, n_resamples=50)
    assume(abs(abs(mean) - half) > 1e-9)  # the interval leaves 0 out where the p-value is small
    assert (verdict(mean, half) != "no difference shown") == (t_test(values) < 1 - level)


@few
@given(whole)
def test_sign_flips_are_counted_exactly(values: list[int]) -> None:
    total, signs = sum(values), itertools.product((-1, 1), repeat=len(values))
    flipped = [sum(s * v for s, v in zip(one, values, strict=True)) for one in signs]
    lower, upper = (np.mean([side * f >= side * total for f in flipped]) for side in (-1, 1))
    assert sign_flip_test(values) == pytest.approx(min(1, 2 * min(lower, upper)))


def test_sign_flips_say_their_smallest_p_value() -> None:
    for n in range(1, 9):
        values = np.arange(1, n + 1)
        assert sign_flip_test(values) == 2 / 2**n
        assert f"at least {2 / 2**n:.2g})" in repr(paired(values, 0 * values))


def test_many_sign_flips_are_drawn_from_the_seed() -> None:
    values = np.random.default_rng(0).normal(0.4, 1, size=20)
    first, again, other = (sign_flip_test(values, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first == pytest.approx(t_test(values), abs=0.02)


def test_overlapping_splits_need_the_published_correction() -> None:
    mean, half = mean_interval(GAINS, test_share=0.3)
    error = math.sqrt((1 / 5 + 0.3 / 0.7) * np.var(GAINS, ddof=1))
    assert (mean, half) == pytest.approx((np.mean(GAINS), stats.t.ppf(0.975, 4) * error))
    rng, covered = np.random.default_rng(0), {0.0: 0, 0.3: 0}
    for _ in range(400):
        data = rng.normal(size=60)
        scores = [data[rng.permutation(60)[:18]].mean() for _ in range(10)]  # of test parts
        for share in covered:
            mean, half = mean_interval(scores, test_share=share)
            covered[share] += abs(mean) <= half
    assert covered[0.0] < 0.7 * 400 < 0.92 * 400 < covered[0.3] < 0.98 * 400


@pytest.mark.parametrize("shift", [0.0, 0.015, -0.03, 0.5])
def test_equivalence_is_two_tests_of_scipy(shift: float) -> None:
    gains, bound = np.array(GAINS) + shift, 0.05
    above = stats.ttest_1samp(gains, -bound, alternative="greater").pvalue
    below = stats.ttest_1samp(gains, bound, alternative="less").pvalue
    assert equivalence_test(gains, bound) == pytest.approx(max(above, below))
    assert equivalence_test(-gains, bound) == pytest.approx(equivalence_test(gains, bound))
    assert math.isnan(equivalence_test([0.1], bound))
    assert (equivalence_test([0.04, 0.04], bound), equivalence_test([0.05, 0.05], bound)) == (0, 1)
    with pytest.raises(ValueError, match="bound must be above 0, got 0"):
        equivalence_test(gains, 0)


def test_the_effect_size_is_corrected_for_few_values() -> None:
    d = np.mean(GAINS) / np.std(GAINS, ddof=1)
    assert effect_size(GAINS) == pytest.approx(d * 0.7978845608, rel=1e-9)  # Gamma(2) / (sqrt 2 Gamma(3/2))
    assert effect_size(GAINS[:3]) == pytest.approx(np.mean(GAINS[:3]) / np.std(GAINS[:3], ddof=1) / math.sqrt(math.pi))


def test_one_seed_shows_nothing() -> None:
    found = paired([0.6], [0.5])
    assert (found.n, found.mean, found.p_sign_flip) == (1, pytest.approx(0.1), 1.0)
    assert all(map(math.isnan, (found.half_width, found.p, found.effect, found.low, found.high)))
    assert verdict(found.mean, found.half_width) == "no difference shown"
    assert math.isnan(effect_size([0.1, 0.2]))


@pytest.mark.parametrize(("value", "p", "effect"), [(0.25, 0.0, math.inf), (-0.25, 0.0, -math.inf), (0.0, 1.0, 0.0)])
def test_values_without_spread_are_sure(value: float, p: float, effect: float) -> None:
    found = paired([value] * 4, [0.0] * 4)
    assert (found.mean, found.half_width, found.low, found.high) == (value, 0.0, value, value)
    assert (found.p, found.effect, found.p_sign_flip) == (p, effect, 0.125 if value else 1.0)


def test_a_comparison_speaks_in_a_notebook() -> None:
    found = paired(GAINS, [0.0] * 5)
    begins = "Paired(no difference shown, +0.0212 ± 0.025, 5 seeds, p = 0.076 (sign flips 0.12, at least"
    assert repr(found).startswith(begins)
    assert min(GAINS) < found.low < np.mean(GAINS) < found.high < max(GAINS)
    verdicts = [(0.1, 0.05), (-0.1, 0.05), (0.1, 0.1), (-0.1, 0.2), (0.1, NAN), (NAN, NAN)]
    assert [verdict(*one) for one in verdicts] == ["higher", "lower", *4 * ["no difference shown"]]


@few
@given(chances)
def test_holm_rejects_step_by_step_keeping_order(p: list[float]) -> None:
    raw, adjusted = np.array(p), holm(p)
    for level in (0.05, 0.2, 0.5):
        rejected = np.zeros(len(p), dtype=bool)
        for step, index in enumerate(np.argsort(raw, kind="stable")):
            if not p[index] * (len(p) - step) < level:
                break
            rejected[index] = True
        assert ((adjusted < level) == rejected).all()
    assert (adjusted <= np.minimum(1, len(p) * raw)).all()  # Bonferroni's
    assert (np.diff(adjusted[np.argsort(raw)]) >= 0).all()
    assert np.isnan(holm([NAN])).all()
    holes = holm([NAN, *p, NAN])
    assert np.isnan(holes[[0, -1]]).all()
    assert (holes[1:-1] == adjusted).all()


@few
@given(st.integers(0, 12), st.integers(0, 12))
def test_the_sign_test_counts_falls_of_coins(up: int, down: int) -> None:
    n = up + down
    ways = [math.comb(n, k) for k in range(n + 1)]
    as_uneven = sum(way for k, way in enumerate(ways) if abs(2 * k - n) >= abs(up - down))
    assert sign_test(up, down) == pytest.approx(as_uneven / 2**n)


@levels
def test_two_strata_give_the_interval_of_welch(level: float) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, size=4), rng.normal(0, 3, size=7)
    mean, half = stratified_interval([a, -b], level=level)
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(level)
    assert (2 * (mean - half), 2 * (mean + half)) == pytest.approx((low, high), rel=1e-12)
    assert stratified_interval([a], [5.0], level) == pytest.approx(mean_interval(a, level))
    assert stratified_interval([[0.2, 0.2], [0.4, 0.4]], level=level) == (pytest.approx(0.3), 0.0)
    assert stratified_interval([[0.1, 0.3], [0.4]], level=level) == pytest.approx((0.3, NAN), nan_ok=True)


def test_seeds_and_queries_are_both_paired() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 4, 30)) < 0.6
    found, minus = paired_over_queries(a, b), a.astype(float) - b
    assert (found.seeds, found.queries, found.mean) == (4, 30, pytest.approx(minus.mean()))
    assert found.half_width == pytest.approx(mean_interval(minus.mean(axis=1))[1])
    queries = [minus[:, rng.integers(30, size=30)].mean() for _ in range(4000)]
    both = [minus[np.ix_(rng.integers(4, size=4), rng.integers(30, size=30))].mean() for _ in range(4000)]
    for ends, drawn in ((found.over_queries, queries), (found.over_both, both)):
        assert ends == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)
    moved = paired_over_queries(2.0 * a + 3, 2.0 * b)
    assert moved.over_both == pytest.approx([2 * end + 3 for end in found.over_both])
    holes = (np.insert(x.astype(float), [2, 7], NAN, axis=1) for x in (a, b))  # queries without a score
    assert paired_over_queries(*holes) == found


@pytest.mark.parametrize(("seed_sd", "query_sd", "noise"), [(0.0, 0.0, 1.0), (0.0, 0.5, 0.5), (0.3, 0.2, 0.3)])
def test_the_wider_interval_covers_whatever_varies(seed_sd: float, query_sd: float, noise: float) -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(100):
        parts = zip((seed_sd, query_sd, noise), ((5, 1), (1, 80), (5, 80)), strict=True)
        minus = sum(sd * rng.normal(size=shape) for sd, shape in parts)
        found = paired_over_queries(minus, 0 * minus, n_resamples=200)
        covered += abs(found.mean) <= found.half_width or found.over_both[0] <= 0 <= found.over_both[1]
    assert covered >= 89


one_way, other_way = pd.Series([0.5, 0.6], index=[0, 1]), pd.Series([0.5, 0.6], index=[1, 0])
counted: Any = sign_test

test_what_is_no_row_of_numbers_is_refused = refusals(
    (lambda: t_test([]), ValueError, r"values must have 1 dimension.* at least one number, got shape \(0,\)"),
    (lambda: holm(np.full((2, 2), 0.5)), ValueError, r"p_values must have 1 dimension.* got shape \(2, 2\)"),
    (lambda: sign_flip_test([0.5, math.inf]), ValueError, "values must be finite, got NaN or infinity in 1 of 2"),
    (lambda: effect_size(["high", "low"]), TypeError, r"values must be numbers, got \['high', 'low'\]"),
    (lambda: mean_interval([0.5, NAN]), ValueError, "values must be finite, got NaN or infinity in 1 of 2"),
    (lambda: holm([0.5, 1.5]), ValueError, r"p_values must be in \[0, 1\], got 1.5"),
    *bad_options(partial(mean_interval, GAINS), level=[0, 1, 95, NAN]),
    *bad_options(partial(stratified_interval, [[0.1, 0.2]]), level=[95]),
    (lambda: mean_interval(GAINS, test_share=1), ValueError, r"test_share in \[0, 1\), got 0.95 and 1"),
    *((partial(counted, up, 2), ValueError, f"up and down must be counts, got {up} and 2") for up in (1.5, -1, True)),
    *(
        (partial(stratified_interval, x, w), ValueError, "need a positive weight for each stratum")
        for x, w in (([], None), ([[0.1]], [1.0, 2.0]), ([[0.1]], [0.0]))
    ),
    (lambda: paired(GAINS, GAINS[:4]), ValueError, r"a and b must pair, got shapes \(5,\) and \(4,\)"),
    (lambda: paired([1.0, 2.0], [1.0, NAN]), ValueError, "b must be finite"),
    (lambda: paired(one_way, other_way), ValueError, r"same seeds as index, got \[0, 1\] and \[1, 0\]"),
    (lambda: paired_over_queries(GAINS, GAINS), ValueError, r"a must have 2 dimension.*got shape \(5,\)"),
    (lambda: paired_over_queries([[1.0, NAN]], [[0.0, NAN]]), ValueError, "needs two scores and a level in"),
    (lambda: paired_over_queries([[1.0], [0.0]], [[1.0], [NAN]]), ValueError, "NaN in part of a column"),
)


def _classes(C: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(C)
    classes = np.repeat(np.arange(C), rng.integers(1, 6, C))
    a, b = rng.integers(0, 2, (2, len(classes))).astype(float)
    a[classes == 1] = b[classes == 1] = np.nan
    return a, b, rng.permutation(C)[classes].astype(str)


def test_classes_are_drawn_with_all_their_queries() -> None:
    a, b, classes = _classes(7)
    found = paired_over_classes(a, b, classes, n_resamples=20_000)
    parts = [(a - b)[(classes == one) & ~np.isnan(a)] for one in np.unique(classes)]
    parts = [part for part in parts if len(part)]
    assert (found.classes, found.queries) == (6, sum(map(len, parts)))
    assert found.mean == pytest.approx(np.concatenate(parts).mean())
    rng = np.random.default_rng(1)
    means = [np.concatenate([parts[c] for c in rng.integers(6, size=6)]).mean() for _ in range(5000)]
    assert found.over_classes == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.03)
    assert found.over_queries == interval((a - b), n_resamples=20_000)
    assert found.effect == effect_size([part.mean() for part in parts])


@pytest.mark.parametrize("C", [3, 7, 13])
def test_signs_of_whole_classes_are_flipped(C: int) -> None:
    a, b, classes = _classes(C)
    sums = pd.Series(a - b).groupby(classes).sum().to_numpy()
    flipped = [abs(np.dot(signs, sums)) for signs in itertools.product([-1, 1], repeat=C)]
    assert paired_over_classes(a, b, classes).p == np.mean(np.array(flipped) >= abs(sums.sum()))


def test_many_queries_have_the_interval_of_few() -> None:
    less = np.random.default_rng(0).integers(-1, 2, 10_001).astype(float)
    found = paired_over_classes(less, 0 * less, np.arange(10_001) // 2)
    assert found.over_queries == pytest.approx(interval(less), abs=1e-3)


def test_many_classes_flip_signs_at_random() -> None:
    rng = np.random.default_rng(0)
    classes = np.arange(400) // 10
    b = rng.normal(size=400)
    a = b + 0.5 + np.repeat(rng.normal(size=40), 10)
    found = paired_over_classes(a, b, classes)
    assert found == paired_over_classes(a, b, classes)
    assert found.p == pytest.approx(t_test(pd.Series(a - b).groupby(classes).mean()), abs=0.01)
    wide, narrow = (high - low for low, high in (found.over_classes, found.over_queries))
    assert wide > 2 * narrow, "classes vary, queries of one class do not"


test_classes_that_do_not_pair_are_refused = refusals(
    (lambda: paired_over_classes([1, 0], [1, 0], [0]), ValueError, r"must pair, got shapes \(2,\), \(2,\) and \(1,\)"),
    (lambda: paired_over_classes([1, math.nan, 0], [1, 0, 0], [0, 0, 1]), ValueError, "NaN in one of them"),
    (lambda: paired_over_classes([1], [0], [0]), ValueError, "an interval needs two scores"),
    (lambda: paired_over_classes(["a", "b"], [0, 1], [0, 1]), TypeError, "a must be numbers"),
)
