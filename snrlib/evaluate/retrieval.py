"""Retrieval scores: every embedding is a query against all others, or against a gallery."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from snrlib.distances import Distance
from snrlib.evaluate.neighbours import ranking_blocks
from snrlib.utils.checks import as_labels, check_embeddings

__all__ = ["USUAL_KS", "Labels", "checked_sets", "retrieval"]

Labels = Any
"""Integers or strings, one per embedding: a tensor, an array, a Series or a list."""


USUAL_KS: tuple[int, ...] = (1, 2, 4, 8)
"""The values of k where none are given, as far as there are so many candidates."""


def retrieval(
    embeddings: Tensor,
    labels: Labels,
    distance: Distance | None = None,
    ks: Sequence[int] | None = None,
    backend: str = "torch",
    reference: Tensor | None = None,
    reference_labels: Labels | None = None,
) -> pd.DataFrame:
    """The scores of every query, with R the number of candidates of its class:

    - ``precision_at_1``, which is R@1: 1 if the nearest is of its class, else 0;
    - ``recall_at_k``: 1 if at least one of the k nearest is of its class, else 0;
    - ``r_precision``: the share of its class among the R nearest;
    - ``mean_average_precision_at_r``: ``1/R sum_(i=1..R) P(i) [the i-th is of its class]``, where P(i) is the share of
      its class among the i nearest (Musgrave et al. 2020).

    The candidates are the references or, without any, all other embeddings: a query is never its own neighbour. A query
    whose class has no candidate has no score, NaN; means leave it out.

    Args:
        embeddings: (n, M), the queries.
        labels: (n,), integers or strings: a tensor, an array or a list.
        distance: the distance that ranks, anchor side included; None is Euclidean.
        ks: values of k; the score for 1 is called ``precision_at_1``. None takes 1, 2, 4 and 8; those of them that
            exceed the number of candidates are left out, with a warning.
        backend: see `snrlib.evaluate.knn`.
        reference: (n_reference, M), a gallery that is searched instead; what stands in both sets is found, too.
        reference_labels: (n_reference,), as ``labels``.

    Returns:
        One row per query.

    Raises:
        TypeError, ValueError: labels that are not as many integers or strings, an empty ``ks``, a k that is no integer
            or out of range, a reference without labels or labels without a reference.
    """
    x, y, given, gallery = checked_sets(embeddings, labels, reference, reference_labels)
    candidates = len(y) - (reference is None)
    if candidates < 1:
        raise ValueError("one embedding alone has nothing to be searched in; at least two are needed")
    chosen = _usual(candidates) if ks is None else _checked(ks)
    given, gallery = given.to(x.device), gallery.to(x.device)
    known, members = torch.cat([given, gallery]).unique(return_inverse=True)
    counts = members[len(given) :].bincount(minlength=len(known))
    r_all = counts[members[: len(given)]] - int(reference is None)
    most = max(max(chosen), int(r_all.max()))
    rank = torch.arange(1, most + 1, device=x.device)
    names = ["precision_at_1" if k == 1 else f"recall_at_{k}" for k in chosen]
    names += ["r_precision", "mean_average_precision_at_r"]
    scores = torch.empty(len(x), len(names), dtype=torch.float64, device=x.device)
    start = 0
    for indices in ranking_blocks(embeddings, most, reference, distance=distance, backend=backend):
        stop = start + len(indices)
        hit = gallery[indices] == given[start:stop, None]
        r = r_all[start:stop, None].double()
        hit_in_r = hit & (rank <= r)
        precision = hit.cumsum(dim=1) / rank.double()
        row = [hit[:, :k].any(dim=1) for k in chosen]
        row += [hit_in_r.sum(dim=1) / r[:, 0], (precision * hit_in_r).sum(dim=1) / r[:, 0]]
        scores[start:stop] = torch.stack([score.double() for score in row], dim=1).masked_fill(r == 0, torch.nan)
        start = stop
    return pd.DataFrame(scores.cpu().numpy(), columns=names)


def checked_sets(
    embeddings: Tensor, labels: Labels, reference: Tensor | None, reference_labels: Labels | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries and what they are searched in, and the labels of both; without a reference the queries themselves.

    Raises:
        TypeError, ValueError: bad embeddings or labels, a reference without labels or labels without a reference.
    """
    x = check_embeddings(embeddings)
    if (reference is None) != (reference_labels is None):
        raise ValueError("reference and reference_labels go together: one of them is missing")
    y = x if reference is None else check_embeddings(reference, "reference")
    return x, y, *as_labels(labels, len(x), reference_labels, len(y))


def _usual(candidates: int) -> list[int]:
    ks = [k for k in USUAL_KS if k <= candidates]
    if left_out := [str(k) for k in USUAL_KS if k > candidates]:
        message = f"{candidates} candidates: there are no scores at k = {', '.join(left_out)}"
        warnings.warn(message, stacklevel=3)
    return ks


def _checked(ks: Sequence[int]) -> list[int]:
    whole = isinstance(ks, Sequence) and all(isinstance(k, Integral) and not isinstance(k, bool) for k in ks)
    if not whole or len(ks) == 0 or min(ks) < 1:
        raise ValueError(f"ks must be one or more positive integers, got {ks!r}")
    return [int(k) for k in ks]
