"""Whitening: the map after which a covariance is the identity, and the classical Mahalanobis distance."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.covariance import empirical_covariance, ledoit_wolf
from sklearn.utils import Tags

from snrlib.mahalanobis.base import FittedMap
from snrlib.utils.checks import check_choice

__all__ = ["Whitening", "within_class"]


class Whitening(FittedMap):
    """``L = S^(-1/2)`` for a covariance ``S`` of the data, so that ``M = L'L`` is its inverse.

    Whitened data have covariance I (nearly so where ``S`` was shrunk), and the distance does not change under
    ``x -> B x + c`` with an invertible B, if neither ``S`` is shrunk (P. C. Mahalanobis, 1936).

    Args:
        covariance: "empirical", or "ledoit_wolf", which shrinks it towards a multiple of I by the amount that the data
            ask for (Ledoit and Wolf 2004); needed where there are not many more samples than components.
        within_class: the covariance of the samples about their own class mean, which is the noise of a class, and not
            about the common mean, which holds the differences between classes too; needs y.
        pinv: of a singular S the root of the pseudo-inverse: directions along which the data do not vary count nothing,
            and constant columns are such. Distances between the data are then those of their coordinates in the other
            directions, whitened. With ``within_class``, a direction that only tells classes apart counts nothing
            either, however useful it is: "ledoit_wolf" keeps it.

    Attributes:
        components_: L, (M, M), symmetric, of rank ``rank_``.
        covariance_: S, (M, M).
        shrinkage_: share of the multiple of I in S; 0 if empirical.
        rank_: directions with more than M eps of the largest variance; M unless ``pinv``.

    Raises:
        ValueError: on fitting, X not finite or with fewer than two rows, unknown ``covariance``, ``within_class``
            without y or with one sample a class, an S of zeros; without ``pinv`` a constant column or a singular S.

    >>> X = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]])
    >>> Whitening().fit(X).components_.round(3) + 0.0
    array([[1. , 0. ],
           [0. , 0.5]])
    """

    def __init__(
        self,
        covariance: Literal["empirical", "ledoit_wolf"] = "empirical",
        *,
        within_class: bool = False,
        pinv: bool = False,
    ):
        self.covariance = covariance
        self.within_class = within_class
        self.pinv = pinv

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Whitening:
        """Estimate S and its inverse root.

        Args:
            X: (n, M).
            y: (n,), classes; used with ``within_class`` only.
        """
        check_choice(self.covariance, "covariance", ("empirical", "ledoit_wolf"))
        if self.within_class:
            residuals, freedom = within_class(*self._check_both(X, y, constant=self.pinv))
        else:
            checked = self._check(X, constant=self.pinv)
            residuals, freedom = checked - checked.mean(axis=0), len(checked)
        if self.covariance == "ledoit_wolf":
            self.covariance_, self.shrinkage_ = ledoit_wolf(residuals, assume_centered=True)
        else:
            self.covariance_, self.shrinkage_ = empirical_covariance(residuals, assume_centered=True), 0.0
        n, M = residuals.shape
        self.covariance_ = self.covariance_ * (n / freedom)
        values, vectors = np.linalg.eigh(self.covariance_)
        varying = values > M * np.finfo(float).eps * values[-1]
        self.rank_ = int(varying.sum())
        if self.rank_ == 0:
            where = " within its class" if self.within_class else ""
            raise ValueError(f"no component of the {n} samples varies{where}: there is nothing to whiten")
        if self.rank_ < M and not self.pinv:
            raise ValueError(
                f"the covariance of {n} samples with {M} components has rank {self.rank_} and no inverse: "
                "take more samples, fewer components, covariance='ledoit_wolf' or pinv=True"
            )
        self.components_ = vectors / np.sqrt(np.where(varying, values, np.inf)) @ vectors.T
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.within_class
        return tags


def within_class(X: NDArray, y: NDArray) -> tuple[NDArray, int]:
    """Every sample less the mean of its class, and how many degrees of freedom that leaves: samples less classes.

    Args:
        X: (n, M).
        y: (n,), numbers of the classes from 0.

    Raises:
        ValueError: no class has two samples.
    """
    sizes = np.bincount(y)
    freedom = len(X) - int(np.count_nonzero(sizes))
    if freedom == 0:
        raise ValueError("the covariance within classes needs a class with two samples, got one sample of each")
    means = np.zeros((len(sizes), X.shape[1]))
    np.add.at(means, y, X)
    return X - (means / np.maximum(sizes, 1)[:, None])[y], freedom
