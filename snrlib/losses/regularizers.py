"""Penalties that a loss may add: the zero-mean penalty of section 4.3, and one that keeps a learned map regular."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snrlib.distances import LinearMap
from snrlib.utils.checks import check_embeddings, check_number

__all__ = ["LogDetRegularizer", "ZeroMeanRegularizer"]


class ZeroMeanRegularizer(nn.Module):
    """``L_r = weight/n sum_i |sum_m h_im|``: an absolute ROW SUM, pressing every embedding's own mean to zero.

    It encourages a zero mean and guarantees none. Its gradient lies along the ones vector, where that of the SNR
    distance is zero: for that distance a last layer `snrlib.distances.Centre` does exactly what it is meant for.

    Args:
        weight: lambda, at least 0.

    Shape: embeddings (n, M) -> scalar; labels are accepted, as by every regularizer, and ignored.

    Raises:
        TypeError, ValueError: bad weight or embeddings.

    >>> ZeroMeanRegularizer(0.1)(torch.tensor([[1.0, 2.0], [-3.0, 2.0]]))  # 0.1 (3 + 1) / 2
    tensor(0.2000)
    """

    def __init__(self, weight: float):
        super().__init__()
        self.weight = check_number(weight, "weight", at_least=0)

    def forward(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.weight * check_embeddings(embeddings).sum(dim=1).abs().mean()

    def extra_repr(self) -> str:
        return f"weight={self.weight}"


class LogDetRegularizer(nn.Module):
    """``weight/r (tr(LL') - log det(LL') - r)``: 0 for a rotation, infinite for an ``L`` that loses a direction.

    The log-det divergence of ``M = L'L`` from the identity (Davis et al. 2007, information-theoretic metric learning),
    for a map that is trained: it may stretch and turn, at a price, and not fold the space.

    Args:
        weight: at least 0.
        map: of the distance, with ``components`` L of shape (r, M), r at most M.

    Shape: embeddings and labels, as every regularizer takes them, are ignored; returns a scalar.

    Raises:
        TypeError, ValueError: a bad weight, a map that is none, or more rows than columns (LL' is then singular).

    >>> LogDetRegularizer(1.0, LinearMap(torch.tensor([[2.0, 0.0], [0.0, 1.0]])))(None)  # (4 + 1 - log 4 - 2) / 2
    tensor(0.8069)
    """

    def __init__(self, weight: float, map: LinearMap):
        super().__init__()
        self.weight = check_number(weight, "weight", at_least=0)
        if not isinstance(map, LinearMap):
            raise TypeError(f"map must be a LinearMap, got {type(map).__name__}")
        r, M = map.components.shape
        if r > M:
            raise ValueError(f"components must have at most as many rows as columns, got shape {(r, M)}")
        self.map = map

    def forward(self, embeddings: Tensor | None, labels: Tensor | None = None) -> Tensor:
        L = self.map.components
        r = len(L)
        # Rounding can turn the determinant of a nearly singular matrix negative: the logarithm of its size.
        return self.weight / r * (L.square().sum() - torch.linalg.slogdet(L @ L.T).logabsdet - r)

    def extra_repr(self) -> str:
        return f"weight={self.weight}"
