"""DTSH: deep supervised hashing with triplet labels (Wang, Shi, Kitani, ACCV 2016, arXiv 1612.03900)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snrlib.losses.base import pair_masks
from snrlib.utils.checks import check_embeddings, check_number

__all__ = ["DTSHLoss"]


class DTSHLoss(nn.Module):
    """The likelihood of triplets under inner products, and a quantisation term.

        Theta_ij = u_i'u_j / 2
        L = - mean over triplets (i, j, k) of  log sigmoid(Theta_ij - Theta_ik - alpha)
            + weight mean over i of  ||u_i - sign(u_i)||^2

    with anchor i, positive j and negative k. For codes of -1 and +1, ``Theta_ij - Theta_ik`` is by how many bits more
    the negative differs than the positive. Read in the authors' published code: alpha is half of the bits, and their
    weight of 100 beside a sum over 22,500 triplets per image is 1/225 beside a mean. Here, the mean is over the anchors
    that have triplets, each averaged over its own, and all of a batch count. The network's last layer is linear.

    Args:
        bits: of a code.
        alpha: the margin, in bits; None is ``bits / 2``.
        weight: of the quantisation term.

    Shape: embeddings (n, bits) and integer labels (n,) -> scalar; the quantisation alone if no triplet is valid. Memory
    is n^2 times the most positives that an anchor has.

    Raises:
        TypeError, ValueError: bad arguments, embeddings or labels.

    >>> u = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]])
    >>> DTSHLoss(2)(u, torch.tensor([0, 0, 1]))  # log(1 + exp(-(1 + 1 - 1)))
    tensor(0.3133)
    """

    def __init__(self, bits: int, alpha: float | None = None, weight: float = 1 / 225):
        super().__init__()
        bits = int(check_number(bits, "bits", at_least=1))
        self.alpha = bits / 2 if alpha is None else check_number(alpha, "alpha", at_least=0)
        self.weight = check_number(weight, "weight", at_least=0)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        u = check_embeddings(embeddings)
        positive, negative = pair_masks(labels, len(u), u.device)
        # Theta_ij = u_i'u_j / 2
        theta = u @ u.T / 2
        # Each anchor's positives, filled up to the most that one has.
        present, column = positive.sort(dim=1, descending=True, stable=True)
        most = int(positive.sum(dim=1).max())
        present, near = present[:, :most], theta.gather(1, column[:, :most])
        valid = present[:, :, None] & negative[:, None, :]
        # - log sigmoid(Theta_ij - Theta_ik - alpha)
        terms = F.softplus(theta[:, None, :] - near[:, :, None] + self.alpha)
        counts = valid.sum(dim=(1, 2))
        per_anchor = torch.where(valid, terms, 0).sum(dim=(1, 2)) / counts.clamp_min(1)
        likelihood = per_anchor.sum() / (counts > 0).sum().clamp_min(1)
        # weight mean_i ||u_i - sign(u_i)||^2
        return likelihood + self.weight * (u - u.sign()).square().sum(dim=1).mean()

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, weight={self.weight:.4g}"
