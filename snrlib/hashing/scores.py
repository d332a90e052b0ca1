"""Scores of a ranking by Hamming distance, in which most places are shared.

A code of 48 bits knows 49 distances, a database 54,000 images: a ranking by Hamming distance is a list of *tie groups*,
and the order inside a group is nobody's. The field's code sorts, and scores whichever order the sorting left. Here the
score is the mean over all orders that the distances allow (McSherry and Najork, ECIR 2008), in closed form; the order
by place in the database, which a stable sorting leaves, is there to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from snrlib.distances import Distance
from snrlib.hashing.codes import check_codes, hamming
from snrlib.utils.checks import as_labels, check_embeddings, check_rank

__all__ = ["TieGroups", "average_precision", "relaxed_map", "score_codes", "tie_groups"]

_BLOCK = 2**22  # distances in one block: 32 MiB as keys of 8 bytes


@dataclass(frozen=True, eq=False)
class TieGroups:
    """For every query how many codes stand at each Hamming distance: all that a score without an order needs.

    Attributes:
        retrieved: (n_query, n_distances), int64; column h counts the codes of the database at distance h.
        relevant: the same, of those of the query's class.
    """

    retrieved: Tensor
    relevant: Tensor

    def average_precision(self) -> Tensor:
        """The mean over all orders inside the tie groups of ``AP = 1/R sum over relevant places of P(place)``.

        A group of c codes, r of them relevant, after C codes with R' relevant ones, adds

            r/c sum_(i=1..c) (R' + 1 + (i - 1) (r - 1)/(c - 1)) / (C + i)

        since the i-th place is relevant with chance r/c, and then (i - 1)(r - 1)/(c - 1) of the places before it in the
        group are, on average (McSherry and Najork, ECIR 2008). With ``s = (r - 1)/(c - 1)`` the sum is
        ``c s + (R' + 1 - s (C + 1)) (H_(C+c) - H_C)``, H_n the n-th harmonic number: no loop.

        Returns:
            (n_query,), float64; NaN for a query whose class is not in the database.
        """
        c, r = self.retrieved.double(), self.relevant.double()
        before, relevant_before = c.cumsum(dim=1) - c, r.cumsum(dim=1) - r
        n = int(self.retrieved.sum(dim=1).max())
        one_over = 1 / torch.arange(1, n + 1, dtype=torch.float64, device=c.device)
        harmonic = torch.cat([one_over.new_zeros(1), one_over.cumsum(dim=0)])
        start = before.long()
        s = (r - 1) / (c - 1).clamp_min(1)
        # c s + (R' + 1 - s (C + 1)) (H_(C+c) - H_C)
        inner = c * s + (relevant_before + 1 - s * (before + 1)) * (harmonic[start + self.retrieved] - harmonic[start])
        return (r / c.clamp_min(1) * inner).sum(dim=1) / r.sum(dim=1)

    def precision_at(self, n: int) -> Tensor:
        """The share of relevant codes among the n nearest, on average over all orders.

        Of a group that the n-th place cuts, the part inside holds relevant codes in proportion.

        Args:
            n: from 1 to the size of the database.

        Returns:
            (n_query,), float64.
        """
        size = int(self.retrieved[0].sum())
        n = check_rank(n, "n", size, "size of the database")
        c, r = self.retrieved.double(), self.relevant.double()
        inside = (n - (c.cumsum(dim=1) - c)).clamp_min(0).minimum(c)
        return (r * inside / c.clamp_min(1)).sum(dim=1) / n

    def precision_within(self, radius: int) -> Tensor:
        """The share of relevant codes among those at a distance of at most ``radius``; 0 where there are none.

        Hash tables answer such a query without a search; a query that finds nothing counts as a failure, as the field
        counts it.

        Returns:
            (n_query,), float64.
        """
        if not (isinstance(radius, Integral) and not isinstance(radius, bool) and radius >= 0):
            raise ValueError(f"radius must be an integer of at least 0, got {radius!r}")
        within = slice(0, int(radius) + 1)
        found = self.retrieved[:, within].sum(dim=1)
        return self.relevant[:, within].sum(dim=1) / found.clamp_min(1).double()

    def curve(self) -> pd.DataFrame:
        """What is found within each radius: means over the queries, those that find nothing with a precision of 0.

        Returns:
            Index ``radius``; ``precision``, ``recall``, ``empty`` (the share of queries that find nothing), and
            ``retrieved`` (how many codes are found). Queries without a relevant code have no recall.
        """
        found, right = self.retrieved.cumsum(dim=1).double(), self.relevant.cumsum(dim=1).double()
        columns = {
            "precision": right / found.clamp_min(1),
            "recall": right / right[:, -1:],
            "empty": (found == 0).double(),
            "retrieved": found,
        }
        table = pd.DataFrame({name: values.nanmean(dim=0).cpu().numpy() for name, values in columns.items()})
        return table.rename_axis("radius")


def tie_groups(query: Tensor, query_labels: Any, database: Tensor, database_labels: Any) -> TieGroups:
    """Count, for every query, the codes at each Hamming distance, and those of its class, in blocks of queries.

    Args:
        query: (n_query, bytes), uint8, of `snrlib.hashing.pack`.
        query_labels: (n_query,), integers or strings.
        database: (n_database, bytes), uint8.
        database_labels: (n_database,).

    Raises:
        TypeError, ValueError: no codes, codes of different length, or labels that are not as many.
    """
    y, z = as_labels(query_labels, len(check_codes(query, "query")), database_labels, len(database))
    distances = 8 * query.shape[1] + 1
    counts = []
    for rows, labels in zip(_blocks(query, database), _blocks(y, database), strict=True):
        # One count of keys (query, distance, of its class or not).
        key = hamming(rows, database).long() + torch.arange(len(rows), device=rows.device)[:, None] * distances
        key = key.mul_(2).add_(labels.to(rows.device)[:, None] == z.to(rows.device))
        counts.append(key.flatten().bincount(minlength=2 * distances * len(rows)).view(len(rows), distances, 2))
    both = torch.cat(counts)
    return TieGroups(both.sum(dim=2), both[:, :, 1])


def average_precision(relevant: Tensor) -> Tensor:
    """``AP = 1/R sum over relevant places i of P(i)`` of whole rankings, P(i) the share of relevant ones up to i.

    Args:
        relevant: (n_query, n_database), bool, in the order of each ranking.

    Returns:
        (n_query,), float64; NaN where nothing is relevant.

    >>> average_precision(torch.tensor([[True, False, True]]))
    tensor([0.8333], dtype=torch.float64)
    """
    if not isinstance(relevant, Tensor) or relevant.dtype != torch.bool or relevant.ndim != 2:
        raise ValueError(f"relevant must be a bool tensor of shape (n_query, n_database), got {relevant!r}")
    place = torch.arange(1, relevant.shape[1] + 1, dtype=torch.float64, device=relevant.device)
    precision = relevant.cumsum(dim=1) / place
    return (precision * relevant).sum(dim=1) / relevant.sum(dim=1)


def score_codes(  # two sides of a search, and what is asked of it
    query: Tensor,
    query_labels: Any,
    database: Tensor,
    database_labels: Any,
    at: Sequence[int] = (100,),
    by_index: bool = False,
) -> dict[str, float]:
    """The scores of hashing, means over the queries.

    Args:
        query: (n_query, bytes), uint8, of `snrlib.hashing.pack`.
        query_labels: (n_query,), integers or strings.
        database: (n_database, bytes), uint8.
        database_labels: (n_database,).
        at: values of n for ``precision_at_n``.
        by_index: also score the one order that a stable sorting leaves, by place in the database.

    Returns:
        ``mAP`` over the whole ranking, ties averaged; ``mAP_by_index`` if asked, that of the field's code with a stable
        sorting; ``precision_within_2``, a query that finds nothing counting 0; ``empty_within_2``, the share of these;
        ``precision_at_n``. Queries whose class is not in the database have no mAP and are left out of it.

    Raises:
        TypeError, ValueError: as `tie_groups`, or an n out of range.
    """
    groups = tie_groups(query, query_labels, database, database_labels)
    scores = {"mAP": groups.average_precision().nanmean().item()}
    if by_index:
        y, z = as_labels(query_labels, len(query), database_labels, len(database))
        ordered = [
            average_precision((labels[:, None] == z).gather(1, hamming(rows, database).argsort(dim=1, stable=True)))
            for rows, labels in zip(_blocks(query, database), _blocks(y, database), strict=True)
        ]
        scores["mAP_by_index"] = torch.cat(ordered).nanmean().item()
    scores["precision_within_2"] = groups.precision_within(2).mean().item()
    scores["empty_within_2"] = (groups.retrieved[:, :3].sum(dim=1) == 0).double().mean().item()
    return scores | {f"precision_at_{n}": groups.precision_at(n).mean().item() for n in at}


@torch.no_grad()
def relaxed_map(
    query: Tensor, query_labels: Any, database: Tensor, database_labels: Any, distance: Distance | None
) -> float:
    """mAP over the whole ranking of relaxed codes, before their signs are taken: what binarisation starts from.

    Args:
        query: (n_query, bits), floating point.
        query_labels: (n_query,), integers or strings.
        database: (n_database, bits).
        database_labels: (n_database,).
        distance: that ranks, its anchor side included; None ranks by the inner product, largest first.

    Returns:
        The mean over the queries whose class is in the database; equal distances in the order of the database.

    Raises:
        TypeError, ValueError: bad embeddings, or labels that are not as many.
    """
    query, database = check_embeddings(query, "query"), check_embeddings(database, "database")
    y, z = as_labels(query_labels, len(query), database_labels, len(database))
    found = []
    for rows, labels in zip(_blocks(query, database), _blocks(y, database), strict=True):
        d = -(rows @ database.T) if distance is None else distance(rows, database)
        found.append(average_precision((labels[:, None] == z).gather(1, d.argsort(dim=1, stable=True))))
    return torch.cat(found).nanmean().item()


def _blocks(rows: Tensor, database: Tensor) -> tuple[Tensor, ...]:
    return rows.split(max(1, _BLOCK // len(database)))
