"""Naive float64 loops written from the report's equations, and small helpers, that the fast code is tested with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from snrlib.distances import DISTANCES, Distance, get_distance

M = 6  # components of an embedding
FAMILY = [(name, anchor) for name in DISTANCES for anchor in ("query", "ref")]
over_family = pytest.mark.parametrize(("name", "anchor"), FAMILY)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Independent standard normal numbers, the same in every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


L = normal(4, M, seed=99).float().double()  # float32 holds these numbers exactly


def member(name: str, anchor: str = "query", **options: Any) -> Distance:
    """A member of the family; those that need a matrix get L."""
    if "mahalanobis" in name:
        options.setdefault("components", L)
    return get_distance(name, anchor=anchor, **options)


def mean(h: Tensor) -> Tensor:
    return torch.stack([*h]).sum() / len(h)


def variance(h: Tensor) -> Tensor:
    """Eq. 7: over the components of one vector."""
    centre = mean(h)
    return torch.stack([(c - centre) ** 2 for c in h]).sum() / len(h)


def euclid(a: Tensor, b: Tensor) -> Tensor:
    """Eq. 9."""
    return torch.stack([(p - q) ** 2 for p, q in zip(a, b, strict=True)]).sum() ** 0.5


def quadratic(x: Tensor, S: Tensor) -> Tensor:
    """x' S x."""
    return torch.stack([x[i] * S[i, j] * x[j] for i in range(len(x)) for j in range(len(x))]).sum()


def naive_distance(name: str, a: Tensor, b: Tensor, L: Tensor = L) -> Tensor:
    """d(a, b) with a the anchor."""
    match name:
        case "euclidean":  # eq. 9
            return euclid(a, b)
        case "centred_euclidean":
            return euclid(a - mean(a), b - mean(b))
        case "relative_euclidean":  # eq. 10
            return euclid(a, b) ** 2 / euclid(a, torch.zeros_like(a)) ** 2
        case "snr":  # eq. 8
            return variance(b - a) / variance(a)
        case "mahalanobis":
            return quadratic(b - a, L.T @ L) ** 0.5
        case "relative_mahalanobis":
            return quadratic(b - a, L.T @ L) / quadratic(a, L.T @ L)
    raise AssertionError(name)


def naive_pairs(name: str, anchor: str, x: Iterable[Tensor], y: Iterable[Tensor], L: Tensor = L) -> Tensor:
    """d(x_i, y_i) for every i; a row and itself are at distance 0, without a gradient."""
    pairs = [(p, q) if anchor == "query" else (q, p) for p, q in zip(x, y, strict=True)]
    return torch.stack([naive_distance(name, a, b, L) if a is not b else a.new_zeros(()) for a, b in pairs])


def naive_matrix(name: str, anchor: str, query: Tensor, ref: Tensor | None = None, L: Tensor = L) -> Tensor:
    """(n_query, n_ref)."""
    rows = list(query)
    columns = rows if ref is None else list(ref)
    return torch.stack([naive_pairs(name, anchor, [row] * len(columns), columns, L) for row in rows])


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected size."""
    assert actual.shape == expected.shape
    return ((actual.double() - expected).abs().max() / expected.abs().max()).item()


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor))])
        return out
