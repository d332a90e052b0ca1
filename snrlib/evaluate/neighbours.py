"""Nearest neighbours, exact, under any member of the family, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from snrlib.distances import Distance, get_distance
from snrlib.evaluate.products import Halves, HalvesFirst, Smallest, halves_pay, padded
from snrlib.utils.checks import check_choice, check_embeddings, check_rank

__all__ = ["Index", "import_faiss", "knn", "knn_blocks", "ranking_blocks", "without_self"]

_BLOCK = 2**25  # numbers in one block of products, at most: 128 MiB in float32
_CACHED = 2**23  # and usually: what is written is read again while a cache still has it
_FEWEST = 64  # queries in a block for which that counts; of fewer, a product is slow
_EXACT = 128  # places of a ranking that are put in order by the distances themselves

_Search = Callable[[Tensor, Tensor | None], Tensor]


class Index:
    """A gallery, mapped once, that is searched again and again: a search costs its own product and selection alone.

    Every member of the family ranks by the product of two matrices (`Distance.search_form`), so a block of queries
    costs one matrix product and a selection. Beyond the data an index needs one copy of the gallery (half of one more
    for a first pass), and a search one of its queries and a block. Exact means that no candidate is skipped; candidates
    whose squared distances differ by less than the rounding of squared lengths (1e-7 of them in float32) may change
    places. Float64 tells them apart.

    >>> index = Index(torch.eye(4), get_distance("snr"))
    >>> index.search(torch.eye(4)[2:] + 0.1, k=1)[1].tolist()
    [[2], [3]]

    Args:
        reference: (n_reference, M), the gallery.
        distance: a member of the family; None is Euclidean.
        backend: "torch", or "faiss" for the exact flat index of faiss, where it is installed (CPU, float32).
        first_pass: "bfloat16" looks for candidates by products in bfloat16 and measures them in float32; where a bound
            of the error (`snrlib.evaluate.products.Halves`) does not show that none was missed, a query is searched
            anew, so what is found is the same. "none" does without. "auto" takes the first where it is faster: in
            float32 on a processor with instructions for it, with k up to 64 and thousands of rows.

    Raises:
        ValueError: unknown backend or first pass, embeddings of a wrong shape or value.
        TypeError: embeddings that are not floating-point tensors, or a distance that is none.
        ImportError: backend "faiss" without faiss.
    """

    @torch.no_grad()
    def __init__(
        self, reference: Tensor, distance: Distance | None = None, backend: str = "torch", first_pass: str = "auto"
    ) -> None:
        self.distance = get_distance("euclidean") if distance is None else distance
        if not isinstance(self.distance, Distance):
            raise TypeError(f"distance must be a Distance, as get_distance returns, got {distance!r}")
        self.reference = check_embeddings(reference, "reference")
        check_choice(backend, "backend", ("torch", "faiss"))
        self._first_pass = check_choice(first_pass, "first_pass", ("auto", "bfloat16", "none"))
        right, self._left = self.distance.search_form(self.reference)
        self._faiss = _faiss_index(right) if backend == "faiss" else None
        self._right = right[:0] if backend == "faiss" else padded(right)  # faiss has a copy of its own
        self._halves: Halves | None = None

    def search(self, query: Tensor, k: int, progress: bool = False) -> tuple[Tensor, Tensor]:
        """The k nearest rows of the gallery of every query.

        Args:
            query: (n_query, M).
            k: how many, at most n_reference.
            progress: show how many queries are done.

        Returns:
            distances (n_query, k) in ascending order and indices (n_query, k), int64. Equal distances come in any
            order.

        Raises:
            ValueError: k out of range, embeddings of a wrong shape or value.
            TypeError: embeddings that are not floating-point tensors of the gallery's dtype and device.
        """
        return _together(self.blocks(query, k), query, k, progress)

    @torch.no_grad()
    def blocks(self, query: Tensor | None, k: int, places: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """What `search` returns, a block of queries at a time: for a k so large that (n_query, k) would not fit.

        Args:
            query: (n_query, M); None is the gallery itself, and a row is then never its own neighbour.
            k: how many.
            places: how many of them are put in order by their distances, which alone are given; None is all. Later
                ones are in the order of the products.
        """
        itself = query is None
        query = self.reference if query is None else check_embeddings(query, "query")
        n = len(self.reference)
        k = check_rank(k, "k", n - itself, "number of candidates of a query")
        left, distance = self._left(query), self.distance.between(query, self.reference)
        return self._found(query, left, k, k if places is None else places, itself, distance)

    @torch.no_grad()
    def _found(
        self, query: Tensor, left: Tensor, k: int, places: int, itself: bool, distance: Distance
    ) -> Iterator[tuple[Tensor, Tensor]]:
        search, n = self._searched(k), max(len(self.reference), len(self._right))
        if self._faiss is not None:  # has blocks of its own, and is many times slower if called for few queries at once
            size = _BLOCK // (k + 1)
        else:
            # A ranking of most candidates, and what scores make of it, takes several times the bytes of the products.
            most = _BLOCK // n // (8 if 2 * k > n else 1)
            size = min(most, max(_FEWEST, _CACHED // n))
        size = max(1, size)
        rows = torch.arange(len(query), device=query.device)
        for own, some, factors in zip(rows.split(size), query.split(size), left.split(size), strict=True):
            indices = search(factors, own if itself else None)
            # The products rank; the distances themselves come from differences, which keep their digits near zero.
            nearest, rest = indices[:, :places], indices[:, places:]
            distances, order = _distances(some, self.reference, nearest, distance).sort(dim=1, stable=True)
            yield distances, torch.cat([nearest.gather(1, order), rest], dim=1)

    def _searched(self, k: int) -> _Search:
        """Indices (m, k) of the smallest products of rows, smallest first."""
        if self._faiss is not None:
            return _search_faiss(self._faiss, k)
        asked = self._first_pass == "bfloat16" and self._right.dtype == torch.float32
        if asked or (self._first_pass == "auto" and halves_pay(self._right, k)):
            if self._halves is None:
                self._halves = Halves(self._right[: len(self.reference)])
            find: Any = HalvesFirst(self._right, self._halves, k)
        else:
            find = Smallest(self._right, k)
        return lambda left, own: find(left, own)[1]


def knn(
    query: Tensor,
    k: int,
    reference: Tensor | None = None,
    distance: Distance | None = None,
    backend: str = "torch",
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """The k nearest references of every query, exactly: `Index` and its search in one.

    Args:
        query: (n_query, M).
        k: how many, at most n_reference (n_query - 1 without a reference).
        reference: (n_reference, M); None searches ``query`` itself, and a row is never its own neighbour: it is left
            out by index, so an exact duplicate of it is still found.
        distance: a member of the family; None is Euclidean.
        backend: "torch", or "faiss", as for `Index`.
        progress: show how many queries are done.

    Returns:
        distances (n_query, k) in ascending order and indices (n_query, k), int64. Equal distances come in any order.

    Raises:
        ValueError: k out of range, unknown backend, embeddings of a wrong shape or value.
        TypeError: embeddings that are not floating-point tensors, or a distance that is none.
        ImportError: backend "faiss" without faiss.
    """
    return _together(knn_blocks(query, k, reference, distance, backend), query, k, progress)


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
    return _blocks(query, k, reference, distance, backend, None)


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
    return (indices for _, indices in _blocks(query, k, reference, distance, backend, _EXACT))


def _blocks(
    query: Tensor, k: int, reference: Tensor | None, distance: Distance | None, backend: str, places: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    query = check_embeddings(query, "query")
    index = Index(query if reference is None else reference, distance, backend)
    return index.blocks(None if reference is None else query, k, places)


def _together(blocks: Iterator[tuple[Tensor, Tensor]], query: Tensor, k: int, progress: bool) -> tuple[Tensor, Tensor]:
    # Small results kept between the blocks would break up the memory that every block uses anew.
    distances = torch.empty(len(query), k, dtype=check_embeddings(query, "query").dtype, device=query.device)
    indices = torch.empty(len(query), k, dtype=torch.int64, device=query.device)
    start = 0
    with tqdm(total=len(query), desc="neighbours", unit="row", disable=not progress) as bar:
        for block_distances, block_indices in blocks:
            stop = start + len(block_indices)
            distances[start:stop], indices[start:stop] = block_distances, block_indices
            bar.update(stop - start)
            start = stop
    return distances, indices


def _distances(query: Tensor, database: Tensor, indices: Tensor, distance: Distance) -> Tensor:
    """Distances (n_query, k) of every query to its k rows of the database, so many pairs at once as caches hold."""
    rows = torch.arange(len(query), device=query.device).repeat_interleave(indices.shape[1])
    pairs = max(1, _BLOCK // (16 * query.shape[1]))
    found = [
        distance.pairwise_distance(query[i], database[j])
        for i, j in zip(rows.split(pairs), indices.flatten().split(pairs), strict=True)
    ]
    return torch.cat(found).view(indices.shape)


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


def _faiss_index(right: Tensor) -> Any:
    faiss = import_faiss()
    if right.dtype != torch.float32 or right.device.type != "cpu":
        raise ValueError(f"backend 'faiss' searches float32 on the CPU, got {right.dtype} on {right.device}")
    index = faiss.IndexFlatIP(right.shape[1])
    index.add(right.numpy())
    return index


def _search_faiss(index: Any, k: int) -> _Search:
    def search(left: Tensor, own: Tensor | None) -> Tensor:
        _, found = index.search((-left).numpy(), k + (own is not None))  # faiss looks for the largest product
        indices = torch.from_numpy(found)
        return indices if own is None else without_self(indices, own)

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
