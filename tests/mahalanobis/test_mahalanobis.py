"""Maps fitted to data: what all of them share, and whitening against closed forms; LMNN has a file of its own."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracles import naive_within, refusals
from scipy.spatial.distance import cdist, mahalanobis, pdist
from sklearn.base import BaseEstimator, clone
from sklearn.covariance import EmpiricalCovariance, LedoitWolf
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from snrlib.distances import get_distance
from snrlib.mahalanobis import LMNN, FittedMap, Whitening
from snrlib.mahalanobis.base import check_no_constant_column

FITTED = {
    "whitening": Whitening(),
    "whitening, shrunk": Whitening("ledoit_wolf"),
    "whitening within classes": Whitening(within_class=True),
    "whitening within classes, shrunk": Whitening("ledoit_wolf", within_class=True),
    "whitening, pseudo-inverse": Whitening(pinv=True),
    "LMNN": LMNN(),
    "LMNN, 2 rows": LMNN(n_components=2),
}
every_map = pytest.mark.parametrize("fitted", FITTED)
every_whitening = pytest.mark.parametrize("within_class", [False, True], ids=["about the mean", "within classes"])


def classes(n: int = 40, M: int = 4, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Three classes of correlated components, far from the origin; the sizes of the classes differ."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 5 // 2
    X = rng.normal(size=(n, M)) @ rng.normal(size=(M, M)) + 3 * rng.normal(size=(3, M))[y] + 5
    return X, y


X, Y = classes()


def fit(name: str) -> FittedMap:
    return FITTED[name].fit(X, Y)


@parametrize_with_checks([Whitening(), Whitening("ledoit_wolf", within_class=True), Whitening(pinv=True)])
def test_whitening_keeps_the_rules_of_scikit_learn(estimator: BaseEstimator, check: Any) -> None:
    check(estimator)


@every_map
def test_distances_are_those_of_family_and_scipy(fitted: str) -> None:
    L, pairs = fit(fitted), np.stack([X[:20], X[20:]], axis=1)
    matrix, found = L.get_mahalanobis_matrix(), L.pair_distance(pairs)
    assert (found > 0).all()
    np.testing.assert_allclose(matrix, L.components_.T @ L.components_)  # hence symmetric and positive semidefinite
    assert np.linalg.matrix_rank(matrix) == len(L.components_)
    family = get_distance("mahalanobis", components=L.components_)
    expected = family.pairwise_distance(*(torch.from_numpy(side) for side in pairs.transpose(1, 0, 2)))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-10)
    np.testing.assert_allclose(found, cdist(X[:20], X[20:], "mahalanobis", VI=matrix).diagonal(), rtol=1e-8)
    np.testing.assert_allclose(pdist(L.transform(X)), pdist(X, "mahalanobis", VI=matrix), rtol=1e-8)
    np.testing.assert_allclose(pdist(L.transform(X.astype(np.float32))), pdist(L.transform(X)), rtol=1e-4)
    assert np.array_equal(L.pair_score(pairs), -found)
    assert L.pair_distance(pairs[:, ::-1].tolist()) == pytest.approx(found)
    assert L.pair_distance(pairs[:0]).shape == (0,)


@every_map
def test_a_metric_serves_the_neighbours_of_scikit_learn(fitted: str) -> None:
    L = clone(FITTED[fitted]).fit(X, Y)
    metric = L.get_metric()
    pairs = np.stack([X[:20], X[20:]], axis=1)
    assert [metric(u, v) for u, v in pairs] == pytest.approx(L.pair_distance(pairs).tolist())
    assert metric(X[0].tolist(), X[1].tolist()) == pytest.approx(mahalanobis(X[0], X[1], L.get_mahalanobis_matrix()))
    for algorithm in ("brute", "ball_tree"):
        by_metric = KNeighborsClassifier(3, metric=pickle.loads(pickle.dumps(metric)), algorithm=algorithm)
        by_map = KNeighborsClassifier(3).fit(L.transform(X), Y)
        found, expected = by_metric.fit(X, Y).kneighbors(), by_map.kneighbors()
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
        assert np.array_equal(found[1], expected[1])
    before = metric(X[0], X[1])
    L.fit(3 * X + 1, Y[::-1])
    assert metric(X[0], X[1]) == before


@every_whitening
@pytest.mark.parametrize("covariance", ["empirical", "ledoit_wolf"])
def test_the_map_is_the_covariances_inverse_root(covariance: Any, within_class: bool) -> None:
    L = Whitening(covariance, within_class=within_class).fit(X, Y)
    np.testing.assert_allclose(L.get_mahalanobis_matrix(), np.linalg.inv(L.covariance_), rtol=1e-8)
    np.testing.assert_allclose(L.components_, L.components_.T, rtol=1e-10)
    assert (np.linalg.eigvalsh(L.components_) > 0).all()
    if covariance == "empirical":  # of whitened data the covariance is 1, and no other one
        z = L.transform(X)
        about_mean, within = np.cov(z.T, bias=True), naive_within(z, Y)
        one, other = (within, about_mean) if within_class else (about_mean, within)
        np.testing.assert_allclose(one, np.eye(4), atol=1e-10)
        assert np.abs(other - np.eye(4)).max() > 0.5


@pytest.mark.parametrize("n", [40, 4])
def test_covariances_are_those_of_scikit_learn(n: int) -> None:
    X, y = classes(n, 6 if n == 4 else 4)
    estimators: list[Any] = [(Whitening("ledoit_wolf"), LedoitWolf(), X, 1.0)]
    if n == 40:  # where no other is singular
        residuals = X - np.stack([X[y == c].mean(axis=0) for c in range(3)])[y]
        estimators += [(Whitening(), EmpiricalCovariance(), X, 1.0)]
        within, shrunk = Whitening(within_class=True), Whitening("ledoit_wolf", within_class=True)
        estimators += [(within, EmpiricalCovariance(assume_centered=True), residuals, 40 / 37)]  # minus one per class
        estimators += [(shrunk, LedoitWolf(assume_centered=True), residuals, 40 / 37)]
    for own, peer, data, factor in estimators:
        L, peer = own.fit(X, y), peer.fit(data)
        assert L.shrinkage_ == pytest.approx(getattr(peer, "shrinkage_", 0))
        assert (L.shrinkage_ > 0) == (own.covariance == "ledoit_wolf")
        np.testing.assert_allclose(L.covariance_, factor * peer.covariance_, rtol=1e-10)
        np.testing.assert_allclose(L.get_mahalanobis_matrix(), peer.precision_ / factor, rtol=1e-7, atol=1e-10)


def test_classes_count_only_where_asked_for() -> None:
    assert np.array_equal(Whitening().fit(X, Y).components_, Whitening().fit(X).components_)
    alone, odd_one = np.append(Y, 7), np.vstack([X, [100, -50, 3, 8]])  # a class of one tells nothing
    for data, y in ((X, Y), (X, np.array(["gull", "tern", "auk"])[Y]), (odd_one, alone)):
        found = Whitening(within_class=True).fit(data, y).covariance_
        np.testing.assert_allclose(found, naive_within(X, Y), rtol=1e-10)


@every_whitening
@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_affine_maps_of_the_data_change_no_distance(within_class: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, y = classes(seed=seed % 1000)
    B, c = rng.normal(size=(4, 4)), 10 * rng.normal(size=4)
    assume(np.linalg.cond(B) < 1000)
    before, after = (pdist(Whitening(within_class=within_class).fit_transform(x, y)) for x in (X, X @ B.T + c))
    np.testing.assert_allclose(after, before, rtol=1e-6)


@every_whitening
def test_shrunk_distances_survive_rotation_and_scale_only(within_class: bool) -> None:
    B, shrunk = np.random.default_rng(0).normal(size=(4, 4)), Whitening("ledoit_wolf", within_class=within_class)
    before = pdist(shrunk.fit_transform(X, Y))
    assert np.abs(pdist(shrunk.fit_transform(X @ B, Y)) / before - 1).max() > 0.01
    np.testing.assert_allclose(pdist(shrunk.fit_transform(3 * X @ np.linalg.qr(B)[0] + 1, Y)), before, rtol=1e-8)


@every_whitening
def test_the_pseudo_inverse_counts_varying_directions_only(within_class: bool) -> None:
    plain = Whitening(within_class=within_class).fit(X, Y)
    same = Whitening(within_class=within_class, pinv=True).fit(X, Y)
    assert np.array_equal(same.components_, plain.components_), "where S is regular"
    assert same.rank_ == plain.rank_ == 4
    expected = pdist(plain.transform(X))
    B = np.random.default_rng(1).normal(size=(9, 4))
    for data in (CONSTANT, np.column_stack([CONSTANT, np.zeros(40)]), DEPENDENT, X @ B.T + 7):
        L = Whitening(within_class=within_class, pinv=True).fit(data, Y)
        np.testing.assert_allclose(pdist(L.transform(data)), expected, rtol=1e-6)  # as in coordinates of the subspace
        np.testing.assert_allclose(L.get_mahalanobis_matrix(), np.linalg.pinv(L.covariance_, 1e-10), atol=1e-6)
        assert (L.rank_, np.linalg.matrix_rank(L.components_)) == (4, 4)
        assert L.components_.shape == (data.shape[1], data.shape[1])
    away = np.eye(5)[4]
    ignored = Whitening(within_class=within_class, pinv=True).fit(CONSTANT, Y)
    assert ignored.pair_distance([[X0 := CONSTANT[0], X0 + 9 * away]]) == 0
    assert Whitening(pinv=True).fit(classes(4, 6)[0]).rank_ == 3
    assert Whitening("ledoit_wolf", pinv=True).fit(CONSTANT).rank_ == 5, "shrunk, S is regular"


CONSTANT = np.column_stack([X, np.full(40, 3.0)])
HOLE = np.where(np.arange(160).reshape(40, 4) == 7, np.nan, X)
DEPENDENT = np.column_stack([X, X[:, 0] - 2 * X[:, 1]])


def whiten(X: Any, y: Any = None, covariance: Any = "empirical", within: bool = False) -> Any:
    return lambda: Whitening(covariance, within_class=within).fit(X, y)


def pairs(given: NDArray) -> Any:
    return lambda: fit("whitening").pair_distance(given)


test_bad_data_and_options_are_refused = refusals(
    (whiten(CONSTANT), ValueError, r"1 of the 5 columns of X are constant \(4\)"),
    (whiten(CONSTANT, Y, within=True), ValueError, r"1 of the 5 columns of X are constant \(4\)"),
    (whiten(HOLE), ValueError, "Input X contains NaN"),
    (whiten(HOLE, Y, within=True), ValueError, "Input X contains NaN"),
    (whiten(np.ones((1, 4))), ValueError, "1 sample.* minimum of 2 is required"),
    (whiten(np.ones(4)), ValueError, "Expected 2D array, got 1D array"),
    (whiten(X[:9], np.arange(9), within=True), ValueError, "class with two samples, got one sample of each"),
    (whiten(X, None, within=True), ValueError, r"Whitening\(within_class=True\) requires y to be passed"),
    (whiten(X, Y[1:], within=True), ValueError, r"inconsistent numbers of samples: \[40, 39\]"),
    (whiten(X, X[:, 0], within=True), ValueError, "Unknown label type: continuous"),
    (whiten(X, covariance="oas"), ValueError, "covariance must be one of empirical, ledoit_wolf, got 'oas'"),
    (whiten(DEPENDENT), ValueError, "covariance of 40 samples with 5 components has rank 4 and no inverse"),
    (whiten(classes(4, 6)[0]), ValueError, r"4 samples with 6 components has rank 3 .*'ledoit_wolf' or pinv=True"),
    (lambda: Whitening(pinv=True).fit(np.ones((9, 3))), ValueError, "no component of the 9 samples varies: "),
    (whiten(np.eye(3)[Y], Y, within=True), ValueError, "no component of the 40 samples varies within its class"),
    (whiten(np.column_stack([X[:, :3], Y]), Y, within=True), ValueError, "rank 3"),  # the fourth says which class it is
    (lambda: Whitening().transform(X), NotFittedError, "This Whitening instance is not fitted yet"),
    (lambda: LMNN().pair_distance(np.zeros((5, 2, 4))), NotFittedError, "This LMNN instance is not fitted yet"),
    (lambda: LMNN().get_mahalanobis_matrix(), NotFittedError, "This LMNN instance is not fitted yet"),
    *(
        (pairs(np.zeros(shape)), ValueError, rf"pairs must have shape \(n, 2, 4\), got \({shape[0]},")
        for shape in ((5, 4), (5, 2, 3), (5, 3, 4), (2,))
    ),
    (pairs(np.full((5, 2, 4), np.nan)), ValueError, "pairs must be finite, got NaN or inf"),
    (lambda: Whitening().get_metric(), NotFittedError, "This Whitening instance is not fitted yet"),
    (lambda: fit("whitening").get_metric()(X[0], X[:1]), ValueError, r"shape \(4,\), got \(4,\) and \(1, 4\)"),
    (lambda: fit("whitening").transform(np.zeros((5, 3))), ValueError, "3 features, but Whitening is expecting 4"),
)


def test_constant_columns_are_named() -> None:
    X = np.arange(60.0).reshape(3, 20)
    check_no_constant_column(X)
    X[:, [2, *range(4, 20)]] = 5
    with pytest.raises(ValueError, match=r"17 of the 20 columns of X are constant \(2, 4, .* 11, 12, \.\.\.\)"):
        check_no_constant_column(X)
