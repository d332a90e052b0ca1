"""Intervals, tests and corrections against scipy, naive loops, simulated tables and their own symmetries."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from snrlib.stats import (
    effect_size,
    holm,
    mean_interval,
    paired,
    paired_over_queries,
    sign_flip_test,
    sign_test,
    stratified_interval,
    t_test,
    verdict,
)

GAINS = [0.031, 0.012, -0.008, 0.044, 0.027]
whole = st.lists(st.integers(-50, 50), min_size=3, max_size=7)  # sums of whole numbers are exact
chances = st.lists(st.floats(0, 1), min_size=1, max_size=12)


# --- one row of values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.95, 0.8])
@pytest.mark.parametrize("n", [2, 5, 40])
def test_interval_and_p_value_are_those_of_scipy(n: int, level: float) -> None:
    a, b = np.random.default_rng(n).normal(size=(2, n))
    mean, half = mean_interval(a - b, level)
    theirs = stats.ttest_rel(a, b)
    low, high = theirs.confidence_interval(level)
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-12)
    assert t_test(a - b) == pytest.approx(theirs.pvalue, rel=1e-12)


@pytest.mark.parametrize("level", [0.95, 0.8])
@given(whole)
def test_the_interval_leaves_zero_out_where_the_p_value_is_small(level: float, values: list[int]) -> None:
    mean, half = mean_interval(values, level)
    assume(abs(abs(mean) - half) > 1e-9)
    assert (verdict(mean, half) != "no difference shown") == (t_test(values) < 1 - level)


def test_a_t_interval_covers_in_95_of_100_simulated_tables() -> None:
    tables = np.random.default_rng(0).normal(3.0, 2.0, size=(2000, 5))
    found = [mean_interval(values) for values in tables]
    covered = np.mean([abs(mean - 3.0) <= half for mean, half in found])
    assert 0.94 < covered < 0.96
    assert 0.04 < np.mean([t_test(values - 3.0) < 0.05 for values in tables]) < 0.06


def test_the_interval_of_overlapping_splits_is_wider_by_the_published_factor() -> None:
    mean, half = mean_interval(GAINS, test_share=0.3)
    n, variance = len(GAINS), np.var(GAINS, ddof=1)
    assert mean == pytest.approx(np.mean(GAINS))
    assert half == pytest.approx(stats.t.ppf(0.975, n - 1) * math.sqrt((1 / n + 0.3 / 0.7) * variance))


def test_overlapping_splits_need_the_correction() -> None:
    rng, covered = np.random.default_rng(0), {0.0: 0, 0.3: 0}
    for _ in range(400):
        data = rng.normal(size=60)
        scores = [data[rng.permutation(60)[:18]].mean() for _ in range(10)]  # of test parts
        for share in covered:
            mean, half = mean_interval(scores, test_share=share)
            covered[share] += abs(mean) <= half
    assert covered[0.0] < 0.7 * 400
    assert 0.92 * 400 < covered[0.3] < 0.98 * 400


@given(whole)
def test_sign_flips_are_counted_exactly(values: list[int]) -> None:
    total = sum(values)
    flipped = [sum(s * v for s, v in zip(signs, values, strict=True)) for signs in _signs(len(values))]
    lower, upper = (np.mean([side * f >= side * total for f in flipped]) for side in (-1, 1))
    assert sign_flip_test(values) == pytest.approx(min(1, 2 * min(lower, upper)))


def _signs(n: int) -> itertools.product:
    return itertools.product((-1, 1), repeat=n)


@pytest.mark.parametrize("n", range(1, 9))
def test_the_smallest_p_value_of_sign_flips(n: int) -> None:
    values = np.arange(1, n + 1)
    assert sign_flip_test(values) == 2 / 2**n
    assert f"at least {2 / 2**n:.2g})" in repr(paired(values, 0 * values))


def test_sign_flips_hold_their_level_where_differences_are_not_normal() -> None:
    rng = np.random.default_rng(0)
    tables = rng.choice([-1, 1], size=(300, 6)) * rng.lognormal(sigma=2, size=(300, 6))
    assert np.mean([sign_flip_test(values) <= 0.0625 for values in tables]) == pytest.approx(0.0625, abs=0.04)


def test_many_sign_flips_are_drawn_at_random_from_the_seed() -> None:
    values = np.random.default_rng(0).normal(0.4, 1, size=20)
    first, again, other = (sign_flip_test(values, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first == pytest.approx(t_test(values), abs=0.02)


def test_the_effect_size_is_in_standard_deviations_and_corrected() -> None:
    d = np.mean(GAINS) / np.std(GAINS, ddof=1)
    assert effect_size(GAINS) == pytest.approx(d * 0.7978845608, rel=1e-9)  # Gamma(2) / (sqrt 2 Gamma(3/2))
    assert effect_size(GAINS[:3]) == pytest.approx(np.mean(GAINS[:3]) / np.std(GAINS[:3], ddof=1) / math.sqrt(math.pi))
    many = np.random.default_rng(0).normal(0.7, 1.0, size=(20_000, 5))
    assert np.mean([effect_size(values) for values in many]) == pytest.approx(0.7, abs=0.01)


@given(whole, st.integers(1, 5))
def test_signs_and_units_do_not_matter(values: list[int], scale: int) -> None:
    x = np.array(values, dtype=float)
    for unit in (-1, scale, -scale):
        mean, half = mean_interval(x)
        assert mean_interval(unit * x) == pytest.approx((unit * mean, abs(unit) * half))
        assert t_test(unit * x) == pytest.approx(t_test(x), abs=1e-12)
        assert sign_flip_test(unit * x) == pytest.approx(sign_flip_test(x))
        assert effect_size(unit * x) == pytest.approx(math.copysign(1, unit) * effect_size(x))


@given(whole, st.integers(-20, 20))
def test_a_shift_moves_the_mean_alone_and_a_common_one_nothing(values: list[int], shift: int) -> None:
    x = np.array(values)
    mean, half = mean_interval(x)
    assert mean_interval(x + shift) == pytest.approx((mean + shift, half))
    moved, still = (paired(x + c, np.zeros(len(x)) + c, n_resamples=50) for c in (shift, 0))
    assert moved == still


def test_one_seed_shows_nothing() -> None:
    found = paired([0.6], [0.5])
    assert found.mean == pytest.approx(0.1)
    assert (found.n, found.p_sign_flip) == (1, 1.0)
    assert all(map(math.isnan, (found.half_width, found.p, found.effect, found.low, found.high)))
    assert verdict(found.mean, found.half_width) == "no difference shown"
    assert math.isnan(effect_size([0.1, 0.2]))


@pytest.mark.parametrize(("value", "p", "effect"), [(0.25, 0.0, math.inf), (-0.25, 0.0, -math.inf), (0.0, 1.0, 0.0)])
def test_values_without_spread(value: float, p: float, effect: float) -> None:
    found = paired([value] * 4, [0.0] * 4)
    assert (found.mean, found.half_width, found.low, found.high) == (value, 0.0, value, value)
    assert (found.p, found.effect, found.p_sign_flip) == (p, effect, 0.125 if value else 1.0)


def test_a_comparison_speaks_in_a_notebook() -> None:
    said = repr(paired(GAINS, [0.0] * 5))
    assert said.startswith("Paired(no difference shown, +0.0212 ± 0.025, 5 seeds, p = 0.076 (sign flips 0.12, at least")
    low, high = paired(GAINS, [0.0] * 5, seed=0).low, paired(GAINS, [0.0] * 5, seed=0).high
    assert min(GAINS) < low < np.mean(GAINS) < high < max(GAINS)


@pytest.mark.parametrize(
    ("mean", "half_width", "word"),
    [
        (0.1, 0.05, "higher"),
        (-0.1, 0.05, "lower"),
        (0.1, 0.1, "no difference shown"),
        (-0.1, 0.2, "no difference shown"),
        (0.1, math.nan, "no difference shown"),
        (math.nan, math.nan, "no difference shown"),
    ],
)
def test_verdicts(mean: float, half_width: float, word: str) -> None:
    assert verdict(mean, half_width) == word


# --- Holm -------------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; the last may not fall below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([0.01, math.nan, 0.04]) == pytest.approx([0.02, math.nan, 0.04], nan_ok=True)
    assert np.isnan(holm([math.nan])).all()


@pytest.mark.parametrize("level", [0.05, 0.2, 0.5])
@given(chances)
def test_holm_rejects_step_by_step(level: float, p: list[float]) -> None:
    rejected = np.zeros(len(p), dtype=bool)
    for step, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if not p[index] * (len(p) - step) < level:
            break
        rejected[index] = True
    assert ((holm(p) < level) == rejected).all()


@given(chances)
def test_holm_keeps_order_and_lies_between_the_raw_and_bonferronis(p: list[float]) -> None:
    raw, adjusted = np.array(p), holm(p)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(1, len(p) * raw)).all()
    assert (np.diff(adjusted[np.argsort(raw)]) >= 0).all()
    order = np.random.default_rng(0).permutation(len(p))
    assert holm(raw[order]) == pytest.approx(adjusted[order], abs=0)


def test_holm_makes_a_false_difference_in_5_of_100_tables() -> None:
    tables = np.random.default_rng(0).normal(size=(1000, 12, 5))
    p = [[t_test(values) for values in table] for table in tables]
    assert 0.035 < np.mean([(holm(row) < 0.05).any() for row in p]) < 0.065
    assert np.mean([(np.array(row) < 0.05).any() for row in p]) > 0.4, "without it"


# --- seeds and queries ------------------------------------------------------------------------------------------------


def test_the_difference_over_seeds_and_queries_is_paired_in_both() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 4, 30)) < 0.6
    found = paired_over_queries(a, b)
    less = a.astype(float) - b
    assert found.mean == pytest.approx(less.mean())
    assert found.half_width == pytest.approx(mean_interval(less.mean(axis=1))[1])
    drawn = [less[:, rng.integers(30, size=30)].mean() for _ in range(4000)]
    assert found.over_queries == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)
    drawn = [less[np.ix_(rng.integers(4, size=4), rng.integers(30, size=30))].mean() for _ in range(4000)]
    assert found.over_both == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)
    assert (found.seeds, found.queries) == (4, 30)


def test_queries_without_a_score_are_left_out() -> None:
    a, b = np.random.default_rng(0).random((2, 3, 10))
    holes = np.insert(a, [2, 7], math.nan, axis=1), np.insert(b, [2, 7], math.nan, axis=1)
    assert paired_over_queries(*holes) == paired_over_queries(a, b)
    b[0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN in part of a column"):
        paired_over_queries(a, b)


@given(st.integers(-3, 3), st.sampled_from([1, 2, 4]))
@settings(max_examples=20)
def test_the_intervals_over_queries_move_with_shift_and_scale(shift: int, scale: int) -> None:
    a, b = np.random.default_rng(0).integers(0, 9, size=(2, 3, 12))
    one = paired_over_queries(a, b, n_resamples=100)
    other = paired_over_queries(scale * a + shift, scale * b, n_resamples=100)
    for field in ("over_queries", "over_both"):
        assert getattr(other, field) == pytest.approx([scale * end + shift for end in getattr(one, field)])
    assert other.half_width == pytest.approx(scale * one.half_width)


@pytest.mark.parametrize(
    ("seed_sd", "query_sd", "noise"), [(0.0, 0.0, 1.0), (0.0, 0.5, 0.5), (0.1, 0.3, 0.5), (0.3, 0.2, 0.3)]
)
def test_the_wider_of_the_two_intervals_covers_whatever_varies(seed_sd: float, query_sd: float, noise: float) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        less = (
            seed_sd * rng.normal(size=(5, 1)) + query_sd * rng.normal(size=(1, 80)) + noise * rng.normal(size=(5, 80))
        )
        found = paired_over_queries(less, 0 * less, n_resamples=200)
        covered += abs(found.mean) <= found.half_width or found.over_both[0] <= 0 <= found.over_both[1]
    assert covered >= 89


# --- counts and strata ------------------------------------------------------------------------------------------------


@given(st.integers(0, 12), st.integers(0, 12))
def test_the_sign_test_counts_all_ways_that_coins_fall(up: int, down: int) -> None:
    n = up + down
    ways = [math.comb(n, k) for k in range(n + 1)]
    as_uneven = sum(way for k, way in enumerate(ways) if abs(2 * k - n) >= abs(up - down))
    assert sign_test(up, down) == pytest.approx(as_uneven / 2**n)


def test_what_is_no_count_is_refused() -> None:
    for counts in ((1.5, 2), (-1, 2), (True, 2)):
        with pytest.raises(ValueError, match="up and down must be counts"):
            sign_test(*counts)


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_two_strata_give_the_interval_of_welch(level: float) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, size=4), rng.normal(0, 3, size=7)
    mean, half = stratified_interval([a, -b], level=level)
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(level)
    assert (2 * (mean - half), 2 * (mean + half)) == pytest.approx((low, high), rel=1e-12)
    assert stratified_interval([a], [5.0], level) == pytest.approx(mean_interval(a, level))


def test_the_stratified_interval_covers_for_these_strata_alone() -> None:
    rng, truth, weights = np.random.default_rng(0), np.array([-1.0, 0.0, 4.0]), [1.0, 0.5, 0.5]
    covered = 0
    for _ in range(1000):
        mean, half = stratified_interval(
            [rng.normal(m, s, 5) for m, s in zip(truth, (1, 2, 0.1), strict=True)], weights
        )
        covered += abs(mean - np.average(truth, weights=weights)) <= half
    assert 930 < covered < 975


def test_strata_that_give_no_interval_say_so() -> None:
    assert stratified_interval([[0.2, 0.2], [0.4, 0.4]]) == (pytest.approx(0.3), 0.0)
    mean, half = stratified_interval([[0.1, 0.3], [0.4]])
    assert mean == pytest.approx(0.3)
    assert math.isnan(half)
    for strata, weights in (([], None), ([[0.1]], [1.0, 2.0]), ([[0.1]], [0.0])):
        with pytest.raises(ValueError, match="need a positive weight for each stratum"):
            stratified_interval(strata, weights)
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\)"):
        stratified_interval([[0.1, 0.2]], level=95)


# --- bad inputs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [mean_interval, t_test, sign_flip_test, effect_size, holm])
def test_what_is_no_row_of_numbers_is_refused(function: Callable) -> None:
    name = "p_values" if function is holm else "values"
    with pytest.raises(ValueError, match=rf"{name} must have 1 dimension.* at least one number, got shape \(0,\)"):
        function([])
    with pytest.raises(ValueError, match=r"got shape \(2, 2\)"):
        function(np.full((2, 2), 0.5))
    with pytest.raises(ValueError, match=f"{name} must be finite, got NaN or infinity in 1 of 2"):
        function([0.5, math.inf])
    with pytest.raises(TypeError, match=rf"{name} must be numbers, got \['high', 'low'\]"):
        function(["high", "low"])


def test_values_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match=r"values must be finite, got NaN or infinity in 1 of 2"):
        mean_interval([0.5, math.nan])
    with pytest.raises(ValueError, match=r"p_values must be in \[0, 1\], got 1.5"):
        holm([0.5, 1.5])
    for level in (0, 1, 95, math.nan):
        with pytest.raises(ValueError, match=rf"level must be in \(0, 1\).*got {level}"):
            mean_interval(GAINS, level)
    with pytest.raises(ValueError, match=r"test_share in \[0, 1\), got 0.95 and 1"):
        mean_interval(GAINS, test_share=1)


def test_scores_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a and b must pair, got shapes \(5,\) and \(4,\)"):
        paired(GAINS, GAINS[:4])
    with pytest.raises(ValueError, match="b must be finite"):
        paired([1.0, 2.0], [1.0, math.nan])
    one, other = pd.Series([0.5, 0.6], index=[0, 1]), pd.Series([0.5, 0.6], index=[1, 0])
    with pytest.raises(ValueError, match=r"the same seeds as index, got \[0, 1\] and \[1, 0\]"):
        paired(one, other)
    with pytest.raises(ValueError, match=r"a must have 2 dimension.*got shape \(5,\)"):
        paired_over_queries(GAINS, GAINS)
    with pytest.raises(ValueError, match="needs two scores and a level in"):
        paired_over_queries([[1.0, math.nan]], [[0.0, math.nan]])
