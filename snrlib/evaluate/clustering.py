"""Clustering scores: k-means in the mapped space, as many clusters as classes."""

from __future__ import annotations

import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from sklearn.metrics.cluster import pair_confusion_matrix
from torch import Tensor

from snrlib.distances import Distance, get_distance
from snrlib.utils.checks import check_labels

__all__ = ["clustering"]


@torch.no_grad()
def clustering(
    embeddings: Tensor, labels: Tensor, distance: Distance | None = None, seed: int = 0, n_init: int = 3
) -> dict[str, float]:
    """How well k-means finds the classes.

    k-means needs means and squared lengths, so it runs on the mapped embeddings ``A x`` of the distance. A relative
    distance ranks like ``||A(b - a)||`` for a fixed query but has no means of its own: the scores of a relative and an
    absolute distance with one map A are the same.

    - ``NMI``: mutual information over the arithmetic mean of the two entropies, in [0, 1];
    - ``AMI``: the same, less what chance would give, at most 1;
    - ``F1``: of the pairs of embeddings put into one cluster against the pairs of one class, in [0, 1].

    Args:
        embeddings: (n, M).
        labels: (n,), integers; k is the number of different ones.
        distance: a member of the family; None is Euclidean.
        seed: of k-means++.
        n_init: starts; the one with the smallest sum of squares counts.

    Raises:
        TypeError, ValueError: bad embeddings, or labels that are not as many integers.
    """
    distance = get_distance("euclidean") if distance is None else distance
    z = distance.embed(embeddings)
    check_labels(labels, len(z))
    truth = labels.cpu().numpy()
    found = KMeans(len(labels.unique()), n_init=n_init, random_state=seed).fit_predict(z.cpu().numpy())
    (_, apart_together), (together_apart, together) = pair_confusion_matrix(truth, found).tolist()
    pairs = 2 * together + apart_together + together_apart
    return {
        "NMI": float(normalized_mutual_info_score(truth, found)),
        "AMI": float(adjusted_mutual_info_score(truth, found)),
        "F1": 2 * together / pairs if pairs else float("nan"),
    }
