"""Retrieval scores: every embedding is a query against all others."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from snrlib.distances import Distance
from snrlib.evaluate.neighbours import ranking_blocks
from snrlib.utils.checks import check_embeddings, check_labels

__all__ = ["retrieval"]


def retrieval(
    embeddings: Tensor,
    labels: Tensor,
    distance: Distance | None = None,
    ks: Sequence[int] = (1, 2, 4, 8),
    backend: str = "torch",
) -> pd.DataFrame:
    """The scores of every query, with R the number of other members of its class:

    - ``precision_at_1``, which is R@1: 1 if the nearest is of its class, else 0;
    - ``recall_at_k``: 1 if at least one of the k nearest is of its class, else 0;
    - ``r_precision``: the share of its class among the R nearest;
    - ``mean_average_precision_at_r``: ``1/R sum_(i=1..R) P(i) [the i-th is of its class]``, where P(i) is the share of
      its class among the i nearest (Musgrave et al. 2020).

    A query is never its own neighbour. A query whose class has no other member has no score, NaN; means leave it out.

    Args:
        embeddings: (n, M).
        labels: (n,), integers.
        distance: the distance that ranks, anchor side included; None is Euclidean.
        ks: values of k; the score for 1 is called ``precision_at_1``.
        backend: see `snrlib.evaluate.knn`.

    Returns:
        One row a query.

    Raises:
        TypeError, ValueError: labels that are not as many integers, an empty ``ks``, or a k out of range.
    """
    check_labels(labels, len(check_embeddings(embeddings)))
    if len(ks) == 0 or min(ks) < 1:
        raise ValueError(f"ks must be one or more positive integers, got {ks!r}")
    labels = labels.to(embeddings.device)
    _, members, counts = labels.unique(return_inverse=True, return_counts=True)
    others = counts[members] - 1
    most = max(max(ks), int(others.max()))
    rank = torch.arange(1, most + 1, device=labels.device)
    names = ["precision_at_1" if k == 1 else f"recall_at_{k}" for k in ks]
    names += ["r_precision", "mean_average_precision_at_r"]
    scores = torch.empty(len(embeddings), len(names), dtype=torch.float64, device=labels.device)
    start = 0
    for indices in ranking_blocks(embeddings, most, distance=distance, backend=backend):
        stop = start + len(indices)
        hit = labels[indices] == labels[start:stop, None]
        r = others[start:stop, None].double()
        hit_in_r = hit & (rank <= r)
        precision = hit.cumsum(dim=1) / rank.double()
        row = [hit[:, :k].any(dim=1) for k in ks]
        row += [hit_in_r.sum(dim=1) / r[:, 0], (precision * hit_in_r).sum(dim=1) / r[:, 0]]
        scores[start:stop] = torch.stack([score.double() for score in row], dim=1).masked_fill(r == 0, torch.nan)
        start = stop
    return pd.DataFrame(scores.cpu().numpy(), columns=names)
