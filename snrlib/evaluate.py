"""Judge an embedding by its nearest neighbours, under any member of the family, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from snrlib.checks import check_embeddings, check_labels
from snrlib.distances import Distance, get_distance

__all__ = ["evaluate", "knn"]

_BLOCK = 2**25  # numbers in one block of scores: 128 MiB in float32
_GROUP = 32  # scores that compete for one place in the first round of a selection


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
    distance = get_distance("euclidean") if distance is None else distance
    if not isinstance(distance, Distance):
        raise TypeError(f"distance must be a Distance, as get_distance returns, got {distance!r}")
    query = check_embeddings(query, "query")
    database = query if reference is None else check_embeddings(reference, "reference")
    most = len(database) - (reference is None)
    if not (isinstance(k, Integral) and not isinstance(k, bool) and 1 <= k <= most):
        raise ValueError(f"k must be an integer from 1 to {most}, the number of candidates of a query, got {k!r}")
    if backend not in ("torch", "faiss"):
        raise ValueError(f"backend must be 'torch' or 'faiss', got {backend!r}")
    left, right = distance.inner_product_form(query, database)
    search = _search_torch if backend == "torch" else _search_faiss
    indices = search(left, right, k, skip_self=reference is None)
    del left, right
    # The products rank; the distances themselves come from differences, which keep their digits near zero.
    distances = torch.empty(indices.shape, dtype=query.dtype, device=query.device)
    rows = max(1, _BLOCK // (4 * k * query.shape[1]))
    for block in torch.arange(len(query), device=query.device).split(rows):
        found = database[indices[block].flatten()]
        distances[block] = distance.pairwise_distance(query[block].repeat_interleave(k, dim=0), found).view(-1, k)
    distances, order = distances.sort(dim=1, stable=True)
    return distances, indices.gather(1, order)


def _search_torch(left: Tensor, right: Tensor, k: int, skip_self: bool) -> Tensor:
    """Indices of the k smallest products of every row.

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
    indices = torch.empty(len(left), k, dtype=torch.int64, device=left.device)
    start = 0
    blocks = left.split(max(1, _BLOCK // len(right)))
    buffer = left.new_empty(len(blocks[0]), len(right))  # one for all blocks: fresh memory costs as much as the product
    for rows in blocks:
        scores = torch.mm(rows, right.T, out=buffer[: len(rows)])
        stop = start + len(rows)
        if skip_self:
            scores[:, start:stop].fill_diagonal_(torch.inf)
        if groups == n:
            indices[start:stop] = scores.topk(k, largest=False).indices
        else:
            scores = scores.view(len(rows), -1, groups)  # group g holds the columns g, g + groups, ...
            best = scores.amin(dim=1).topk(k, largest=False, sorted=False).indices
            candidates = scores.gather(2, best[:, None].expand(-1, scores.shape[1], -1)).flatten(1)
            chosen = candidates.topk(k, largest=False, sorted=False).indices
            indices[start:stop] = chosen // k * groups + best.gather(1, chosen % k)
        start = stop
    return indices


def _search_faiss(left: Tensor, right: Tensor, k: int, skip_self: bool) -> Tensor:
    try:
        import faiss
    except ImportError as error:
        raise ImportError("backend 'faiss' needs the package faiss-cpu: pip install 'snrlib[faiss]'") from error
    if left.dtype != torch.float32 or left.device.type != "cpu":
        raise ValueError(f"backend 'faiss' searches float32 on the CPU, got {left.dtype} on {left.device}")
    index = faiss.IndexFlatIP(left.shape[1])
    index.add(right.numpy())
    _, found = index.search((-left).numpy(), k + skip_self)  # faiss looks for the largest product
    indices = torch.from_numpy(found)
    if not skip_self:
        return indices
    is_self = indices == torch.arange(len(left))[:, None]
    is_self[~is_self.any(dim=1), -1] = True  # its duplicates filled all places: drop the last one
    return indices[~is_self].view(-1, k)


def evaluate(
    embeddings: Tensor,
    labels: Tensor,
    distance: Distance | None = None,
    ks: Sequence[int] = (1, 2, 4, 8),
    backend: str = "torch",
) -> dict[str, float]:
    """Retrieval scores of every embedding as a query against all others.

    ``recall_at_k`` is the share of queries with at least one of their class among the k nearest; ``precision_at_1`` is
    the same as R@1. A query whose class has no other member has no score: the mean leaves it out.

    Args:
        embeddings: (n, M).
        labels: (n,), integers.
        distance: the distance that ranks, anchor side included; None is Euclidean.
        ks: values of k; the score for 1 is called ``precision_at_1``.
        backend: see `knn`.

    Returns:
        {"precision_at_1": ..., "recall_at_2": ..., ...}; NaN where no query has a score.

    Raises:
        TypeError, ValueError: labels that are not as many integers, an empty ``ks``, or a k out of range.
    """
    check_labels(labels, len(embeddings))
    if len(ks) == 0 or min(ks) < 1:
        raise ValueError(f"ks must be one or more positive integers, got {ks!r}")
    _, indices = knn(embeddings, max(ks), distance=distance, backend=backend)
    labels = labels.to(indices.device)
    hits = labels[indices] == labels[:, None]
    _, members, counts = labels.unique(return_inverse=True, return_counts=True)
    hits = hits[counts[members] > 1]
    return {"precision_at_1" if k == 1 else f"recall_at_{k}": hits[:, :k].any(dim=1).double().mean().item() for k in ks}
