"""Eqs. 4-5: lifted structured loss (Oh Song, Xiang, Jegelka, Savarese, CVPR 2016)."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import Tensor

from snrlib.distances import Distance
from snrlib.losses.base import Loss, Seen, Several, SharedOptions, check_power, joined
from snrlib.utils.checks import check_number

__all__ = ["LiftedStructureLoss"]


class LiftedStructureLoss(Loss):
    """Eqs. 4-5: every positive pair against all negatives of both its ends.

        L    = 1/(2|P|) sum_((i,j) in P)  max(L_ij, 0)^2
        L_ij = log( sum_((i,k) in N) exp(margin - s d_ik) + sum_((j,l) in N) exp(margin - s d_jl) ) + s d_ij

    with P the ordered positive pairs (both values of an asymmetric distance count) and N the negative ones. For a
    relative distance d is that distance, the second sum anchored at j (our reading of section 4.5). The scale s is 1 in
    the report; a distance without a scale of its own, as a relative one, cannot grow where a loss wants it larger.

    The two sums of a pair are its ends' ``log sum exp``, one number a sample: O(n^2) time and memory. An absolute
    distance within the rounding error of the embeddings' lengths counts as 0 and has no gradient. L_ij is held at 4e9,
    without a gradient: only the undefined relative distance of a constant anchor reaches it.

    Args:
        distance: a member of the family.
        margin: alpha, any finite number, in units of s d; 1 suits distances of about 1.
        scale: s, above 0: an inverse temperature.
        power: 2 puts ``d^2`` in the place of d, and the margin in its units; None is 1.
        **shared: ``regularizer``, ``average``, ``reduction``, as in `Loss`.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar; 0 with a working backward if there is no positive or no
    negative pair. With a second set, j, k and l stand in it: its own distances are needed for the second sum, too.

    Raises:
        TypeError, ValueError: bad arguments, embeddings or labels.

    >>> from snrlib.distances import get_distance
    >>> points = torch.tensor([[0.0], [1.0], [3.0]])
    >>> loss = LiftedStructureLoss(get_distance("euclidean"), margin=2.0)
    >>> loss(points, torch.tensor([0, 0, 1]))  # (log(exp(2 - 3) + exp(2 - 2)) + 1)^2 / 2
    tensor(0.8623)
    """

    term = "positive pair"
    told = ("margin", "scale", "power")
    default_margin = 1.0
    margin_unit = "distance"
    default_scale = 1.0

    def __init__(
        self,
        distance: Distance,
        margin: float = default_margin,
        scale: float = default_scale,
        power: Literal[1, 2] | None = None,
        **shared: Unpack[SharedOptions],
    ):
        super().__init__(distance, **shared)
        self.margin = check_number(margin, "margin")
        self.scale = check_number(scale, "scale", above=0)
        self.power = check_power(power)

    @property
    def unit(self) -> float:
        """The margin, as a distance, if it is one."""
        return (self.margin / self.scale) ** (1 / self.exponent) if self.margin > 0 else 1.0

    @property
    def exponent(self) -> int:
        """1 unless ``power`` is 2: eqs. 4-5 print plain distances."""
        return self.power or 1

    def _push(self, d: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """``log sum_k exp(margin - s d_ik)`` of every row i over its negatives, and ``s d``."""
        e = self.squared(d)
        if self.scale != 1:
            e = self.scale * e
        return torch.where(negative, self.margin - e, torch.finfo(d.dtype).min).logsumexp(dim=1), e

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        reference: Several | None = None,
        reference_labels: Several | None = None,
    ) -> Tensor:
        d, positive, negative = self._pairs(embeddings, labels, reference, reference_labels)
        push, e = self._push(d, negative)
        i, j = torch.nonzero(positive & negative.any(dim=1, keepdim=True)).T
        other = push
        if reference is not None and reference_labels is not None:
            between, _, apart = self._pairs(joined(reference), joined(reference_labels))
            other, _ = self._push(between, apart)
        # max(L_ij, 0); the limit's square still is a float32
        lifted = (torch.logaddexp(push[i], other[j]) + e[i, j]).clamp(0, 4e9)
        loss = self._reduce(lifted.square()) / 2
        seen, active = d.detach(), lifted.detach()
        return self._finish(
            loss,
            embeddings,
            labels,
            lambda: Seen(len(i), (active > 0).sum(), seen[positive], seen[negative]),
            reference_labels,
        )
