"""Retrieval scores: every embedding is a query against all others, or against a gallery."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from snrlib.distances import Distance
from snrlib.evaluate.neighbours import ranking_blocks, without_self
from snrlib.utils.checks import as_labels, check_choice, check_embeddings, check_labels

__all__ = ["ON_REQUEST", "USUAL_KS", "Labels", "checked_sets", "class_means", "retrieval"]

Labels = Any
"""Integers or strings, one per embedding: a tensor, an array, a Series or a list."""


USUAL_KS: tuple[int, ...] = (1, 2, 4, 8)
"""The values of k where none are given, as far as there are so many candidates."""

ON_REQUEST: tuple[str, ...] = ("precision_at_k", "mean_average_precision", "mean_reciprocal_rank")
"""The scores that `retrieval` adds where ``also`` names them."""


def retrieval(  # noqa: PLR0913 - what is judged, by what, against what
    embeddings: Tensor,
    labels: Labels,
    distance: Distance | None = None,
    ks: Sequence[int] | None = None,
    backend: str = "torch",
    reference: Tensor | None = None,
    reference_labels: Labels | None = None,
    also: str | Sequence[str] = (),
    *,
    rows: Tensor | None = None,
    progress: Callable[[int], object] | None = None,
) -> pd.DataFrame:
    """The scores of every query, with R the number of candidates of its class:

    - ``precision_at_1``, which is R@1: 1 if the nearest is of its class, else 0;
    - ``recall_at_k``: 1 if at least one of the k nearest is of its class, else 0;
    - ``r_precision``: the share of its class among the R nearest;
    - ``mean_average_precision_at_r``: ``1/R sum_(i=1..R) P(i) [the i-th is of its class]``, where P(i) is the share of
      its class among the i nearest (Musgrave et al. 2020).

    On request, by ``also``:

    - ``precision_at_k``, a column for each k above 1: the share of its class among the k nearest;
    - ``mean_average_precision``: ``1/R sum_i P(i) [the i-th is of its class]`` over the whole ranking;
    - ``mean_reciprocal_rank``: one over the place of the nearest of its class.

    All lie in [0, 1]. Equal distances come in any order (`snrlib.evaluate.knn`): where classes mix at one distance, as
    between codes of few bits, a score is that of one of their orders.

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
        also: one or more of `ON_REQUEST`. The last two rank all candidates of each query, which takes longer.
        rows: (q,), the row numbers of the embeddings that are queries, such as a sample; all others are only searched,
            if there is no reference. None takes every row.
        progress: is told how many queries were done, block by block.

    Returns:
        One row per query, in the order of ``rows``; the columns that were asked for stand last, in the order above.

    Raises:
        TypeError, ValueError: labels that are not as many integers or strings, an empty ``ks``, a k that is no integer
            or out of range, an unknown score in ``also``, ``rows`` that are no row numbers, a reference without labels
            or labels without a reference.
    """
    asked = _checked_names(also)
    x, y, given, gallery = checked_sets(embeddings, labels, reference, reference_labels)
    candidates = len(y) - (reference is None)
    if candidates < 1:
        raise ValueError("one embedding alone has nothing to be searched in; at least two are needed")
    chosen = _usual(candidates) if ks is None else _checked(ks)
    queries, given, gallery = embeddings, given.to(x.device), gallery.to(x.device)
    if rows is not None:
        rows = _checked_rows(rows, len(x)).to(x.device)
        queries, given = embeddings[rows], given[rows]
    known, members = torch.cat([given, gallery]).unique(return_inverse=True)
    counts = members[len(given) :].bincount(minlength=len(known))
    r_all = counts[members[: len(given)]] - int(reference is None)
    whole = not {"mean_average_precision", "mean_reciprocal_rank"}.isdisjoint(asked)
    most = max(*chosen, candidates if whole else int(r_all.max()))
    rank = torch.arange(1, most + 1, device=x.device)
    names = ["precision_at_1" if k == 1 else f"recall_at_{k}" for k in chosen]
    names += ["r_precision", "mean_average_precision_at_r"]
    above_1 = [k for k in chosen if k > 1] if "precision_at_k" in asked else []
    names += [f"precision_at_{k}" for k in above_1] + [name for name in ON_REQUEST[1:] if name in asked]
    scores = torch.empty(len(queries), len(names), dtype=torch.float64, device=x.device)
    start = 0
    if rows is None or reference is not None:
        blocks = ranking_blocks(queries, most, reference, distance=distance, backend=backend)
    else:
        blocks = _without(rows, ranking_blocks(queries, most + 1, embeddings, distance=distance, backend=backend))
    for indices in blocks:
        stop = start + len(indices)
        hit = gallery[indices] == given[start:stop, None]
        r = r_all[start:stop, None].double()
        hit_in_r = hit & (rank <= r)
        precision = hit.cumsum(dim=1) / rank.double()
        row = [hit[:, :k].any(dim=1) for k in chosen]
        row += [hit_in_r.sum(dim=1) / r[:, 0], (precision * hit_in_r).sum(dim=1) / r[:, 0]]
        row += [precision[:, k - 1] for k in above_1]
        if "mean_average_precision" in asked:
            row.append((precision * hit).sum(dim=1) / r[:, 0])
        if "mean_reciprocal_rank" in asked:
            row.append(1 / (hit.int().argmax(dim=1) + 1).double())  # the first of the largest
        scores[start:stop] = torch.stack([score.double() for score in row], dim=1).masked_fill(r == 0, torch.nan)
        start = stop
        if progress is not None:
            progress(len(indices))
    return pd.DataFrame(scores.cpu().numpy(), columns=names)


def class_means(queries: pd.DataFrame, labels: Labels) -> pd.DataFrame:
    """The mean score of every class.

    Args:
        queries: of `retrieval`, one row per query.
        labels: (n,), of the queries, as in `retrieval`.

    Returns:
        One row per class, in ascending order of the labels; NaN for a class without candidates. Its own mean is what
        `snrlib.evaluate.evaluate` calls ``average="class"``.

    Raises:
        TypeError, ValueError: labels that are not as many integers or strings.

    >>> class_means(pd.DataFrame({"precision_at_1": [1.0, 0.0, 1.0]}), ["gull", "gull", "auk"]).precision_at_1.to_dict()
    {'auk': 1.0, 'gull': 0.5}
    """
    as_labels(labels, len(queries))
    names = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    return queries.groupby(names).mean().rename_axis(index="class")


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


def _without(rows: Tensor, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
    """Rankings of these rows among all, without the rows themselves."""
    start = 0
    for indices in blocks:
        yield without_self(indices, rows[start : start + len(indices)])
        start += len(indices)


def _checked_rows(rows: Tensor, n: int) -> Tensor:
    check_labels(rows, name="rows")
    if len(rows) == 0 or int(rows.min()) < 0 or int(rows.max()) >= n:
        raise ValueError(f"rows must be one or more row numbers from 0 to {n - 1}, got {len(rows)} of them: {rows}")
    return rows


def _checked_names(also: str | Sequence[str]) -> set[str]:
    return {check_choice(name, "also", ON_REQUEST) for name in ([also] if isinstance(also, str) else also)}


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
