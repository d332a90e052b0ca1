"""The nearest codes by Hamming distance, exactly, in blocks of bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor

from snrlib.evaluate.neighbours import import_faiss
from snrlib.hashing.codes import check_codes, hamming
from snrlib.utils.checks import check_choice, check_rank

__all__ = ["nearest_codes"]

_BLOCK = 2**22  # distances in one block: 32 MiB as keys of 8 bytes


def nearest_codes(query: Tensor, k: int, database: Tensor, backend: str = "torch") -> tuple[Tensor, Tensor]:
    """The k nearest codes of the database for every query; of equally near ones those that come first in it.

    Args:
        query: (n_query, bytes), uint8, of `snrlib.hashing.pack`.
        k: how many, at most n_database.
        database: (n_database, bytes), uint8.
        backend: "torch", a matrix product and a selection; or "faiss", the exact binary index of faiss, where it is
            installed. Distances are the same; faiss promises no order among equally near codes.

    Returns:
        distances (n_query, k), ascending, and indices (n_query, k), both int64.

    Raises:
        TypeError, ValueError: no codes, codes of different length, k out of range, an unknown backend.
        ImportError: backend "faiss" without faiss.

    >>> database = torch.tensor([[0b1111], [0b0001], [0b0011]], dtype=torch.uint8)
    >>> nearest_codes(torch.tensor([[0b0111]], dtype=torch.uint8), 2, database)
    (tensor([[1, 1]]), tensor([[0, 2]]))
    """
    check_codes(query, "query")
    n = len(check_codes(database, "database"))
    k = check_rank(k, "k", n, "size of the database")
    if check_choice(backend, "backend", ("torch", "faiss")) == "faiss":
        return _search_faiss(query, k, database)
    place = torch.arange(n, device=database.device)
    found = []
    for block in query.split(max(1, _BLOCK // n)):
        # One number that orders by distance first and by place second: no two are equal.
        key = hamming(block, database).long() * n + place
        found.append(key.topk(k, dim=1, largest=False).values)
    keys = torch.cat(found)
    return keys // n, keys % n


def _search_faiss(query: Tensor, k: int, database: Tensor) -> tuple[Tensor, Tensor]:
    faiss = import_faiss()
    if query.shape[1] != database.shape[1]:
        raise ValueError(
            f"query and database must have codes of one length, got {query.shape[1]} and {database.shape[1]}"
        )
    index = faiss.IndexBinaryFlat(8 * database.shape[1])
    index.add(database.cpu().contiguous().numpy())
    distances, indices = index.search(query.cpu().contiguous().numpy(), k)
    return torch.from_numpy(distances).long(), torch.from_numpy(indices)
