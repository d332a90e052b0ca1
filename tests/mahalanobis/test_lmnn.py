"""LMNN against loops over triplets, the properties of its objective, and another implementation's errors."""

import tracemalloc
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracles import bad_options, measured, measures_memory, refusals
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors, NeighborhoodComponentsAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor

from snrlib.mahalanobis import LMNN, EnergyClassifier, energy, lmnn
from snrlib.mahalanobis.lmnn import objective, target_neighbours
from snrlib.study.fitted_maps import MAPS, balance, split_errors


def classes(n: int = 60, M: int = 4, seed: int = 0, apart: float = 1.5, n_classes: int = 3) -> tuple[NDArray, NDArray]:
    """Correlated components; the means of the classes lie ``apart`` standard deviations from their common mean."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return rng.normal(size=(n, M)) @ rng.normal(size=(M, M)) + apart * rng.normal(size=(n_classes, M))[y] + 5, y


def rotation(M: int) -> NDArray:
    return np.linalg.qr(np.random.default_rng(0).normal(size=(M, M)))[0]


@parametrize_with_checks([LMNN(tol=0.01), LMNN(1, init="lda", tol=0.01), EnergyClassifier(LMNN(tol=0.01))])
def test_lmnn_keeps_the_rules_of_scikit_learn(estimator: BaseEstimator, check: Any) -> None:
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


def problem(rows: int, k: int, n: int = 18, apart: float = 1.5) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """L, X, y and targets, with impostors unless the classes lie far apart, and without kinks nearby."""
    X, y = classes(n, apart=apart)
    return np.random.default_rng(rows).normal(size=(rows, 4)) / 3, X, y, target_neighbours(X, y, k)


@pytest.mark.parametrize(
    ("rows", "mu", "k", "apart"),
    [(4, 0.5, 3, 1.5), (4, 0.0, 2, 1.5), (4, 1.0, 2, 1.5), (1, 0.8, 1, 1.5), (6, 0.5, 3, 1.5), (4, 0.3, 3, 1000.0)],
)
def test_objective_gradient_and_impostors_equal_the_loops(
    rows: int, mu: float, k: int, apart: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    L, X, y, targets = problem(rows, k, apart=apart)
    of = torch.from_numpy(L).requires_grad_()
    expected, count = naive_objective(of, X, y, targets, mu)
    (by_autograd,) = torch.autograd.grad(expected, of)
    assert count < 18 * 12
    assert (count == 0) == (apart == 1000)
    for block in (lmnn._BLOCK, 1, 18, 5 * 18, 17 * 18 + 3):
        monkeypatch.setattr(lmnn, "_BLOCK", block)
        value, gradient, impostors = objective(L, X, y, targets, mu)
        assert (value, impostors) == (pytest.approx(expected.item(), rel=1e-12), count)
        assert np.abs(gradient - by_autograd.numpy()).max() <= 1e-10 * np.abs(gradient).max()


def test_impostors_are_found_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmnn, "_BLOCK", 2**17)
    X, y = classes(1000, n_classes=10)
    targets = target_neighbours(X, y, 3)
    tracemalloc.start()
    _, _, impostors = objective(np.eye(4) / 100, X, y, targets, 0.5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert impostors == 1000 * 900
    assert peak < 1000**2 * 100 / 4  # bytes: a quarter of all indices, hinges and weights


def test_the_objective_is_convex_in_the_matrix_only() -> None:
    L, X, y, targets = problem(4, 3, n=60)
    rng = np.random.default_rng(0)

    def value(matrix: NDArray) -> float:
        values, vectors = np.linalg.eigh(matrix)
        return objective(np.sqrt(values.clip(0))[:, None] * vectors.T, X, y, targets, 0.5)[0]

    for _ in range(20):
        one, other = (L.T @ L for L in rng.normal(size=(2, rng.integers(1, 5), 4)) / rng.integers(1, 6))
        share = rng.uniform()
        assert value(share * one + (1 - share) * other) <= share * value(one) + (1 - share) * value(other) + 1e-9
    L = LMNN().fit(X, y).components_  # -L and every rotation of L are as good, and 0 lies between
    ends = [objective(turn @ L, X, y, targets, 0.5)[0] for turn in (np.eye(4), -np.eye(4), rotation(4))]
    assert ends == pytest.approx(3 * ends[:1], rel=1e-12)
    assert ends[0] < objective(0 * L, X, y, targets, 0.5)[0]


@pytest.mark.parametrize("k", [1, 9])
def test_targets_are_the_nearest_of_the_class(k: int) -> None:
    X, y = classes()
    targets = target_neighbours(X, y, k)
    for cls in range(3):
        rows = np.flatnonzero(y == cls)
        expected = rows[NearestNeighbors(n_neighbors=k).fit(X[rows]).kneighbors()[1]]
        assert np.array_equal(targets[rows], expected)
    assert np.array_equal(LMNN(k).fit(X, y).targets_, targets)
    X[3], X[6] = X[0], X[0]  # a twin is a target, a sample never its own
    assert [set(targets[:2]) for targets in target_neighbours(X, y, max(k, 2))[[0, 3, 6]]] == [{3, 6}, {0, 6}, {0, 3}]


# --- the fit ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"mu": 0.9}, {"init": "lda"}, {"n_components": 2, "init": "pca"}], ids=str)
def test_the_objective_never_rises(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def one_try_more(fun: Any, x0: NDArray, **options: Any) -> Any:
        found = minimize(fun, x0, **options)
        fun(0 * x0)  # the impostors are those of the map, not of the last one that was tried
        return found

    monkeypatch.setattr(lmnn, "minimize", one_try_more)
    X, y = classes()
    fitted = LMNN(**options).fit(X, y)
    assert len(fitted.objective_) == fitted.n_iter_ + 1 > 2
    assert (np.diff(fitted.objective_) <= 0).all()
    value, _, impostors = objective(fitted.components_, X, y, fitted.targets_, fitted.mu)
    assert fitted.objective_[-1] == pytest.approx(value, rel=1e-9)
    assert fitted.n_impostors_ == impostors


def test_every_regular_start_ends_at_one_objective() -> None:
    X, y = classes()
    starts: list[Any] = ["identity", "pca", np.random.default_rng(0).normal(size=(4, 4)), 5 * rotation(4)]
    ends = [LMNN(init=start, tol=1e-12, max_iter=2000).fit(X, y).objective_[-1] for start in starts]
    assert max(ends) <= 1.001 * min(ends)


def test_columns_of_noise_are_mapped_to_little() -> None:
    X, y = classes(120, seed=1, apart=4.0)
    X = np.column_stack([X, 10 * np.random.default_rng(2).normal(size=(120, 3))])
    fitted = LMNN().fit(X, y)
    assert fitted.n_impostors_ < objective(np.eye(7), X, y, fitted.targets_, 0.5)[2] / 10
    lengths = np.linalg.norm(fitted.components_, axis=0)
    assert lengths[4:].max() < lengths[:4].min() / 3
    plain, mapped = (NearestNeighbors(n_neighbors=1).fit(z).kneighbors()[1][:, 0] for z in (X, fitted.transform(X)))
    assert (y[mapped] != y).sum() <= 2 < 10 <= (y[plain] != y).sum()


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_translation_rotation_and_names_change_nothing(offset: float) -> None:
    X, y = classes()
    copy, Q, words = X.copy(), rotation(4), np.array(["auk", "gull", "tern"])[y]
    fitted, again = LMNN().fit(X, y), LMNN().fit(X, y)
    assert np.array_equal(again.components_, fitted.components_)
    assert np.array_equal(again.objective_, fitted.objective_)
    assert np.array_equal(X, copy)
    for named in (words, 10 * y - 7):
        assert np.array_equal(LMNN().fit(X, named).components_, fitted.components_)
    moved, turned = LMNN().fit(X + offset * np.array([1, -2, 3, 4]), y), LMNN().fit(X @ Q.T + offset, y)
    assert moved.n_iter_ == fitted.n_iter_
    np.testing.assert_allclose(moved.components_, fitted.components_, rtol=1e-6, atol=1e-6)
    expected = Q @ fitted.get_mahalanobis_matrix() @ Q.T
    np.testing.assert_allclose(turned.get_mahalanobis_matrix(), expected, rtol=1e-4, atol=1e-4)


def test_a_null_direction_makes_a_pseudo_metric() -> None:
    X, y = classes()
    fitted = LMNN(n_components=3).fit(X, y)
    null = np.linalg.svd(fitted.components_)[2][-1]
    assert fitted.pair_distance(np.stack([X, X + 7 * null], axis=1)) == pytest.approx(0, abs=1e-10)
    assert np.linalg.eigvalsh(fitted.get_mahalanobis_matrix())[0] == pytest.approx(0, abs=1e-10)
    assert (fitted.pair_distance(np.stack([X[:-1], X[1:]], axis=1)) > 0.01).all()


def test_pull_alone_collapses_and_push_alone_stretches() -> None:
    X, y = classes()
    pulled = LMNN(mu=0).fit(X, y)
    assert pulled.objective_[-1] < 1e-3 * pulled.objective_[0]
    assert np.abs(pulled.transform(X) - pulled.transform(X).mean(axis=0)).max() < 0.1
    assert pulled.n_impostors_ == 60 * 40
    X, y = classes(apart=10.0)  # separable: the map grows until no impostor is left, and no further
    start = np.eye(4) / 20
    pushed = LMNN(mu=1, init=start).fit(X, y)
    assert objective(start, X, y, pushed.targets_, 1.0)[2] > 0
    assert pushed.objective_[-1] == pushed.n_impostors_ == 0
    assert np.linalg.norm(pushed.components_) > np.linalg.norm(start)


def test_the_map_starts_where_init_says() -> None:
    X, y = classes()
    L = np.random.default_rng(0).normal(size=(3, 4))
    starts: list[tuple[Any, list[int | None], NDArray]] = [
        ("identity", [None, 2], np.eye(4)),
        ("pca", [None, 3], PCA().fit(X).components_),
        ("lda", [None, 1], LinearDiscriminantAnalysis().fit(X, y).scalings_.T),
        (L, [None, 3], L),
        (L.tolist(), [3], L),
    ]
    for init, rows, start in starts:
        for r in rows:
            fitted = LMNN(init=init, n_components=r).fit(X, y)
            assert fitted.components_.shape == start[:r].shape
            assert fitted.objective_[0] == pytest.approx(objective(start[:r], X, y, fitted.targets_, 0.5)[0])
            assert fitted.transform(X).shape == (60, len(start[:r]))
    given, estimator = L.copy(), LMNN(init=L)
    assert np.array_equal(clone(estimator).fit(X, y).components_, estimator.fit(X, y).components_)
    assert np.array_equal(L, given)
    one = np.random.default_rng(0).normal(size=(10, 4))
    on_a_line = np.concatenate([one + shift * np.eye(4)[0] for shift in (0, 1, 3)]), np.repeat(range(3), 10)
    assert LMNN(init="lda").fit(*on_a_line).components_.shape == (1, 4)
    with pytest.raises(ValueError, match="n_components is 2, but the means of the classes span 1 discriminant axes"):
        LMNN(init="lda", n_components=2).fit(*on_a_line)


@pytest.mark.parametrize(
    ("shape", "n_classes", "rows", "init"),
    [
        ((60, 4), 3, None, "identity"),
        ((60, 4), 3, 3, "pca"),
        ((60, 4), 3, 2, "lda"),
        ((60, 4), 5, None, "lda"),
        ((60, 4), 5, 4, "lda"),
        ((10, 12), 2, 9, "pca"),
        ((10, 12), 2, 10, "identity"),
    ],
)
def test_auto_starts_where_its_peer_does(shape: tuple[int, int], n_classes: int, rows: int | None, init: Any) -> None:
    X, y = classes(*shape, n_classes=n_classes)
    for make in (partial(LMNN, tol=0.1), partial(NeighborhoodComponentsAnalysis, max_iter=2)):
        chosen, named = (make(init=one, n_components=rows).fit(X, y).components_ for one in ("auto", init))
        assert np.array_equal(chosen, named)


def test_too_few_iterations_are_warned_of() -> None:
    X, y = classes()
    with pytest.warns(ConvergenceWarning, match="did not converge in 1 iterations: raise max_iter, or standardise X"):
        fitted = LMNN(max_iter=1).fit(X, y)
    assert (fitted.n_iter_, len(fitted.objective_)) == (1, 2)


# --- energy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "mu", "rows", "block"), [(3, 0.5, None, 2**21), (1, 0.3, 2, 1), (2, 0.9, None, 130)])
def test_energy_is_what_joining_a_class_costs(
    k: int, mu: float, rows: int | None, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "_BLOCK", block)
    X, y = classes(26, seed=3, apart=0.5)
    X, y, new = X[:18], y[:18], X[18:]
    classifier = EnergyClassifier(LMNN(k, mu=mu, n_components=rows)).fit(X, np.array(["auk", "gull", "tern"])[y])
    L, targets = classifier.lmnn_.components_, classifier.lmnn_.targets_
    without = naive_objective(torch.from_numpy(L), X, y, targets, mu)[0] * targets.size
    expected = np.empty((8, 3))
    for row, x in enumerate(new):
        for c in range(3):
            own = sorted(np.flatnonzero(y == c), key=lambda j: float(np.square(L @ (x - X[j])).sum()))[:k]
            grown = np.vstack([X, x]), np.append(y, c), np.vstack([targets, own])
            together = naive_objective(torch.from_numpy(L), *grown, mu)[0] * (targets.size + k)
            expected[row, c] = together - without
    np.testing.assert_allclose(classifier.energy(new), expected, rtol=1e-8, atol=1e-8)
    lowest = np.array(["auk", "gull", "tern"])[expected.argmin(axis=1)]
    assert classifier.predict(new).tolist() == lowest.tolist()
    assert (expected > 1e-6).all()
    far = clone(classifier).fit(X + 1e8, y).energy(new + 1e8)
    np.testing.assert_allclose(far, expected, rtol=0.1)  # L ends nearby; uncentred products are off by more than 1


def test_energy_errs_less_than_neighbours_on_balance() -> None:
    X, y = balance()
    errors = []
    for fit_to, judged in StratifiedShuffleSplit(5, test_size=0.3, random_state=0).split(X, y):
        scaler = StandardScaler().fit(X[fit_to])
        by_energy = EnergyClassifier().fit(scaler.transform(X[fit_to]), y[fit_to])
        by_votes = make_pipeline(by_energy.lmnn_, KNeighborsClassifier(3)).fit(scaler.transform(X[fit_to]), y[fit_to])
        errors.append([1 - by.score(scaler.transform(X[judged]), y[judged]) for by in (by_energy, by_votes)])
    own, votes = np.array(errors).T
    assert (own < votes - 0.03).all()  # 9.4 % against 16.5 % over ten splits


X, Y = classes()


def fitted(X: Any = X, y: Any = Y, **options: Any) -> LMNN:
    return LMNN(**options).fit(X, y)


def fit(*data: Any, **options: Any) -> Any:
    return partial(fitted, *data, **options)


def holed(bad: float) -> NDArray:
    return np.where(np.arange(240).reshape(60, 4) == 14, bad, X)


test_bad_data_and_options_are_refused = refusals(
    (fit(n_neighbors=20), ValueError, "20 target neighbours of its class, but the smallest class .* has 20 samples"),
    (fit(y=(np.arange(60) >= 57) + 0), ValueError, "3 target neighbours .*n_samples = 60, .* has 3 samples"),
    (fit(y=np.zeros(60, int)), ValueError, "at least two classes, got 1 class"),
    (fit(np.column_stack([X, np.ones(60)])), ValueError, r"1 of the 5 columns of X are constant \(4\)"),
    (fit(holed(np.nan)), ValueError, "Input X contains NaN"),
    (fit(holed(np.inf)), ValueError, "Input X contains infinity"),
    (fit(y=None), ValueError, r"LMNN\(\) requires y to be passed, but the target y is None"),
    (fit(y=Y[1:]), ValueError, r"inconsistent numbers of samples: \[60, 59\]"),
    (fit(y=X[:, 0]), ValueError, "Unknown label type: continuous"),
    *bad_options(fitted, n_neighbors=[0, 2.5], max_iter=[0, 2.5], n_components=[0, 1.5, 5], mu=[1.5, -0.1]),
    *bad_options(fitted, tol=[-1, None], init=["random"]),
    *bad_options(partial(fitted, init="auto"), n_components=[0, 1.5, 5]),
    *bad_options(partial(fitted, init="pca"), n_components=[5]),
    *bad_options(partial(fitted, init="lda"), n_components=[3]),
    *(
        (fit(init=bad), ValueError, r"init must be a finite matrix of shape \(r, 4\), got shape")
        for bad in (np.eye(3), np.ones(4), np.full((2, 4), np.nan), None)
    ),
    (fit(init=np.eye(4), n_components=2), ValueError, "n_components is 2, but init has 4 rows"),
    (lambda: EnergyClassifier().fit(X, None), ValueError, "requires y to be passed, but the target y is None"),  # type: ignore[arg-type]
    (lambda: EnergyClassifier(LMNN(20)).fit(X, Y), ValueError, "20 target neighbours of its class"),
    (lambda: EnergyClassifier().energy(X), NotFittedError, "This EnergyClassifier instance is not fitted yet"),
    (
        lambda: EnergyClassifier().fit(X, Y).predict(X[:, 1:]),
        ValueError,
        "3 features, but EnergyClassifier is expecting",
    ),
)


# --- errors over splits -----------------------------------------------------------------------------------------------

# Percent of errors and their standard error, by an independent implementation.
THREE = {name: MAPS[name] for name in ("none (Euclid)", "whitening", "LMNN")}
IRIS, WINE = load_iris(return_X_y=True), load_wine(return_X_y=True)


def assert_agree(errors: NDArray, expected: list[tuple[float, float]]) -> None:
    """Of every map, the mean over splits is within two standard errors of the expected one."""
    for own, (mean, error) in zip(100 * errors.T, expected, strict=True):
        assert abs(own.mean() - mean) <= 2 * np.hypot(error, own.std(ddof=1) / len(own) ** 0.5)


def absolute(data: tuple[NDArray, NDArray], **options: Any) -> NDArray:
    """Errors, one row per split, one column per map."""
    table = split_errors(*data, THREE, **options)
    table = table[table["form"] == "absolute"].pivot(index="split", columns="map", values="error")
    return table[list(THREE)].to_numpy()


@pytest.mark.filterwarnings("ignore:LMNN did not converge:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("data", "standardise", "n_splits", "expected"),
    [
        pytest.param(IRIS, False, 20, [(3.93, 0.48), (10.0, 0.69), (4.00, 0.47)], id="iris"),
        pytest.param(WINE, True, 10, [(4.88, 0.43), (7.65, 0.59), (2.41, 0.31)], id="wine, standardised"),
        pytest.param(WINE, False, 5, [(30.06, 0.91), (7.65, 0.59), (4.26, 0.54)], id="wine", marks=pytest.mark.slow),
    ],
)
def test_errors_are_those_of_another_implementation(data: Any, standardise: bool, n_splits: int, expected: Any) -> None:
    assert_agree(absolute(data, standardise=standardise, n_splits=n_splits), expected)


def test_balance_scale_errors_agree_where_ties_do() -> None:
    """On a grid, three neighbours of three classes are common: there the first class wins, in snrlib the nearest."""
    X, y = balance()
    errors = np.empty((10, 3))
    for split, (fit_to, judged) in enumerate(StratifiedShuffleSplit(10, test_size=0.3, random_state=0).split(X, y)):
        for column, make in enumerate(THREE.values()):
            steps = [StandardScaler(), make() or "passthrough", KNeighborsClassifier(3)]
            errors[split, column] = 1 - make_pipeline(*steps).fit(X[fit_to], y[fit_to]).score(X[judged], y[judged])
    expected = [(16.38, 0.68), (16.97, 0.53), (15.69, 0.52)]
    assert_agree(errors, expected)
    own = 100 * absolute((X, y), standardise=True, n_splits=10)
    for found, peer, (mean, error) in zip(own.T, errors.T, expected, strict=True):
        assert abs(found.mean() - mean) <= 3 * np.hypot(error, 100 * peer.std(ddof=1) / 10**0.5)


@pytest.mark.slow
@measures_memory
def test_fitting_10000_samples_takes_at_most_2_gib() -> None:
    beyond_the_data = measured("""
import warnings
import numpy as np
from snrlib.mahalanobis import LMNN

rng = np.random.default_rng(0)
y = np.arange(10_000) % 10
X = rng.normal(size=(10_000, 64)) + rng.normal(size=(10, 64))[y]
warnings.simplefilter("ignore")  # one iteration is not enough
LMNN(max_iter=1).fit(X[:200], y[:200])
before = peak()
assert LMNN(max_iter=1).fit(X, y).n_impostors_ > 0
print(peak() - before)
""")
    assert 10 * 2**20 < beyond_the_data <= 2**31
