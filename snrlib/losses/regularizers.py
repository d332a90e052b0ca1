"""The zero-mean penalty of section 4.3."""

from __future__ import annotations

from torch import Tensor, nn

from snrlib.checks import check_embeddings, check_number

__all__ = ["ZeroMeanRegularizer"]


class ZeroMeanRegularizer(nn.Module):
    """``L_r = weight/n sum_i |sum_m h_im|``: an absolute ROW SUM, pressing every embedding's own mean to zero.

    It encourages a zero mean and guarantees none. Its gradient lies along the ones vector, where that of the SNR
    distance is zero: for that distance a last layer `snrlib.distances.Centre` does exactly what it is meant for.

    Args:
        weight: lambda, at least 0.

    Shape: embeddings (n, M) -> scalar; labels are accepted, as by every regularizer, and ignored.

    Raises:
        TypeError, ValueError: bad weight or embeddings.

    >>> import torch
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
