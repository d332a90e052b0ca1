"""LMNN against loops over triplets, finite differences and the properties of its objective; errors over splits."""

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import check_grad, minimize
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor

from snrlib.mahalanobis import LMNN, lmnn
from snrlib.mahalanobis.lmnn import objective, target_neighbours
from snrlib.study.fitted_maps import MAPS, balance, split_errors


def classes(n: int = 60, M: int = 4, seed: int = 0, apart: float = 1.5, n_classes: int = 3) -> tuple[NDArray, NDArray]:
    """Correlated components; the means of the classes lie ``apart`` standard deviations from their common mean."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return rng.normal(size=(n, M)) @ rng.normal(size=(M, M)) + apart * rng.normal(size=(n_classes, M))[y] + 5, y


def rotation(M: int, seed: int = 0) -> NDArray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(M, M)))[0]


@parametrize_with_checks([LMNN(), LMNN(1, init="pca"), LMNN(1, init="lda")])
def test_lmnn_keeps_the_rules_of_scikit_learn(estimator: BaseEstimator, check) -> None:
    check(estimator)


# --- the objective ----------------------------------------------------------------------------------------------------


def naive_objective(L: Tensor, X: NDArray, y: NDArray, targets: NDArray, mu: float) -> tuple[Tensor, int]:
    """Equations 11 to 13 of the paper, triplet by triplet, over the number of targets; and the number of impostors."""
    z = torch.from_numpy(X) @ L.T
    total, impostors = torch.zeros((), dtype=torch.float64), set()
    for i in range(len(X)):
        for j in targets[i]:
            near = ((z[i] - z[j]) ** 2).sum()
            total = total + (1 - mu) * near
            for l in range(len(X)):
                hinge = 1 + near - ((z[i] - z[l]) ** 2).sum()
                if y[i] != y[l] and hinge > 0:
                    total = total + mu * hinge
                    impostors.add((i, l))
    return total / targets.size, len(impostors)


OBJECTIVES = pytest.mark.parametrize(
    ("rows", "mu", "k"), [(4, 0.5, 3), (4, 0.5, 1), (4, 0.0, 2), (4, 1.0, 2), (2, 0.3, 3), (1, 0.8, 2), (6, 0.5, 3)]
)


def problem(rows: int, k: int, n: int = 18) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """L, X, y and targets, with impostors and without kinks nearby."""
    X, y = classes(n)
    return np.random.default_rng(rows).normal(size=(rows, 4)) / 3, X, y, target_neighbours(X, y, k)


@OBJECTIVES
def test_objective_gradient_and_impostors_equal_the_loops(rows: int, mu: float, k: int) -> None:
    L, X, y, targets = problem(rows, k)
    value, gradient, impostors = objective(L, X, y, targets, mu)
    of = torch.from_numpy(L).requires_grad_()
    expected, count = naive_objective(of, X, y, targets, mu)
    assert value == pytest.approx(expected.item(), rel=1e-12)
    assert impostors == count
    assert 0 < count < 18 * 12
    (by_autograd,) = torch.autograd.grad(expected, of)
    np.testing.assert_allclose(gradient, by_autograd.numpy(), rtol=1e-9, atol=1e-12)


@OBJECTIVES
def test_the_gradient_equals_finite_differences(rows: int, mu: float, k: int) -> None:
    L, X, y, targets = problem(rows, k)

    def value(flat: NDArray) -> float:
        return objective(flat.reshape(L.shape), X, y, targets, mu)[0]

    def gradient(flat: NDArray) -> NDArray:
        return objective(flat.reshape(L.shape), X, y, targets, mu)[1].ravel()

    assert check_grad(value, gradient, L.ravel(), epsilon=1e-7) <= 1e-5 * np.linalg.norm(gradient(L.ravel()))


def test_without_impostors_only_the_targets_count() -> None:
    X, y = classes(apart=1000.0)
    targets = target_neighbours(X, y, 3)
    value, gradient, impostors = objective(np.eye(4), X, y, targets, 0.3)
    difference = (X[:, None] - X[targets]).reshape(-1, 4)
    assert impostors == 0
    assert value == pytest.approx(0.7 * np.square(difference).sum(axis=1).mean())
    np.testing.assert_allclose(gradient, 1.4 * difference.T @ difference / len(difference), rtol=1e-8)


@pytest.mark.parametrize("block", [1, 18, 5 * 18, 17 * 18 + 3])
def test_the_size_of_a_block_does_not_matter(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    L, X, y, targets = problem(3, 3)
    value, gradient, impostors = objective(L, X, y, targets, 0.5)
    monkeypatch.setattr(lmnn, "_BLOCK", block)
    in_blocks = objective(L, X, y, targets, 0.5)
    assert in_blocks[0] == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(in_blocks[1], gradient, rtol=1e-10, atol=1e-13)
    assert in_blocks[2] == impostors


def test_the_objective_is_convex_in_the_matrix_but_not_in_the_map() -> None:
    _, X, y, targets = problem(4, 3, n=60)
    rng = np.random.default_rng(0)

    def value(matrix: NDArray) -> float:
        values, vectors = np.linalg.eigh(matrix)
        return objective(np.sqrt(values.clip(0))[:, None] * vectors.T, X, y, targets, 0.5)[0]

    for _ in range(20):
        one, other = (L.T @ L for L in rng.normal(size=(2, rng.integers(1, 5), 4)) / rng.integers(1, 6))
        share = rng.uniform()
        between = value(share * one + (1 - share) * other)
        assert between <= share * value(one) + (1 - share) * value(other) + 1e-9
    L = LMNN().fit(X, y).components_  # -L is as good, and 0 lies between
    ends = [objective(sign * L, X, y, targets, 0.5)[0] for sign in (1, -1)]
    assert ends[0] == ends[1] < objective(0 * L, X, y, targets, 0.5)[0]


def test_a_rotation_from_the_left_leaves_the_objective_and_turns_the_gradient() -> None:
    L, X, y, targets = problem(4, 3)
    Q = rotation(4)
    value, gradient, impostors = objective(L, X, y, targets, 0.5)
    turned = objective(Q @ L, X, y, targets, 0.5)
    assert turned[0] == pytest.approx(value, rel=1e-12)
    assert turned[2] == impostors
    np.testing.assert_allclose(turned[1], Q @ gradient, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_the_targets_are_the_nearest_of_the_class(k: int) -> None:
    X, y = classes()
    targets = target_neighbours(X, y, k)
    for cls in range(3):
        rows = np.flatnonzero(y == cls)
        expected = rows[NearestNeighbors(n_neighbors=k).fit(X[rows]).kneighbors()[1]]
        assert np.array_equal(targets[rows], expected)
    assert np.array_equal(LMNN(k, max_iter=500).fit(X, y).targets_, targets)


def test_a_twin_is_a_target_and_a_sample_never_its_own() -> None:
    X, y = classes()
    X[3], X[6] = X[0], X[0]
    targets = target_neighbours(X, y, 2)
    assert [set(targets[i].tolist()) for i in (0, 3, 6)] == [{3, 6}, {0, 6}, {0, 3}]


# --- the fit ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", [{}, {"mu": 0.9}, {"init": "lda"}, {"n_components": 2, "init": "pca"}], ids=str)
def test_the_objective_never_rises_and_ends_at_the_map(options: dict[str, Any], seed: int) -> None:
    X, y = classes(seed=seed)
    L = LMNN(**options).fit(X, y)
    assert len(L.objective_) == L.n_iter_ + 1 > 2
    assert (np.diff(L.objective_) <= 0).all()
    value, _, impostors = objective(L.components_, X, y, L.targets_, L.mu)
    assert L.objective_[-1] == pytest.approx(value, rel=1e-9)
    assert L.n_impostors_ == impostors


def test_the_impostors_are_those_of_the_map_and_not_of_the_last_one_that_was_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def one_try_more(fun: Any, x0: NDArray, **options: Any) -> Any:
        found = minimize(fun, x0, **options)
        fun(0 * x0)
        return found

    X, y = classes()
    expected = LMNN().fit(X, y).n_impostors_
    monkeypatch.setattr(lmnn, "minimize", one_try_more)
    assert LMNN().fit(X, y).n_impostors_ == expected


def test_every_regular_start_ends_at_the_same_objective() -> None:
    for seed in range(3):
        X, y = classes(seed=seed)
        starts: list[Any] = ["identity", "pca", *np.random.default_rng(seed).normal(size=(2, 4, 4)), 5 * rotation(4)]
        ends = [LMNN(init=start, tol=1e-12, max_iter=2000).fit(X, y).objective_[-1] for start in starts]
        assert max(ends) <= 1.001 * min(ends)


def test_of_columns_of_noise_the_map_makes_little_and_impostors_become_few() -> None:
    X, y = classes(120, seed=1, apart=4.0)
    X = np.column_stack([X, 10 * np.random.default_rng(2).normal(size=(120, 3))])
    fitted = LMNN().fit(X, y)
    before = objective(np.eye(7), X, y, fitted.targets_, 0.5)[2]
    assert fitted.n_impostors_ < before / 10
    lengths = np.linalg.norm(fitted.components_, axis=0)
    assert lengths[4:].max() < lengths[:4].min() / 3
    plain, mapped = (NearestNeighbors(n_neighbors=1).fit(z).kneighbors()[1][:, 0] for z in (X, fitted.transform(X)))
    assert (y[mapped] != y).sum() <= 2 < 10 <= (y[plain] != y).sum()


@pytest.mark.parametrize("offset", [1.0, 1e3, 1e6])
def test_a_translation_of_the_data_changes_nothing(offset: float) -> None:
    X, y = classes()
    moved = LMNN().fit(X + offset * np.array([1, -2, 3, 4]), y)
    fitted = LMNN().fit(X, y)
    assert moved.n_iter_ == fitted.n_iter_
    np.testing.assert_allclose(moved.components_, fitted.components_, rtol=1e-6, atol=1e-6)


def test_a_rotation_of_the_data_turns_the_matrix() -> None:
    X, y = classes()
    Q = rotation(4)
    fitted, turned = LMNN().fit(X, y), LMNN().fit(X @ Q.T, y)
    expected = Q @ fitted.get_mahalanobis_matrix() @ Q.T
    np.testing.assert_allclose(turned.get_mahalanobis_matrix(), expected, rtol=1e-4, atol=1e-4)


def test_a_map_with_a_null_direction_is_a_pseudo_metric() -> None:
    X, y = classes()
    fitted = LMNN(n_components=3).fit(X, y)
    null = np.linalg.svd(fitted.components_)[2][-1]
    assert fitted.pair_distance(np.stack([X, X + 7 * null], axis=1)) == pytest.approx(0, abs=1e-10)
    assert np.linalg.eigvalsh(fitted.get_mahalanobis_matrix())[0] == pytest.approx(0, abs=1e-10)
    assert (fitted.pair_distance(np.stack([X[:-1], X[1:]], axis=1)) > 0.01).all()


def test_without_a_push_all_samples_are_drawn_to_one_point() -> None:
    X, y = classes()
    fitted = LMNN(mu=0).fit(X, y)
    assert fitted.objective_[-1] < 1e-3 * fitted.objective_[0]
    assert np.abs(fitted.transform(X) - fitted.transform(X).mean(axis=0)).max() < 0.1
    assert fitted.n_impostors_ == 60 * 40


def test_without_a_pull_a_map_of_separable_data_grows_until_no_impostor_is_left() -> None:
    X, y = classes(apart=10.0)
    start = np.eye(4) / 20
    fitted = LMNN(mu=1, init=start).fit(X, y)
    assert objective(start, X, y, fitted.targets_, 1.0)[2] > 0
    assert fitted.objective_[-1] == fitted.n_impostors_ == 0
    assert np.linalg.norm(fitted.components_) > np.linalg.norm(start)


def test_the_rows_of_the_map_are_as_many_as_asked_for_and_it_starts_where_init_says() -> None:
    X, y = classes()
    L = np.random.default_rng(0).normal(size=(3, 4))
    axes = PCA().fit(X).components_
    discriminants = LinearDiscriminantAnalysis().fit(X, y).scalings_.T
    cases: list[tuple[Any, int | None, NDArray]] = [
        ("identity", None, np.eye(4)),
        ("identity", 2, np.eye(4)[:2]),
        ("pca", None, axes),
        ("pca", 3, axes[:3]),
        ("lda", None, discriminants),
        ("lda", 1, discriminants[:1]),
        (L, None, L),
        (L.tolist(), 3, L),
    ]
    for init, rows, start in cases:
        fitted = LMNN(init=init, n_components=rows).fit(X, y)
        assert fitted.components_.shape == start.shape == (len(start), 4)
        assert fitted.objective_[0] == pytest.approx(objective(start, X, y, fitted.targets_, 0.5)[0])
        assert fitted.transform(X).shape == (60, len(start))


def test_a_matrix_to_start_from_survives_clone_and_fit() -> None:
    X, y = classes()
    init = np.eye(4)
    estimator = LMNN(init=init)
    assert np.array_equal(clone(estimator).fit(X, y).components_, estimator.fit(X, y).components_)
    assert np.array_equal(init, np.eye(4))


def test_names_of_classes_may_be_words() -> None:
    X, y = classes()
    assert np.array_equal(LMNN().fit(X, np.array(["auk", "gull", "tern"])[y]).components_, LMNN().fit(X, y).components_)
    assert np.array_equal(LMNN().fit(X, 10 * y - 7).components_, LMNN().fit(X, y).components_)


def test_two_fits_give_the_same_bits_and_leave_the_data_alone() -> None:
    X, y = classes()
    copy = X.copy()
    one, other = LMNN().fit(X, y), LMNN().fit(X, y)
    assert np.array_equal(one.components_, other.components_)
    assert np.array_equal(one.objective_, other.objective_)
    assert np.array_equal(X, copy)


def test_too_few_iterations_are_warned_of() -> None:
    X, y = classes()
    with pytest.warns(ConvergenceWarning, match="did not converge in 1 iterations: raise max_iter, or standardise X"):
        fitted = LMNN(max_iter=1).fit(X, y)
    assert fitted.n_iter_ == 1
    assert fitted.objective_[1] < fitted.objective_[0]
    assert fitted.transform(X).shape == X.shape


def changed(X: NDArray, row: int, column: int, value: float) -> NDArray:
    X = X.copy()
    X[row, column] = value
    return X


X, Y = classes()


@pytest.mark.parametrize(
    ("options", "X", "y", "message"),
    [
        ({"n_neighbors": 20}, X, Y, "20 target neighbours of its class, but the smallest class .* has 20 samples"),
        ({}, X, np.where(np.arange(60) < 57, 0, 1), "3 target neighbours .*n_samples = 60, .* has 3 samples"),
        ({}, X, np.zeros(60, int), "at least two classes, got 1 class"),
        ({}, np.column_stack([X, np.ones(60)]), Y, r"1 of the 5 columns of X are constant \(4\)"),
        ({}, changed(X, 3, 2, np.nan), Y, "Input X contains NaN"),
        ({}, changed(X, 3, 2, np.inf), Y, "Input X contains infinity"),
        ({}, X, None, r"LMNN\(\) requires y to be passed, but the target y is None"),
        ({}, X, Y[1:], r"inconsistent numbers of samples: \[60, 59\]"),
        ({}, X, X[:, 0], "Unknown label type: continuous"),
        ({"n_neighbors": 0}, X, Y, "n_neighbors must be a whole number, at least 1, got 0"),
        ({"n_neighbors": 2.5}, X, Y, "n_neighbors must be a whole number, at least 1, got 2.5"),
        ({"mu": 1.5}, X, Y, "mu must be a finite number at least 0 and at most 1, got 1.5"),
        ({"mu": -0.1}, X, Y, "mu must be a finite number at least 0 and at most 1, got -0.1"),
        ({"tol": -1}, X, Y, "tol must be a finite number at least 0, got -1"),
        ({"tol": None}, X, Y, "tol must be a finite number at least 0, got None"),
        ({"max_iter": 0}, X, Y, "max_iter must be a whole number, at least 1, got 0"),
        ({"max_iter": 2.5}, X, Y, "max_iter must be a whole number, at least 1, got 2.5"),
        ({"n_components": 0}, X, Y, "n_components must be a whole number, at least 1, got 0"),
        ({"n_components": 1.5}, X, Y, "n_components must be a whole number, at least 1, got 1.5"),
        ({"n_components": 5}, X, Y, "n_components must be 1 to 4 with init 'identity', got 5"),
        ({"n_components": 5, "init": "pca"}, X, Y, "n_components must be 1 to 4 with init 'pca', got 5"),
        ({"n_components": 3, "init": "lda"}, X, Y, "n_components must be 1 to 2 with init 'lda', got 3"),
        ({"init": "random"}, X, Y, r"init must be one of identity, pca, lda, or a matrix of shape \(r, 4\), got 'ran"),
        ({"init": np.eye(3)}, X, Y, r"init must be a finite matrix of shape \(r, 4\), got shape \(3, 3\)"),
        ({"init": np.ones(4)}, X, Y, r"init must be a finite matrix of shape \(r, 4\), got shape \(4,\)"),
        ({"init": np.full((2, 4), np.nan)}, X, Y, r"init must be a finite matrix of shape \(r, 4\)"),
        ({"init": None}, X, Y, r"init must be a finite matrix of shape \(r, 4\)"),
        ({"init": np.eye(4), "n_components": 2}, X, Y, "n_components is 2, but init has 4 rows"),
    ],
)
def test_bad_data_and_options_are_refused(options: dict[str, Any], X: NDArray, y: NDArray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LMNN(**options).fit(X, y)


def test_class_means_on_a_line_have_one_discriminant_axis() -> None:
    one = np.random.default_rng(0).normal(size=(10, 4))
    X, y = np.concatenate([one + shift * np.eye(4)[0] for shift in (0, 1, 3)]), np.repeat(range(3), 10)
    assert LMNN(init="lda").fit(X, y).components_.shape == (1, 4)
    with pytest.raises(ValueError, match="n_components is 2, but the means of the classes span 1 discriminant axes"):
        LMNN(init="lda", n_components=2).fit(X, y)


# --- errors over splits -----------------------------------------------------------------------------------------------

THREE = {name: MAPS[name] for name in ("none (Euclid)", "whitening", "LMNN")}
IRIS, WINE = load_iris(return_X_y=True), load_wine(return_X_y=True)


def in_percent(errors: NDArray) -> tuple[float, float]:
    """Mean, and its standard error."""
    return 100 * errors.mean(), 100 * errors.std(ddof=1) / len(errors) ** 0.5


def absolute(table: pd.DataFrame, map: str) -> NDArray:
    return table[(table["map"] == map) & (table["form"] == "absolute")].error.to_numpy()


# Percent of errors and their standard error, of Euclid, inverse covariance and LMNN by an independent implementation.
@pytest.mark.parametrize(
    ("data", "standardise", "expected"),
    [
        pytest.param(IRIS, False, [(3.93, 0.48), (10.0, 0.69), (4.00, 0.47)], id="iris"),
        pytest.param(WINE, True, [(4.88, 0.43), (7.65, 0.59), (2.41, 0.31)], id="wine, standardised"),
    ],
)
def test_errors_over_splits_are_those_of_another_implementation(
    data: tuple[NDArray, NDArray], standardise: bool, expected: list[tuple[float, float]]
) -> None:
    X, y = data
    table = split_errors(X, y, THREE, standardise=standardise, n_splits=30)
    for name, (mean, error) in zip(THREE, expected, strict=True):
        own, own_error = in_percent(absolute(table, name))
        assert abs(own - mean) <= 2 * np.hypot(error, own_error), name


@pytest.mark.filterwarnings("ignore:LMNN did not converge:sklearn.exceptions.ConvergenceWarning")
def test_on_raw_wine_a_fitted_map_mends_what_the_scale_of_the_columns_spoils() -> None:
    X, y = WINE
    table = split_errors(X, y, THREE, n_splits=10)
    for name, mean, error in [("none (Euclid)", 30.06, 0.91), ("whitening", 7.65, 0.59), ("LMNN", 4.26, 0.54)]:
        own, own_error = in_percent(absolute(table, name))
        assert abs(own - mean) <= 2 * np.hypot(error, own_error), name


def test_errors_on_the_balance_scale_are_those_of_another_implementation_that_breaks_ties_alike() -> None:
    """On a grid, three neighbours of three classes are common: there the first class wins, in snrlib the nearest."""
    X, y = balance()
    errors = np.empty((10, 3))
    for split, (fit_to, judged) in enumerate(StratifiedShuffleSplit(10, test_size=0.3, random_state=0).split(X, y)):
        for column, make in enumerate(THREE.values()):
            steps = [StandardScaler(), make() or "passthrough", KNeighborsClassifier(3)]
            errors[split, column] = 1 - make_pipeline(*steps).fit(X[fit_to], y[fit_to]).score(X[judged], y[judged])
    table = split_errors(X, y, THREE, standardise=True, n_splits=10)
    expected = [(16.38, 0.68), (16.97, 0.53), (15.69, 0.52)]
    for name, peer, (mean, error) in zip(THREE, errors.T, expected, strict=True):
        own, own_error = in_percent(peer)
        assert abs(own - mean) <= 2 * np.hypot(error, own_error), name
        assert abs(100 * absolute(table, name).mean() - mean) <= 3 * np.hypot(error, own_error), name


MEASURE = """
import warnings
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from snrlib.mahalanobis import LMNN

def peak():  # bytes; ru_maxrss counts the same, but starts from the peak of the process that started this one
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

rng = np.random.default_rng(0)
y = np.arange(10_000) % 10
X = rng.normal(size=(10_000, 64)) + rng.normal(size=(10, 64))[y]
warnings.simplefilter("ignore", ConvergenceWarning)
LMNN(max_iter=1).fit(X[:200], y[:200])
before = peak()
fitted = LMNN(max_iter=3).fit(X, y)
assert fitted.n_iter_ == 3 and fitted.n_impostors_ > 0
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_a_fit_to_10000_samples_takes_at_most_2_gib_beyond_the_data() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=3600)
    assert 10 * 2**20 < int(done.stdout) <= 2**31
