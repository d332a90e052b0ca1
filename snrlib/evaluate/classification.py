"""Classify by the classes of the k nearest references."""

from __future__ import annotations

from torch import Tensor

from snrlib.checks import check_labels
from snrlib.distances import Distance
from snrlib.evaluate.neighbours import knn

__all__ = ["classify"]


def classify(query: Tensor, reference: Tensor, labels: Tensor, k: int = 1, distance: Distance | None = None) -> Tensor:
    """The class that most of the k nearest references have; in a tie, the tied class with the nearest reference.

    Args:
        query: (n_query, M).
        reference: (n_reference, M).
        labels: (n_reference,), integers.
        k: how many neighbours vote.
        distance: a member of the family, its anchor side included; None is Euclidean.

    Returns:
        (n_query,), one of ``labels`` each; `sklearn.metrics.confusion_matrix` compares them with the truth.

    Raises:
        TypeError, ValueError: as `snrlib.evaluate.knn`, or labels that are not as many integers as references.
    """
    check_labels(labels, len(reference))
    _, indices = knn(query, k, reference, distance)
    votes = labels.to(indices.device)[indices]
    count = (votes[:, :, None] == votes[:, None, :]).sum(dim=2)  # of the votes for each neighbour's class
    winner = count.argmax(dim=1, keepdim=True)  # the first, hence nearest, of the largest
    return votes.gather(1, winner).squeeze(1)
