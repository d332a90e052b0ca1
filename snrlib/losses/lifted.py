"""Eqs. 4-5: lifted structured loss (Oh Song, Xiang, Jegelka, Savarese, CVPR 2016)."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from snrlib.distances import Distance
from snrlib.losses.base import Loss, Seen, SharedOptions
from snrlib.utils.checks import check_number

__all__ = ["LiftedStructureLoss"]


class LiftedStructureLoss(Loss):
    """Eqs. 4-5: every positive pair against all negatives of both its ends.

        L    = 1/(2|P|) sum_((i,j) in P)  max(L_ij, 0)^2
        L_ij = log( sum_((i,k) in N) exp(margin - d_ik) + sum_((j,l) in N) exp(margin - d_jl) ) + d_ij

    with P the ordered positive pairs (both values of an asymmetric distance count) and N the negative ones. For a
    relative distance d is that distance, the second sum anchored at j (our reading of section 4.5).

    The two sums of a pair are its ends' ``log sum exp``, one number a sample: O(n^2) time and memory. An absolute
    distance within the rounding error of the embeddings' lengths counts as 0 and has no gradient. L_ij is held at 4e9,
    without a gradient: only the undefined relative distance of a constant anchor reaches it.

    Args:
        distance: a member of the family.
        margin: alpha, any finite number, in units of the distance; 1 suits distances of about 1.
        **shared: ``regularizer``, ``average``, ``reduction``, as in `Loss`.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar; 0 with a working backward if there is no positive or no
    negative pair.

    Raises:
        TypeError, ValueError: bad arguments, embeddings or labels.

    >>> from snrlib.distances import get_distance
    >>> points = torch.tensor([[0.0], [1.0], [3.0]])
    >>> loss = LiftedStructureLoss(get_distance("euclidean"), margin=2.0)
    >>> loss(points, torch.tensor([0, 0, 1]))  # (log(exp(2 - 3) + exp(2 - 2)) + 1)^2 / 2
    tensor(0.8623)
    """

    term = "positive pair"
    told = ("margin",)
    default_margin = 1.0
    margin_unit = "distance"

    def __init__(self, distance: Distance, margin: float = default_margin, **shared: Unpack[SharedOptions]):
        super().__init__(distance, **shared)
        self.margin = check_number(margin, "margin")

    @property
    def unit(self) -> float:
        """The margin, if it is a distance."""
        return self.margin if self.margin > 0 else 1.0

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        d, positive, negative = self._pairs(embeddings, labels)
        # Either every sample has a negative or, with a single class, none has: no pair is valid then.
        i, j = torch.nonzero(positive & negative.any()).T
        # log sum_k exp(margin - d_ik), of every sample i
        push = torch.where(negative, self.margin - d, -torch.inf if len(i) else 0).logsumexp(dim=1)
        # max(L_ij, 0); the limit's square still is a float32
        lifted = (torch.logaddexp(push[i], push[j]) + d[i, j]).clamp(0, 4e9)
        loss = self._reduce(lifted.square()) / 2
        seen, active = d.detach(), lifted.detach()
        return self._finish(
            loss, embeddings, labels, lambda: Seen(len(i), (active > 0).sum(), seen[positive], seen[negative])
        )
