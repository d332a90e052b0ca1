"""Large margin nearest neighbour: a Mahalanobis distance under which neighbours are of one class."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult, minimize
from scipy.sparse import csr_array
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils import Tags

from snrlib.evaluate import knn
from snrlib.mahalanobis.base import FittedMap
from snrlib.utils.checks import check_number

__all__ = ["LMNN", "objective", "target_neighbours"]

_BLOCK = 2**21  # pairs of samples that are compared at a time


class LMNN(FittedMap):
    """The map L that draws each sample's target neighbours near and keeps impostors a margin of 1 farther out.

    The *target neighbours* j of a sample i are the k nearest of its class, under Euclid and once for all; an *impostor*
    l is a sample of another class with ``||L(x_i - x_l)||^2 < ||L(x_i - x_j)||^2 + 1``. L minimises

        F(L) = (1 - mu) sum_ij ||L(x_i - x_j)||^2
               + mu sum_ijl [1 + ||L(x_i - x_j)||^2 - ||L(x_i - x_l)||^2]_+

    over the targets (i, j) and the samples l of other classes (Weinberger and Saul 2009, eqs. 11-13), here divided by
    the number of targets. F is convex in ``M = L'L``, not in L; a square L started at a regular matrix has still no
    worse minimum to fall into in practice. L is unique up to a rotation from the left.

    The margin is 1 in the units of X: data of a small scale are stretched first, so standardised columns fit in fewer
    iterations. All impostors are found anew for each value of F, exactly, by matrix products in blocks; time is
    O(n^2 r) an iteration, memory O(n M) and a block.

    Args:
        n_neighbors: k, targets of each sample.
        mu: weight of the impostors, in [0, 1]; the paper finds 0.5 good and the value unimportant.
        n_components: rows r of L; None takes as many as ``init`` gives.
        init: "identity", its first r rows; "pca", the principal axes; "lda", the discriminant axes, at most as many as
            classes less one; "auto", of the r rows asked for (M without ``n_components``): "lda" if there are so many
            such axes, else "pca" if r is below both M and n, else "identity", the rule of scikit-learn's
            `NeighborhoodComponentsAnalysis`; or a matrix (r, M).
        max_iter: iterations of L-BFGS at most.
        tol: it stops when F falls by less than this share of ``max(F, 1)`` in an iteration.

    Attributes:
        components_: L, (r, M).
        targets_: (n, k), row numbers of the target neighbours.
        objective_: F after each iteration, from the start; never rises.
        n_iter_: iterations.
        n_impostors_: pairs (sample, impostor) that are left.

    Raises:
        ValueError: on fitting, X not finite or with a constant column, a class with fewer than k + 1 samples, only one
            class, or parameters out of range.

    Warns:
        ConvergenceWarning: ``max_iter`` was reached first.
    """

    def __init__(
        self,
        n_neighbors: int = 3,
        *,
        mu: float = 0.5,
        n_components: int | None = None,
        init: Literal["identity", "pca", "lda", "auto"] | ArrayLike = "identity",
        max_iter: int = 500,
        tol: float = 1e-5,
    ):
        self.n_neighbors = n_neighbors
        self.mu = mu
        self.n_components = n_components
        self.init = init
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any) -> LMNN:
        """Find L.

        Args:
            X: (n, M).
            y: (n,), classes.
        """
        X, y = self._check_both(X, y)
        check_number(self.mu, "mu", at_least=0, at_most=1)
        check_number(self.tol, "tol", at_least=0)
        max_iter = _check_count(self.max_iter, "max_iter")
        self.targets_ = target_neighbours(X, y, _check_count(self.n_neighbors, "n_neighbors"))
        X = X - X.mean(axis=0)  # F sees differences only; far from the origin they would lose digits
        L = self._start(X, y)

        history: list[float] = []

        def value_and_gradient(flat: NDArray) -> tuple[float, NDArray]:
            value, gradient, self.n_impostors_ = objective(flat.reshape(L.shape), X, y, self.targets_, self.mu)
            if not history:  # of the start; after it, `keep` sees each iteration
                history.append(value)
            return value, gradient.ravel()

        def keep(intermediate_result: OptimizeResult) -> None:
            history.append(float(intermediate_result.fun))

        found = minimize(
            value_and_gradient,
            L.ravel(),
            jac=True,
            method="L-BFGS-B",
            callback=keep,
            options={"maxiter": max_iter, "ftol": self.tol, "gtol": 0.0, "maxfun": np.inf},
        )
        self.n_iter_ = int(found.nit)
        self.objective_ = np.array(history)
        self.components_ = found.x.reshape(L.shape)
        value_and_gradient(found.x)  # the impostors of the last L, not of the last one that was tried
        if found.status == 1:
            warnings.warn(
                f"LMNN did not converge in {max_iter} iterations: raise max_iter, or standardise X",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _start(self, X: NDArray, y: NDArray) -> NDArray:
        """The first L."""
        M, classes = X.shape[1], len(np.unique(y))
        if not isinstance(self.init, str):
            L = np.array(self.init, dtype=float)
            if L.ndim != 2 or L.shape[1] != M or not np.isfinite(L).all():
                raise ValueError(f"init must be a finite matrix of shape (r, {M}), got shape {L.shape}")
            if self.n_components not in (None, len(L)):
                raise ValueError(f"n_components is {self.n_components}, but init has {len(L)} rows")
            return L
        most = {"identity": M, "pca": min(X.shape), "lda": min(M, classes - 1)}
        init, r = self.init, self.n_components
        if init == "auto":
            r = M if r is None else _check_count(r, "n_components")
            init = "lda" if r <= most["lda"] else "pca" if r < most["pca"] else "identity"
        if init not in most:
            names = ", ".join([*most, "auto"])
            raise ValueError(f"init must be one of {names}, or a matrix of shape (r, {M}), got {init!r}")
        r = most[init] if r is None else r
        if not 1 <= _check_count(r, "n_components") <= most[init]:
            raise ValueError(f"n_components must be 1 to {most[init]} with init {init!r}, got {r}")
        if init == "identity":
            return np.eye(r, M)
        if init == "pca":
            return PCA(r, svd_solver="full").fit(X).components_
        L = LinearDiscriminantAnalysis().fit(X, y).scalings_.T[:r]
        if self.n_components is not None and len(L) < r:
            raise ValueError(f"n_components is {r}, but the means of the classes span {len(L)} discriminant axes only")
        return L

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _check_count(value: Any, name: str) -> int:
    """A whole number from 1.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number, at least 1, got {value!r}")
    return int(value)


def target_neighbours(X: NDArray, y: NDArray, k: int) -> NDArray:
    """(n, k), the nearest others of the same class under Euclid.

    Raises:
        ValueError: one class only, or a class with too few samples.
    """
    sizes = np.bincount(y)
    if len(sizes) < 2:
        raise ValueError("LMNN needs samples of at least two classes, got 1 class")
    if sizes.min() <= k:
        raise ValueError(
            f"each sample needs {k} target neighbours of its class, but the smallest class in X (n_samples = {len(X)}, "
            f"n_features = {X.shape[1]}) has {sizes.min()} samples: leave it out, or lower n_neighbors"
        )
    targets = np.empty((len(X), k), dtype=np.int64)
    for cls in range(len(sizes)):
        rows = np.flatnonzero(y == cls)
        targets[rows] = rows[knn(torch.from_numpy(X[rows]), k)[1].numpy()]
    return targets


def objective(L: NDArray, X: NDArray, y: NDArray, targets: NDArray, mu: float) -> tuple[float, NDArray, int]:
    """F, its gradient (r, M), and the number of impostor pairs.

    With the active triplets known, F is a sum of squared distances with weights S, and a constant: S_ij = 1 - mu + mu
    times the active triplets of the target (i, j), and S_il = -mu times those of the impostor (i, l). Hence the
    gradient is that of ``sum_ij S_ij ||z_i - z_j||^2`` with ``z = L x``.
    """
    n, k = targets.shape
    Z = X @ L.T
    pulled = np.square(Z[:, None] - Z[targets]).sum(axis=2)  # (n, k)
    reach = 1 + pulled
    value = (1 - mu) * pulled.sum()
    gradient_z = np.zeros_like(Z)
    impostors = 0
    step = max(1, _BLOCK // n)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        d = euclidean_distances(Z[rows], Z, squared=True)
        inside = (d < reach[rows].max(axis=1)[:, None]) & (y[rows, None] != y)
        i, l = inside.nonzero()
        hinge = reach[rows][i] - d[inside][:, None]  # (pairs, k), the triplets (i, j, l) for each target j
        active = hinge > 0
        value += mu * hinge[active].sum()
        impostors += len(i)
        m = len(d)
        pull = (1 - mu) + mu * np.stack([np.bincount(i, column, minlength=m) for column in active.T], axis=1)
        push = -mu * active.sum(axis=1)
        row = np.concatenate([np.repeat(np.arange(m), k), i])
        column = np.concatenate([targets[rows].ravel(), l])
        S = csr_array((np.concatenate([pull.ravel(), push]), (row, column)), shape=(m, n))
        # d/dz of sum_ij S_ij ||z_i - z_j||^2 = 2 (row sums + column sums - S - S') z
        gradient_z[rows] += S.sum(axis=1)[:, None] * Z[rows] - S @ Z
        gradient_z += S.sum(axis=0)[:, None] * Z - S.T @ Z[rows]
    return value / (n * k), 2 * gradient_z.T @ X / (n * k), impostors
