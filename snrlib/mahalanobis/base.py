"""What every fitted map shares: after ``x -> L x`` the Mahalanobis distance is Euclidean."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["FittedMap", "check_no_constant_column"]


class FittedMap(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A linear map ``L`` fitted to data, as a scikit-learn transformer.

    ``D_M(x, x') = ||L(x - x')|| = sqrt((x - x')' M (x - x'))`` with ``M = L'L``, a pseudo-metric: two different points
    have distance 0 where ``L`` maps their difference to zero. `snrlib.distances.get_distance` takes ``components_``:
    ``get_distance("mahalanobis", components=fitted.components_)``, or "relative_mahalanobis".

    Attributes:
        components_: L, (r, M).
        n_features_in_: M.
    """

    components_: NDArray[np.float64]

    def transform(self, X: ArrayLike) -> NDArray:
        """``L x`` of every row.

        Args:
            X: (n, M).

        Returns:
            (n, r).
        """
        check_is_fitted(self)
        return validate_data(self, X, dtype=[np.float64, np.float32], reset=False) @ self.components_.T

    def get_mahalanobis_matrix(self) -> NDArray:
        """``M = L'L``, (M, M), symmetric and positive semidefinite."""
        check_is_fitted(self)
        return self.components_.T @ self.components_

    def pair_distance(self, pairs: ArrayLike) -> NDArray:
        """``D_M`` of each pair.

        Args:
            pairs: (n, 2, M).

        Returns:
            (n,).

        Raises:
            ValueError: pairs of another shape, or not finite.
        """
        check_is_fitted(self)
        both = np.asarray(pairs, dtype=float)
        if both.ndim != 3 or both.shape[1:] != (2, self.n_features_in_):
            raise ValueError(f"pairs must have shape (n, 2, {self.n_features_in_}), got {both.shape}")
        if not np.isfinite(both).all():
            raise ValueError("pairs must be finite, got NaN or infinity")
        return np.linalg.norm((both[:, 1] - both[:, 0]) @ self.components_.T, axis=1)

    def pair_score(self, pairs: ArrayLike) -> NDArray:
        """``-D_M`` of each pair, (n,): the higher, the more alike. Arguments and errors as `pair_distance`."""
        return -self.pair_distance(pairs)

    def get_metric(self) -> Callable[[ArrayLike, ArrayLike], float]:
        """``D_M(u, v)`` as a function of two vectors, for what takes a metric, as scikit-learn's neighbours do.

        It keeps the map of now, and a later fit does not change it. A call costs a product of L and a vector;
        for many pairs `transform` and Euclid are faster.

        Returns:
            A function of u and v, (M,) each, which raises ValueError for other shapes.
        """
        check_is_fitted(self)
        return partial(_distance, self.components_.copy())

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def _check(self, X: Any, constant: bool = False) -> NDArray:
        """X as float64, without constant columns unless they may be."""
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        if not constant:
            check_no_constant_column(X)
        return X

    def _check_both(self, X: Any, y: Any, constant: bool = False) -> tuple[NDArray, NDArray]:
        """The same, and y as numbers of classes, from 0."""
        if y is None:
            raise ValueError(f"{self!r} requires y to be passed, but the target y is None")
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        if not constant:
            check_no_constant_column(X)
        return X, np.unique(y, return_inverse=True)[1]


def _distance(L: NDArray, u: ArrayLike, v: ArrayLike) -> float:
    a, b = np.asarray(u, dtype=float), np.asarray(v, dtype=float)
    if a.shape != L.shape[1:] or b.shape != L.shape[1:]:
        raise ValueError(f"u and v must have shape ({L.shape[1]},), got {a.shape} and {b.shape}")
    return float(np.linalg.norm(L @ (b - a)))


def check_no_constant_column(X: NDArray) -> None:
    """Refuse a column that says nothing of any distance and has no variance to divide by.

    Raises:
        ValueError: which columns are constant.
    """
    constant = np.flatnonzero(X.max(axis=0) == X.min(axis=0))
    if len(constant):
        shown = ", ".join(map(str, constant[:10])) + (", ..." if len(constant) > 10 else "")
        raise ValueError(
            f"{len(constant)} of the {X.shape[1]} columns of X are constant ({shown}): leave them out, "
            "for example with sklearn.feature_selection.VarianceThreshold"
        )
