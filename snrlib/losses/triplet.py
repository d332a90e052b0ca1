"""Eq. 2: triplet loss (Schroff, Kalenichenko, Philbin, CVPR 2015), over all triplets, mined ones, or the caller's."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import Tensor

from snrlib.distances import Distance
from snrlib.losses.base import Loss, Seen, SharedOptions
from snrlib.utils.checks import check_choice, check_number

__all__ = ["TripletMarginLoss"]


class TripletMarginLoss(Loss):
    """Eq. 2: an anchor's positives shall be nearer than its negatives, by a margin.

        absolute   L = 1/|T| sum_(i,j,k)  max(d_ij^2 + m - d_ik^2, 0)
        relative   L = 1/|T| sum_(i,j,k)  max(d_ij   + m - d_ik,   0)

    with anchor i, positive j and negative k. A relative distance is a ratio of squares already and enters as it is (our
    reading of section 4.5). The report calls the index set "samples"; it is triplets.

    No triplet is listed. The loss is piecewise linear in the distances, so its sum is ``<W, d> + m a`` where W counts
    how often each distance stands in an active triplet and a counts these. An anchor's positives are sorted and its
    negatives looked up among them: O(n^2 log n) time and O(n^2) memory, without an approximation.

    Args:
        distance: a member of the family; the triplet's anchor i is its query.
        margin: m, in units of the squared (absolute) or plain (relative) distance; 0.5 suits distances of about 1, tune
            it per distance.
        mining: the index set T. "all" valid triplets of the batch; "semi_hard", those whose negative is farther than
            the positive, by the margin at most (Schroff et al. 2015; all of them count as active); "batch_hard", for
            every anchor its farthest positive with its nearest negative (Hermans et al. 2017).
        **shared: ``regularizer``, ``average``, ``reduction``, as in `Loss`.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar; 0 with a working backward if no triplet is valid. With
    ``triplets=(t, 3)``, rows of (anchor, positive, negative) indices, T is the caller's and no labels are needed.

    Raises:
        TypeError, ValueError: bad arguments, embeddings, labels or triplets.

    >>> from snrlib.distances import get_distance
    >>> points = torch.tensor([[0.0], [1.0], [1.5]])
    >>> TripletMarginLoss(get_distance("euclidean"), margin=0.5)(points, torch.tensor([0, 0, 1]))  # (0 + 1.25) / 2
    tensor(0.6250)
    """

    term = "triplet"
    told = ("margin", "mining")
    default_margin = 0.5
    margin_unit = "squared distance"

    def __init__(
        self,
        distance: Distance,
        margin: float = default_margin,
        mining: Literal["all", "semi_hard", "batch_hard"] = "all",
        **shared: Unpack[SharedOptions],
    ):
        super().__init__(distance, **shared)
        self.margin = check_number(margin, "margin")
        self.mining = check_choice(mining, "mining", ("all", "semi_hard", "batch_hard"))
        if mining == "semi_hard":
            check_number(margin, "the margin of semi-hard triplets", above=0)

    @property
    def unit(self) -> float:
        """The margin, as a distance."""
        if self.margin <= 0:
            return 1.0
        return self.margin if self.distance.relative else self.margin**0.5

    def forward(self, embeddings: Tensor, labels: Tensor | None = None, triplets: Tensor | None = None) -> Tensor:
        if (labels is None) == (triplets is None):
            raise ValueError("give either labels or triplets")
        if triplets is not None:
            return self._given(embeddings, triplets)
        assert labels is not None
        d, positive, negative = self._pairs(embeddings, labels)
        e = self.squared(d)
        if self.mining == "batch_hard":
            anchors = positive.any(dim=1) & negative.any(dim=1)
            farthest = e.masked_fill(~positive, -torch.inf).amax(dim=1)[anchors]
            nearest = e.masked_fill(~negative, torch.inf).amin(dim=1)[anchors]
            hinge = (farthest + self.margin - nearest).relu()
            total, valid, active = hinge.sum(), anchors.sum(), (hinge > 0).sum()
        else:
            semi_hard = self.mining == "semi_hard"
            w, active = _active(e.detach(), positive, negative, self.margin, inclusive=semi_hard)
            valid = n_triplets = (positive.sum(dim=1) * negative.sum(dim=1)).sum()
            if semi_hard:  # without those whose negative is not farther than the positive
                w_hard, hard = _active(e.detach(), positive, negative, 0.0, inclusive=True)
                w, active = w - w_hard, active - hard
                valid = active
            total = (w * e).sum() + self.margin * active.to(e.dtype)
        loss = total / (active if self.average == "active" else valid).clamp_min(1).to(e.dtype)
        seen = d.detach()

        def observe() -> Seen:  # the words, too, only when asked: they wait for the device
            cause = ""
            if self.mining == "semi_hard":
                cause = f"none of {n_triplets} is semi-hard, {hard} are harder and the others easier"
            return Seen(valid, active, seen[positive], seen[negative], cause)

        return self._finish(loss, embeddings, labels, observe)

    def _given(self, embeddings: Tensor, triplets: Tensor) -> Tensor:
        """The loss over the caller's triplets."""
        d = self.distance(embeddings)
        whole = isinstance(triplets, Tensor) and triplets.dtype in (torch.int64, torch.int32)
        if not whole or triplets.ndim != 2 or triplets.shape[1] != 3:
            raise ValueError(f"triplets must be a tensor of integers of shape (t, 3), got {triplets!r}")
        if len(triplets) and not 0 <= triplets.min() <= triplets.max() < len(d):
            raise ValueError(
                f"triplets must be indices of the {len(d)} embeddings, got {triplets.min()} to {triplets.max()}"
            )
        i, j, k = triplets.to(d.device).T
        hinge = (self.squared(d[i, j]) + self.margin - self.squared(d[i, k])).relu()
        valid, active = len(triplets), (hinge > 0).sum()
        loss = hinge.sum() / (active if self.average == "active" else torch.as_tensor(valid)).clamp_min(1)
        positive, negative = d.detach()[i, j], d.detach()[i, k]
        return self._finish(loss, embeddings, None, lambda: Seen(valid, active, positive, negative))


def _active(
    e: Tensor, positive: Tensor, negative: Tensor, margin: float, inclusive: bool = False
) -> tuple[Tensor, Tensor]:
    """Count the triplets with ``e_ik < e_ij + margin`` (``<=`` if inclusive).

    Returns:
        W (n, n), at a positive (i, j) the number of its active triplets, at a negative (i, k) minus that number; and
        the number of all active triplets. Every row of W sums to 0.
    """
    n_positive = positive.sum(dim=1, keepdim=True)
    most = max(int(n_positive.max()), 1)
    # Each anchor's thresholds e_ij + margin, ascending, with infinity where it has fewer positives than the most.
    threshold, column = torch.where(positive, e + margin, torch.inf).topk(most, dim=1, largest=False)
    # Rank of a negative: how many thresholds it clears. The other n_positive - rank are active with it.
    rank = torch.searchsorted(threshold.contiguous(), e, right=not inclusive)
    rank = torch.where(negative, rank, n_positive)
    w = (rank - n_positive).to(e.dtype)
    # The p-th threshold is active with all negatives of rank <= p: a running count of ranks.
    count = rank.new_zeros(len(e), most + 1).scatter_add_(1, rank, torch.ones_like(rank)).cumsum(dim=1)[:, :most]
    count = torch.where(torch.arange(most, device=e.device) < n_positive, count, 0)
    return w.scatter_add_(1, column, count.to(w.dtype)), count.sum()
