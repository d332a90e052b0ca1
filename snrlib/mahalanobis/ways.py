"""The usual ways to search embeddings, for `snrlib.evaluate.compare`: distances, and maps that are fitted there."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import VarianceThreshold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from snrlib.distances import get_distance
from snrlib.mahalanobis.lmnn import LMNN
from snrlib.mahalanobis.search import whitened_search
from snrlib.mahalanobis.whitening import Whitening

__all__ = ["LMNN_BOUND", "SteadyLMNN", "usual_ways"]

LMNN_BOUND = (4_000, 128)
"""The most embeddings and components with which LMNN is among the usual ways: some minutes on one core.

An iteration takes time in proportion to n^2 M, and there are up to a hundred.
"""


class SteadyLMNN(LMNN):
    """`LMNN` that leaves out classes with too few samples for its targets, and stops at ``max_iter`` without a word."""

    def fit(self, X: Any, y: Any) -> SteadyLMNN:
        """Find L.

        Args:
            X: (n, M).
            y: (n,), classes.
        """
        y = np.asarray(y)
        _, members, sizes = np.unique(y, return_inverse=True, return_counts=True)
        enough = sizes[members] > self.n_neighbors
        if not enough.any():
            raise ValueError(
                f"LMNN needs classes of more than {self.n_neighbors} samples; the largest has {sizes.max()}"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            super().fit(np.asarray(X)[enough], y[enough])
        return self


def usual_ways(n: int | None = None, M: int | None = None) -> dict[str, Any]:
    """The ways that people choose among, by name; estimators are not fitted yet.

    Euclid, cosine, correlation, SNR and relative Euclid from both anchor sides, symmetric SNR; whitening within
    classes (Hatch et al. 2006), the same centred and at length 1 (`whitened_search`), and LMNN of standardised
    components (Weinberger and Saul 2009) where it is not too slow.

    Args:
        n: how many embeddings there are.
        M: how many components they have; LMNN is left out if one of both is unknown or beyond `LMNN_BOUND`.

    Returns:
        For ``search=`` of `snrlib.evaluate.compare`.

    >>> list(usual_ways())[:4]
    ['Euclid', 'cosine', 'correlation', 'SNR, anchor query']
    """
    ways: dict[str, Any] = {
        "Euclid": get_distance("euclidean"),
        "cosine": get_distance("cosine"),
        "correlation": get_distance("correlation"),
        "SNR, anchor query": get_distance("snr"),
        "SNR, anchor ref": get_distance("snr", anchor="ref"),
        "relative Euclid, anchor query": get_distance("relative_euclidean"),
        "relative Euclid, anchor ref": get_distance("relative_euclidean", anchor="ref"),
        "symmetric SNR": get_distance("symmetric_snr"),
        "whitening": Pipeline(
            [("varying", VarianceThreshold()), ("whiten", Whitening("ledoit_wolf", within_class=True))]
        ),
        "whitening, centred, length 1": whitened_search(),
    }
    if n is not None and M is not None and n <= LMNN_BOUND[0] and LMNN_BOUND[1] >= M:
        steps = [("varying", VarianceThreshold()), ("scale", StandardScaler()), ("lmnn", SteadyLMNN(max_iter=100))]
        ways["LMNN"] = Pipeline(steps)
    return ways
