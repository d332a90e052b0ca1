"""DSH: deep supervised hashing (Liu, Wang, Shan, Chen, CVPR 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from snrlib.distances import get_distance
from snrlib.losses import ContrastiveLoss
from snrlib.utils.checks import check_embeddings, check_number

__all__ = ["DSHLoss"]


class DSHLoss(nn.Module):
    """A pair loss on squared distances, and an L1 pull of every component towards -1 or +1.

        L = mean over i != j of  y/2 ||u_i - u_j||^2 + (1 - y)/2 max(0, m - ||u_i - u_j||^2)
            + alpha mean over i of  || |u_i| - 1 ||_1

    with y = 1 for one class. The first line is eq. 1 with a squared Euclidean distance and a linear hinge, the form in
    which a relative distance enters it. Read in the authors' published layer, which averages in this way; a widely used
    benchmark writes ``1 - sign(u)`` for ``|u| - 1``, which has no gradient. The network's last layer is linear.

    Args:
        bits: of a code.
        margin: m; None is ``2 bits``, the squared distance of codes of -1 and +1 that differ in half of their bits.
        alpha: 0.01 as published.

    Shape: embeddings (n, bits) and integer labels (n,) -> scalar; the second line alone if no pair is valid.

    Raises:
        TypeError, ValueError: bad arguments, embeddings or labels.

    >>> import torch
    >>> u = torch.tensor([[1.0, -1.0], [1.0, 0.5]])
    >>> DSHLoss(2, alpha=0.0)(u, torch.tensor([0, 1]))  # (4 - 2.25) / 2
    tensor(0.8750)
    """

    def __init__(self, bits: int, margin: float | None = None, alpha: float = 0.01):
        super().__init__()
        bits = int(check_number(bits, "bits", at_least=1))
        self.pairs = ContrastiveLoss(get_distance("euclidean", unit=1.0), 2 * bits if margin is None else margin)
        self.alpha = check_number(alpha, "alpha", at_least=0)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        u = check_embeddings(embeddings)
        # alpha mean_i || |u_i| - 1 ||_1
        return self.pairs(u, labels) + self.alpha * (u.abs() - 1).abs().sum(dim=1).mean()

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"
