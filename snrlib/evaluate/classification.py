"""Classify by the classes of the k nearest references, and say which classes are taken for each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from snrlib.distances import Distance
from snrlib.evaluate.neighbours import ranking_blocks
from snrlib.utils.checks import check_labels

__all__ = ["classify", "confusion", "most_confused"]


@torch.no_grad()
def classify(
    query: Tensor, reference: Tensor | None, labels: Tensor, k: int = 1, distance: Distance | None = None
) -> Tensor:
    """The class that most of the k nearest references have; in a tie, the tied class with the nearest reference.

    Args:
        query: (n_query, M).
        reference: (n_reference, M); None lets all other queries vote on each query (leave-one-out).
        labels: (n_reference,), integers; those of the queries without a reference.
        k: how many neighbours vote.
        distance: a member of the family, its anchor side included; None is Euclidean.

    Returns:
        (n_query,), one of ``labels`` each.

    Raises:
        TypeError, ValueError: as `snrlib.evaluate.knn`, or labels that are not as many integers as references.
    """
    check_labels(labels, len(query if reference is None else reference))
    blocks = ranking_blocks(query, k, reference, distance)
    classes, members = labels.to(query.device).unique(return_inverse=True)
    found = []
    for indices in blocks:
        votes = members[indices]
        ballot = torch.zeros(len(votes), len(classes), dtype=torch.int32, device=votes.device)
        ballot.scatter_add_(1, votes, torch.ones_like(votes, dtype=torch.int32))
        winner = ballot.gather(1, votes).argmax(dim=1, keepdim=True)  # the first, hence nearest, of the largest
        found.append(votes.gather(1, winner).squeeze(1))
    return classes[torch.cat(found)]


def confusion(
    embeddings: Tensor,
    labels: Tensor,
    k: int = 1,
    distance: Distance | None = None,
    classes: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Confusion matrix of `classify`, every embedding classified by its k nearest others (leave-one-out).

    Args:
        embeddings: (n, M).
        labels: (n,), integers.
        k: how many neighbours vote.
        distance: a member of the family, its anchor side included; None is Euclidean.
        classes: name of each label, as of a data set; None names a class by its label.

    Returns:
        Counts: one row a class of the labels, one column a class that it was taken for; both in ascending order of the
        labels. Rows sum to the sizes of the classes, and the share on the diagonal is the accuracy.

    Raises:
        TypeError, ValueError: as `classify`, or labels that have no name in ``classes``.
    """
    predicted = classify(embeddings, None, labels, k, distance).cpu()
    present, truth = labels.cpu().unique(return_inverse=True)
    if classes is not None and (int(present[0]) < 0 or int(present[-1]) >= len(classes)):
        raise ValueError(f"labels must index the {len(classes)} classes, got {int(present[0])} to {int(present[-1])}")
    n = len(present)
    counts = torch.bincount(truth * n + torch.searchsorted(present, predicted), minlength=n * n).view(n, n)
    names = [label if classes is None else classes[label] for label in present.tolist()]
    return pd.DataFrame(counts.numpy(), index=pd.Index(names, name="class"), columns=pd.Index(names, name="taken for"))


def most_confused(matrix: pd.DataFrame, n: int = 10) -> pd.DataFrame:
    """The n most frequent confusions of a `confusion` matrix, most frequent first.

    Args:
        matrix: counts, one row a class, one column a class that it was taken for, in the same order.
        n: how many at most; pairs of classes that are never confused are left out.

    Returns:
        ``class``, ``taken for``, ``count`` and ``share``, which is the count over the size of the class.

    Raises:
        ValueError: rows and columns that are not the same classes, or n below 1.

    >>> matrix = pd.DataFrame([[6, 2], [1, 9]], index=["cat", "dog"], columns=["cat", "dog"])
    >>> most_confused(matrix)
      class taken for  count  share
    0   cat       dog      2   0.25
    1   dog       cat      1   0.10
    """
    if list(matrix.index) != list(matrix.columns):
        raise ValueError("a confusion matrix has the same classes in rows and columns, in the same order")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    counts = matrix.to_numpy()
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[: min(n, np.count_nonzero(wrong))]
    rows, columns = np.unravel_index(order, wrong.shape)
    return pd.DataFrame(
        {
            "class": matrix.index[rows],
            "taken for": matrix.columns[columns],
            "count": wrong[rows, columns],
            "share": wrong[rows, columns] / counts.sum(axis=1)[rows],
        }
    )
