"""Maps fitted to data: what all of them share, and whitening against closed forms; LMNN has a file of its own."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist
from sklearn.base import BaseEstimator
from sklearn.covariance import EmpiricalCovariance, LedoitWolf
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from snrlib.distances import get_distance
from snrlib.mahalanobis import LMNN, FittedMap, Whitening
from snrlib.mahalanobis.base import check_no_constant_column

few = settings(max_examples=40, deadline=None, derandomize=True)

FITTED = {
    "whitening": Whitening(),
    "whitening, shrunk": Whitening("ledoit_wolf"),
    "whitening within classes": Whitening(within_class=True),
    "whitening within classes, shrunk": Whitening("ledoit_wolf", within_class=True),
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


def fit(name: str) -> FittedMap:
    return FITTED[name].fit(*classes())


def naive_within(X: NDArray, y: NDArray) -> NDArray:
    """Covariance within classes, sample by sample."""
    S = np.zeros((X.shape[1], X.shape[1]))
    for cls in set(y.tolist()):
        members = [x for x, c in zip(X, y, strict=True) if c == cls]
        mean = sum(members) / len(members)
        for x in members:
            S += np.outer(x - mean, x - mean)
    return S / (len(X) - len(set(y.tolist())))


# --- what all share ---------------------------------------------------------------------------------------------------


@parametrize_with_checks([estimator for name, estimator in FITTED.items() if "whitening" in name])
def test_whitening_keeps_the_rules_of_scikit_learn(estimator: BaseEstimator, check) -> None:
    check(estimator)


@every_map
def test_the_distance_of_pairs_is_the_mahalanobis_distance_of_the_family_and_of_scipy(fitted: str) -> None:
    L, (X, _) = fit(fitted), classes()
    a, b = X[:20], X[20:]
    found = L.pair_distance(np.stack([a, b], axis=1))
    family = get_distance("mahalanobis", components=L.components_)
    expected = family.pairwise_distance(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-10)
    peer = cdist(a, b, "mahalanobis", VI=L.get_mahalanobis_matrix())
    np.testing.assert_allclose(found, peer.diagonal(), rtol=1e-8)


@every_map
def test_the_score_of_pairs_is_minus_their_distance(fitted: str) -> None:
    L, pairs = fit(fitted), classes()[0].reshape(20, 2, 4)
    assert np.array_equal(L.pair_score(pairs), -L.pair_distance(pairs))
    assert (L.pair_distance(pairs) > 0).all()
    assert L.pair_distance(pairs.tolist()) == pytest.approx(L.pair_distance(pairs[:, ::-1]))


@every_map
def test_mapped_vectors_are_at_euclidean_distances(fitted: str) -> None:
    L, (X, _) = fit(fitted), classes()
    expected = pdist(X, "mahalanobis", VI=L.get_mahalanobis_matrix())
    np.testing.assert_allclose(pdist(L.transform(X)), expected, rtol=1e-8)
    np.testing.assert_allclose(pdist(L.transform(X.astype(np.float32))), expected, rtol=1e-4)
    assert L.transform(X).shape == (40, len(L.components_))


@every_map
def test_the_matrix_is_symmetric_and_positive_semidefinite(fitted: str) -> None:
    L = fit(fitted)
    matrix = L.get_mahalanobis_matrix()
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-14)
    values = np.linalg.eigvalsh(matrix)
    assert values[0] >= -1e-12 * values[-1]
    assert (values > 1e-9 * values[-1]).sum() == len(L.components_)
    np.testing.assert_allclose(matrix, L.components_.T @ L.components_)


@every_map
def test_a_fitted_map_serves_a_classifier_and_names_its_columns(fitted: str) -> None:
    X, y = classes()
    pipeline = make_pipeline(FITTED[fitted], KNeighborsClassifier(1)).fit(X, y)
    assert pipeline.score(X, y) == 1
    L = fit(fitted)
    name = type(L).__name__.lower()
    assert L.get_feature_names_out().tolist() == [f"{name}{i}" for i in range(len(L.components_))]


@pytest.mark.parametrize(
    ("shape", "got"),
    [((5, 4), r"\(5, 4\)"), ((5, 2, 3), r"\(5, 2, 3\)"), ((5, 3, 4), r"\(5, 3, 4\)"), ((2,), r"\(2,\)")],
)
def test_pairs_of_another_shape_are_refused(shape: tuple[int, ...], got: str) -> None:
    with pytest.raises(ValueError, match=rf"pairs must have shape \(n, 2, 4\), got {got}"):
        fit("whitening").pair_distance(np.zeros(shape))
    with pytest.raises(ValueError, match="pairs must have shape"):
        fit("whitening").pair_score(np.zeros(shape))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pairs_that_are_not_finite_are_refused(bad: float) -> None:
    pairs = np.zeros((5, 2, 4))
    pairs[3, 1, 2] = bad
    with pytest.raises(ValueError, match="pairs must be finite, got NaN or infinity"):
        fit("whitening").pair_distance(pairs)


def test_no_pairs_have_no_distances() -> None:
    assert fit("whitening").pair_distance(np.zeros((0, 2, 4))).shape == (0,)


@pytest.mark.parametrize("call", ["transform", "pair_distance", "pair_score", "get_mahalanobis_matrix"])
@pytest.mark.parametrize("estimator", [Whitening(), LMNN()], ids=repr)
def test_a_map_that_is_not_fitted_says_so(estimator: FittedMap, call: str) -> None:
    arguments = [] if call == "get_mahalanobis_matrix" else [np.zeros((3, 2, 4))]
    with pytest.raises(NotFittedError, match=f"This {type(estimator).__name__} instance is not fitted yet"):
        getattr(estimator, call)(*arguments)


def test_constant_columns_are_named() -> None:
    X = np.arange(60.0).reshape(3, 20)
    check_no_constant_column(X)
    X[:, [2, 7]] = 5
    with pytest.raises(ValueError, match=r"2 of the 20 columns of X are constant \(2, 7\): leave them out"):
        check_no_constant_column(X)
    X[:, 3:] = 0
    with pytest.raises(ValueError, match=r"18 of the 20 columns of X are constant \(2, 3, .* 10, 11, \.\.\.\)"):
        check_no_constant_column(X)


# --- whitening --------------------------------------------------------------------------------------------------------


def test_whitened_data_have_covariance_1() -> None:
    X, _ = classes()
    z = Whitening().fit_transform(X)
    np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(4), atol=1e-10)


def test_data_whitened_within_classes_have_covariance_1_within_classes() -> None:
    X, y = classes()
    z = Whitening(within_class=True).fit_transform(X, y)
    np.testing.assert_allclose(naive_within(z, y), np.eye(4), atol=1e-10)
    assert np.abs(np.cov(z.T, bias=True) - np.eye(4)).max() > 0.5


def test_the_covariance_is_scikit_learns() -> None:
    X, _ = classes()
    L, peer = Whitening().fit(X), EmpiricalCovariance().fit(X)
    assert L.shrinkage_ == 0
    np.testing.assert_allclose(L.covariance_, peer.covariance_, rtol=1e-12)
    np.testing.assert_allclose(L.get_mahalanobis_matrix(), peer.precision_, rtol=1e-8)


@pytest.mark.parametrize("n", [40, 4])
def test_the_shrunk_covariance_is_scikit_learns(n: int) -> None:
    X = classes(n, 6)[0]
    L, peer = Whitening("ledoit_wolf").fit(X), LedoitWolf().fit(X)
    assert L.shrinkage_ == pytest.approx(peer.shrinkage_)
    assert 0 < L.shrinkage_ < 1
    np.testing.assert_allclose(L.covariance_, peer.covariance_, rtol=1e-10)
    np.testing.assert_allclose(L.get_mahalanobis_matrix(), peer.precision_, rtol=1e-7, atol=1e-10)


def test_the_covariance_within_classes_equals_the_loop() -> None:
    X, y = classes()
    L = Whitening(within_class=True).fit(X, y)
    np.testing.assert_allclose(L.covariance_, naive_within(X, y), rtol=1e-10)
    np.testing.assert_allclose(L.get_mahalanobis_matrix(), np.linalg.inv(naive_within(X, y)), rtol=1e-8)


def test_the_shrunk_covariance_within_classes_is_that_of_scikit_learn_for_the_residuals() -> None:
    X, y = classes()
    residuals = X - np.stack([X[y == c].mean(axis=0) for c in range(3)])[y]
    peer = LedoitWolf(assume_centered=True).fit(residuals)
    L = Whitening("ledoit_wolf", within_class=True).fit(X, y)
    assert L.shrinkage_ == pytest.approx(peer.shrinkage_)
    np.testing.assert_allclose(L.covariance_, peer.covariance_ * 40 / 37, rtol=1e-10)


@every_whitening
@pytest.mark.parametrize("covariance", ["empirical", "ledoit_wolf"])
def test_the_matrix_of_whitening_is_the_inverse_covariance_and_the_map_its_symmetric_root(
    covariance, within_class: bool
) -> None:
    L = Whitening(covariance, within_class=within_class).fit(*classes())
    np.testing.assert_allclose(L.get_mahalanobis_matrix(), np.linalg.inv(L.covariance_), rtol=1e-8)
    np.testing.assert_allclose(L.components_, L.components_.T, rtol=1e-10)
    assert (np.linalg.eigvalsh(L.components_) > 0).all()


def test_classes_are_not_looked_at_unless_they_are_asked_for() -> None:
    X, y = classes()
    assert np.array_equal(Whitening().fit(X, y).components_, Whitening().fit(X).components_)
    names = np.array(["gull", "tern", "auk"])[y]
    by_name = Whitening(within_class=True).fit(X, names)
    np.testing.assert_allclose(by_name.covariance_, naive_within(X, y), rtol=1e-10)


def test_a_class_of_one_sample_tells_nothing_of_the_covariance_within() -> None:
    X, y = classes()
    alone = np.append(y, 7)
    more = Whitening(within_class=True).fit(np.vstack([X, [100, -50, 3, 8]]), alone)
    np.testing.assert_allclose(more.covariance_, naive_within(X, y), rtol=1e-10)


@every_whitening
@few
@given(seed=st.integers(0, 2**32 - 1))
def test_the_distance_does_not_change_with_an_affine_map_of_the_data(within_class: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, y = classes(seed=seed % 1000)
    B, c = rng.normal(size=(4, 4)), 10 * rng.normal(size=4)
    assume(np.linalg.cond(B) < 1000)
    before, after = (pdist(Whitening(within_class=within_class).fit_transform(x, y)) for x in (X, X @ B.T + c))
    np.testing.assert_allclose(after, before, rtol=1e-6)


@every_whitening
def test_the_shrunk_distance_changes_with_an_affine_map_but_not_with_a_rotation_and_a_scale(within_class: bool) -> None:
    rng = np.random.default_rng(0)
    (X, y), B = classes(), rng.normal(size=(4, 4))
    shrunk = Whitening("ledoit_wolf", within_class=within_class)
    before = pdist(shrunk.fit_transform(X, y))
    assert np.abs(pdist(shrunk.fit_transform(X @ B, y)) / before - 1).max() > 0.01
    np.testing.assert_allclose(pdist(shrunk.fit_transform(3 * X @ np.linalg.qr(B)[0] + 1, y)), before, rtol=1e-8)


def test_a_singular_covariance_is_refused_with_its_rank() -> None:
    X, y = classes()
    dependent = np.column_stack([X, X[:, 0] - 2 * X[:, 1]])
    with pytest.raises(ValueError, match="covariance of 40 samples with 5 components has rank 4 and no inverse"):
        Whitening().fit(dependent)
    with pytest.raises(ValueError, match=r"4 samples with 6 components has rank 3 .* or covariance='ledoit_wolf'"):
        Whitening().fit(classes(4, 6)[0])
    with pytest.raises(ValueError, match="rank 3"):  # the fourth component says which class it is, and nothing else
        Whitening(within_class=True).fit(np.column_stack([X[:, :3], y]), y)
    shrunk = Whitening("ledoit_wolf").fit(dependent)
    assert np.linalg.matrix_rank(shrunk.components_) == 5


CONSTANT = np.column_stack([classes()[0], np.full(40, 3.0)])
HOLE = np.where(np.arange(160).reshape(40, 4) == 7, np.nan, classes()[0])


@pytest.mark.parametrize(
    ("estimator", "X", "y", "message"),
    [
        (Whitening(), CONSTANT, None, r"1 of the 5 columns of X are constant \(4\)"),
        (Whitening(within_class=True), CONSTANT, classes()[1], r"1 of the 5 columns of X are constant \(4\)"),
        (Whitening(), HOLE, None, "Input X contains NaN"),
        (Whitening(within_class=True), HOLE, classes()[1], "Input X contains NaN"),
        (Whitening(), np.ones((1, 4)), None, "1 sample.* minimum of 2 is required"),
        (Whitening(), np.ones(4), None, "Expected 2D array, got 1D array"),
        (Whitening(within_class=True), classes(9)[0], np.arange(9), "class with two samples, got one sample of each"),
        (Whitening(within_class=True), classes()[0], None, r"Whitening\(within_class=True\) requires y to be passed"),
        (Whitening(within_class=True), classes()[0], np.arange(39), r"inconsistent numbers of samples: \[40, 39\]"),
        (Whitening(within_class=True), classes()[0], np.linspace(0, 1, 40), "Unknown label type: continuous"),
        (Whitening("oas"), classes()[0], None, "covariance must be one of empirical, ledoit_wolf, got 'oas'"),  # type: ignore[arg-type]
    ],
)
def test_bad_data_and_options_are_refused(estimator: Whitening, X: NDArray, y: NDArray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimator.fit(X, y)


def test_vectors_with_another_number_of_components_are_refused() -> None:
    with pytest.raises(ValueError, match="X has 3 features, but Whitening is expecting 4 features"):
        fit("whitening").transform(np.zeros((5, 3)))
