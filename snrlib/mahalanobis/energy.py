"""Energy-based classification: of all classes, the one that costs LMNN's objective least."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils.validation import check_is_fitted, validate_data

from snrlib.mahalanobis.lmnn import LMNN

__all__ = ["EnergyClassifier"]

_BLOCK = 2**21  # pairs of a sample and a training sample that are compared at a time


class EnergyClassifier(ClassifierMixin, BaseEstimator):
    """Classify x by what its joining a class c adds to the objective of `LMNN`, its *energy*; the lowest wins.

    With ``z = L x``, the training samples z_i, and N_c(z) the k nearest of class c to z,

        E_c(z) = (1 - mu) sum_(j in N_c) ||z - z_j||^2
                 + mu sum_(j in N_c) sum_(l not of c) [1 + ||z - z_j||^2 - ||z - z_l||^2]_+
                 + mu sum_(i not of c) sum_(targets j of i) [1 + ||z_i - z_j||^2 - ||z_i - z||^2]_+

    pull its targets, push its impostors, and be pushed as an impostor of others (Weinberger and Saul 2009, "energy
    based classification"). Where the paper leaves the targets of x open, they are the nearest under L, as in the
    authors' code; those of the training samples stay as LMNN chose them.

    Args:
        lmnn: an `LMNN`, which is cloned and fitted; k, mu and L are its own. None is ``LMNN()``.

    Attributes:
        lmnn_: the fitted map.
        classes_: (C,), ascending.
        n_features_in_: M.

    Raises:
        ValueError: as `LMNN`.

    >>> X, y = np.array([[0.0], [1.0], [2.0], [8.0], [9.0], [10.0]]), ["low"] * 3 + ["high"] * 3
    >>> EnergyClassifier(LMNN(n_neighbors=2)).fit(X, y).predict([[3.0], [7.0]]).tolist()
    ['low', 'high']
    """

    def __init__(self, lmnn: LMNN | None = None):
        self.lmnn = lmnn

    def fit(self, X: ArrayLike, y: ArrayLike) -> EnergyClassifier:
        """Fit L, and keep the mapped training samples.

        Args:
            X: (n, M).
            y: (n,), classes.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        self.lmnn_ = clone(LMNN() if self.lmnn is None else self.lmnn).fit(X, y)
        self.classes_, self._members = np.unique(y, return_inverse=True)
        Z = self.lmnn_.transform(X)
        self._origin = Z.mean(axis=0)  # far from it, products would lose the digits of small distances
        self._Z = Z - self._origin
        self._reach = 1 + np.square(self._Z[:, None] - self._Z[self.lmnn_.targets_]).sum(axis=2)  # (n, k)
        return self

    def energy(self, X: ArrayLike) -> NDArray:
        """``E_c`` of every row and class, not negative.

        Args:
            X: (m, M).

        Returns:
            (m, C), columns in the order of ``classes_``.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        Z = self.lmnn_.transform(X) - self._origin
        step = max(1, _BLOCK // len(self._Z))
        return np.concatenate([self._energy(Z[start : start + step]) for start in range(0, len(Z), step)])

    def predict(self, X: ArrayLike) -> NDArray:
        """The class of lowest energy; of equally low ones the first.

        Args:
            X: (m, M).

        Returns:
            (m,).
        """
        lowest = self.energy(X).argmin(axis=1)
        return self.classes_[lowest]

    def _energy(self, Z: NDArray) -> NDArray:
        d = euclidean_distances(Z, self._Z, squared=True)
        pushed = sum(_hinge(reach - d) for reach in self._reach.T)  # by x as an impostor, (m, n)
        mu, k = self.lmnn_.mu, self.lmnn_.n_neighbors
        columns = []
        for c in range(len(self.classes_)):
            own = self._members == c
            targets, others = np.partition(d[:, own], k - 1, axis=1)[:, :k], d[:, ~own]
            push = sum(_hinge(1 + target[:, None] - others).sum(axis=1) for target in targets.T)
            columns.append((1 - mu) * targets.sum(axis=1) + mu * (push + pushed[:, ~own].sum(axis=1)))
        return np.stack(columns, axis=1)


def _hinge(x: NDArray) -> Any:
    return np.maximum(x, 0)
