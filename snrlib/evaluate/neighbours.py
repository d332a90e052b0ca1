"""Nearest neighbours, exact, under any member of the family, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from snrlib.distances import Distance, get_distance
from snrlib.utils.checks import check_choice, check_embeddings, check_rank

__all__ = ["import_faiss", "knn", "knn_blocks", "ranking_blocks", "without_self"]

_BLOCK = 2**25  # numbers in one block of scores: 128 MiB in float32
_GROUP = 32  # scores that compete for one place in the first round of a selection
_EXACT = 128  # places of a ranking that are put in order by the distances themselves


@torch.no_grad()
def knn(
    query: Tensor,
    k: int,
    reference: Tensor | None = None,
    distance: Distance | None = None,
    backend: str = "torch",
) -> tuple[Tensor, Tensor]:
    """The k nearest references of every query, exactly, by an inner-product search.

    Every member of the family ranks by the product of two matrices (`Distance.inner_product_form`), so a block of
    queries costs one matrix product and a selection. Beyond the data it needs one copy of each side and a block.
    Exact means that no candidate is skipped; candidates whose squared distances differ by less than the rounding of
    squared lengths (1e-7 of them in float32) may change places. Float64 tells them apart.

    Args:
        query: (n_query, M).
        k: how many, at most n_reference (n_query - 1 without a reference).
        reference: (n_reference, M); None searches ``query`` itself, and a row is never its own neighbour: it is left
            out by index, so an exact duplicate of it is still found.
        distance: a member of the family; None is Euclidean.
        backend: "torch", or "faiss" for the exact flat index of faiss, where it is installed (CPU, float32).

    Returns:
        distances (n_query, k) in ascending order and indices (n_query, k), int64. Equal distances come in any order.

    Raises:
        ValueError: k out of range, unknown backend, embeddings of a wrong shape or value.
        TypeError: embeddings that are not floating-point tensors, or a distance that is none.
        ImportError: backend "faiss" without faiss.
    """
    blocks = knn_blocks(query, k, reference, distance, backend)
    # Small results kept between the blocks would break up the memory that every block uses anew.
    distances = torch.empty(len(query), k, dtype=check_embeddings(query, "query").dtype, device=query.device)
    indices = torch.empty(len(query), k, dtype=torch.int64, device=query.device)
    start = 0
    for block_distances, block_indices in blocks:
        stop = start + len(block_indices)
        distances[start:stop], indices[start:stop] = block_distances, block_indices
        start = stop
    return distances, indices


def knn_blocks(
    query: Tensor,
    k: int,
    reference: Tensor | None = None,
    distance: Distance | None = None,
    backend: str = "torch",
) -> Iterator[tuple[Tensor, Tensor]]:
    """What `knn` returns, a block of queries at a time, in order: for a k so large that (n_query, k) would not fit.

    Arguments and errors are those of `knn`.
    """
    return _blocks(*_check(query, k, reference, distance, backend), places=k)


def ranking_blocks(
    query: Tensor,
    k: int,
    reference: Tensor | None = None,
    distance: Distance | None = None,
    backend: str = "torch",
) -> Iterator[Tensor]:
    """The indices alone, (n_block, k): for scores that need the order of thousands of neighbours, not their distances.

    The first 128 places are in the order of the distances, later ones in that of the products, where candidates closer
    than the rounding of squared lengths may change places: for 6,000 neighbours of each of 60,000 queries the distances
    would take ten times as long as the search. Arguments and errors are those of `knn`.
    """
    return (indices for _, indices in _blocks(*_check(query, k, reference, distance, backend), places=_EXACT))


def _check(
    query: Tensor, k: int, reference: Tensor | None, distance: Distance | None, backend: str
) -> tuple[Tensor, Tensor, int, bool, Distance, str]:
    distance = get_distance("euclidean") if distance is None else distance
    if not isinstance(distance, Distance):
        raise TypeError(f"distance must be a Distance, as get_distance returns, got {distance!r}")
    query = check_embeddings(query, "query")
    database = query if reference is None else check_embeddings(reference, "reference")
    most = len(database) - (reference is None)
    k = check_rank(k, "k", most, "number of candidates of a query")
    check_choice(backend, "backend", ("torch", "faiss"))
    return query, database, k, reference is None, distance.between(query, database), backend


@torch.no_grad()
def _blocks(
    query: Tensor, database: Tensor, k: int, skip_self: bool, distance: Distance, backend: str, places: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Distances of the nearest ``places`` neighbours, and indices of all k, a block of queries at a time."""
    left, right = distance.inner_product_form(query, database)
    search = (_search_torch if backend == "torch" else _search_faiss)(right, k, skip_self)
    # A ranking of most candidates, and what scores make of it, takes several times the bytes of the products.
    rows = _BLOCK // len(right) // (8 if 2 * k > len(right) else 1)
    start = 0
    for block in left.split(max(1, rows)):
        indices = search(block, start)
        # The products rank; the distances themselves come from differences, which keep their digits near zero.
        nearest, rest = indices[:, :places], indices[:, places:]
        distances, order = _distances(query[start : start + len(block)], database, nearest, distance).sort(
            dim=1, stable=True
        )
        yield distances, torch.cat([nearest.gather(1, order), rest], dim=1)
        start += len(block)


def _distances(query: Tensor, database: Tensor, indices: Tensor, distance: Distance) -> Tensor:
    """Distances (n_query, k) of every query to its k rows of the database, so many pairs at once as caches hold."""
    rows = torch.arange(len(query), device=query.device).repeat_interleave(indices.shape[1])
    pairs = max(1, _BLOCK // (16 * query.shape[1]))
    found = [
        distance.pairwise_distance(query[i], database[j])
        for i, j in zip(rows.split(pairs), indices.flatten().split(pairs), strict=True)
    ]
    return torch.cat(found).view(indices.shape)


_Search = Callable[[Tensor, int], Tensor]


def _search_torch(right: Tensor, k: int, skip_self: bool) -> _Search:
    """Indices of the k smallest products of every row, smallest first.

    Two rounds: columns are dealt into groups of `_GROUP`; the k smallest scores lie in the k groups with the smallest
    minima, so a selection among n / 32 minima and one among 32 k scores replace one among n.
    """
    n = len(right)
    groups = -(-n // _GROUP)
    if k > groups // 2:  # too few groups for a first round
        groups = n
    padding = -n % groups
    if padding:  # columns that no selection takes: the last factor of every left row is positive
        right = torch.cat([right, right.new_zeros(padding, right.shape[1])])
        right[n:, -1] = torch.inf
    buffer = right.new_empty(0)

    def search(rows: Tensor, start: int) -> Tensor:
        nonlocal buffer  # one for all blocks: fresh memory costs as much as the product
        if len(buffer) < len(rows):
            buffer = right.new_empty(len(rows), len(right))
        scores = torch.mm(rows, right.T, out=buffer[: len(rows)])
        if skip_self:
            scores[:, start : start + len(rows)].fill_diagonal_(torch.inf)
        if groups == n:
            return scores.topk(k, largest=False).indices
        scores = scores.view(len(rows), -1, groups)  # group g holds the columns g, g + groups, ...
        best = scores.amin(dim=1).topk(k, largest=False, sorted=False).indices
        candidates = scores.gather(2, best[:, None].expand(-1, scores.shape[1], -1)).flatten(1)
        chosen = candidates.topk(k, largest=False).indices
        return chosen // k * groups + best.gather(1, chosen % k)

    return search


def import_faiss() -> Any:
    """The module.

    Raises:
        ImportError: it is not installed; the message says how to.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError("backend 'faiss' needs the package faiss-cpu: pip install 'snrlib[faiss]'") from error
    return faiss


def _search_faiss(right: Tensor, k: int, skip_self: bool) -> _Search:
    faiss = import_faiss()
    if right.dtype != torch.float32 or right.device.type != "cpu":
        raise ValueError(f"backend 'faiss' searches float32 on the CPU, got {right.dtype} on {right.device}")
    index = faiss.IndexFlatIP(right.shape[1])
    index.add(right.numpy())

    def search(rows: Tensor, start: int) -> Tensor:
        _, found = index.search((-rows).numpy(), k + skip_self)  # faiss looks for the largest product
        indices = torch.from_numpy(found)
        if not skip_self:
            return indices
        return without_self(indices, torch.arange(start, start + len(rows)))

    return search


def without_self(indices: Tensor, rows: Tensor) -> Tensor:
    """Neighbours with one place less: that of the query itself, or the last, if its duplicates filled all places.

    Args:
        indices: (n, k + 1), of each query in a set that holds it.
        rows: (n,), where in that set each query stands.

    Returns:
        (n, k).
    """
    is_self = indices == rows[:, None]
    is_self[~is_self.any(dim=1), -1] = True
    return indices[~is_self].view(len(indices), -1)
