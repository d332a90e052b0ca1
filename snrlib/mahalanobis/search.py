"""Whitening of the search: embeddings as they are, searched by another distance than Euclid."""

from __future__ import annotations

from typing import Literal

from sklearn.feature_selection import VarianceThreshold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from snrlib.mahalanobis.whitening import Whitening

__all__ = ["whitened_search"]


def whitened_search(covariance: Literal["empirical", "ledoit_wolf"] = "ledoit_wolf") -> Pipeline:
    """``x -> L(x - m) / ||L(x - m)||``: centred, whitened within classes, of length 1.

    m is the mean and ``L'L = S^-1`` with S the covariance within classes, both of the training vectors. Fitted to
    embeddings of training classes, it changes the search among other classes, and no network: what training under a
    Mahalanobis distance has to be better than. All vectors come out with length 1, so that Euclid ranks them as the
    cosine does. Columns that are constant in training are left out.

    None of this is new. It is within-class covariance normalisation (Hatch et al. 2006); maps learned for the search
    are usual in retrieval (Mikolajczyk and Matas 2007; Radenović et al., whitenlearn), and Eghbal-zadeh, Dorfer and
    Widmer (2017, arXiv 1711.04022) train a network through such a layer.

    Args:
        covariance: as in `snrlib.mahalanobis.Whitening`; shrunk by default, since embeddings often have more components
            than samples to estimate S from.

    Returns:
        A scikit-learn pipeline to be fitted to vectors (n, M) and their classes (n,), which raises as `Whitening` does;
        for ``search=`` of `snrlib.evaluate.compare`, or any classifier.

    >>> import numpy as np
    >>> x, y = np.array([[0.0, 0.0], [2.0, 0.0], [9.0, 1.0], [9.0, 5.0]]), [0, 0, 1, 1]
    >>> np.linalg.norm(whitened_search().fit(x, y).transform(x), axis=1)
    array([1., 1., 1., 1.])
    """
    return Pipeline(
        [
            ("varying", VarianceThreshold()),
            ("centre", StandardScaler(with_std=False)),
            ("whiten", Whitening(covariance, within_class=True)),
            ("normalise", Normalizer()),
        ]
    )
