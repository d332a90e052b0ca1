"""Clustering scores: k-means in the mapped space, as many clusters as classes."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from sklearn.metrics.cluster import pair_confusion_matrix
from torch import Tensor

from snrlib.distances import Distance, get_distance
from snrlib.evaluate.retrieval import Labels
from snrlib.utils.checks import as_labels

__all__ = ["clustering"]


@torch.no_grad()
def clustering(
    embeddings: Tensor, labels: Labels, distance: Distance | None = None, seed: int = 0, n_init: int = 3
) -> dict[str, float]:
    """How well k-means finds the classes.

    k-means needs means and squared lengths, so it runs on the mapped embeddings ``A x`` of the distance. A relative
    distance ranks like ``||A(b - a)||`` for a fixed query but has no means of its own: the scores of a relative and an
    absolute distance with one map A are the same.

    - ``NMI``: mutual information over the arithmetic mean of the two entropies, in [0, 1];
    - ``AMI``: the same, less what chance would give, at most 1;
    - ``F1``: of the pairs of embeddings put into one cluster against the pairs of one class, in [0, 1].

    Of one class, or of classes of one member each, every clustering is right or none: NMI and AMI are NaN.

    Args:
        embeddings: (n, M).
        labels: (n,), integers or strings; k is the number of different ones.
        distance: a member of the family; None is Euclidean.
        seed: of k-means++.
        n_init: starts; the one with the smallest sum of squares counts.

    Raises:
        TypeError, ValueError: bad embeddings, or labels that are not as many integers.
    """
    distance = get_distance("euclidean") if distance is None else distance
    z = distance.embed(embeddings)
    truth = as_labels(labels, len(z))[0].cpu().numpy()
    k = len(np.unique(truth))
    found = KMeans(k, n_init=n_init, random_state=seed).fit_predict(z.cpu().numpy())
    (_, apart_together), (together_apart, together) = pair_confusion_matrix(truth, found).tolist()
    pairs = 2 * together + apart_together + together_apart
    tells = 1 < k < len(truth)
    return {
        "NMI": float(normalized_mutual_info_score(truth, found)) if tells else float("nan"),
        "AMI": float(adjusted_mutual_info_score(truth, found)) if tells else float("nan"),
        "F1": 2 * together / pairs if pairs else float("nan"),
    }
