"""Eq. 2: triplet loss (Schroff, Kalenichenko, Philbin, CVPR 2015), over all triplets, mined ones, or the caller's."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from snrlib.distances import Distance
from snrlib.losses.base import Loss, Seen, Several, SharedOptions, check_indices, check_power, joined
from snrlib.utils.checks import check_choice, check_flag, check_number, is_traced

__all__ = ["TripletMarginLoss"]


class TripletMarginLoss(Loss):
    """Eq. 2: an anchor's positives shall be nearer than its negatives, by a margin.

        absolute   L = 1/|T| sum_(i,j,k)  max(d_ij^2 + m - d_ik^2, 0)        (p = 2)
        relative   L = 1/|T| sum_(i,j,k)  max(d_ij   + m - d_ik,   0)        (p = 1)

    with anchor i, positive j and negative k. A relative distance is a ratio of squares already and enters as it is (our
    reading of section 4.5). The report calls the index set "samples"; it is triplets.

    No triplet is listed. The loss is piecewise linear in the distances, so its sum is ``<W, d> + m a`` where W counts
    how often each distance stands in an active triplet and a counts these. An anchor's positives are sorted and its
    negatives looked up among them: O(n^2 log n) time and O(n^2) memory, without an approximation. Where every triplet
    has a value of its own (``soft_margin``, ``swap``, reduction "none") there is a table, positive pairs by samples.

    Args:
        distance: a member of the family; the triplet's anchor i is its query.
        margin: m, in units of ``d^p``; 0.5 suits distances of about 1, tune it per distance.
        mining: the index set T. "all" valid triplets of the batch; "semi_hard", those whose negative is farther than
            the positive, by the margin at most (Schroff et al. 2015; all of them count as active); "batch_hard", for
            every anchor its farthest positive with its nearest negative (Hermans et al. 2017). Other choices are
            `snrlib.losses.mining.mine` and the caller's ``triplets=``.
        power: p, 1 or 2; None is that of the two forms above.
        soft_margin: ``log(1 + exp(d_ij^p - d_ik^p))`` in the place of the hinge (Hermans et al. 2017): no margin, and
            every triplet has a gradient. The margin then stands in the semi-hard choice alone.
        swap: of the two negative sides of a triplet the shorter, ``min(d_ik^p, d_jk^p)`` for ``d_ik^p`` (Balntas et
            al. 2016), j the query of the second; T is chosen without it.
        **shared: ``regularizer``, ``average``, ``reduction``, as in `Loss`.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar; 0 with a working backward if no triplet is valid. With
    ``triplets=(t, 3)``, rows of (anchor, positive, negative) indices, T is the caller's and no labels are needed; j and
    k count in the reference if one is given.

    Raises:
        TypeError, ValueError: bad arguments, embeddings, labels or triplets.

    >>> from snrlib.distances import get_distance
    >>> points = torch.tensor([[0.0], [1.0], [1.5]])
    >>> TripletMarginLoss(get_distance("euclidean"), margin=0.5)(points, torch.tensor([0, 0, 1]))  # (0 + 1.25) / 2
    tensor(0.6250)
    """

    term = "triplet"
    told = ("margin", "mining", "power", "soft_margin", "swap")
    default_margin = 0.5
    margin_unit = "squared distance"

    def __init__(
        self,
        distance: Distance,
        margin: float = default_margin,
        mining: Literal["all", "semi_hard", "batch_hard"] = "all",
        power: Literal[1, 2] | None = None,
        soft_margin: bool = False,
        swap: bool = False,
        **shared: Unpack[SharedOptions],
    ):
        super().__init__(distance, **shared)
        self.margin = check_number(margin, "margin")
        self.mining = check_choice(mining, "mining", ("all", "semi_hard", "batch_hard"))
        self.power = check_power(power)
        self.soft_margin = check_flag(soft_margin, "soft_margin")
        self.swap = check_flag(swap, "swap")
        if mining == "semi_hard":
            check_number(margin, "the margin of semi-hard triplets", above=0)

    @property
    def unit(self) -> float:
        """The margin, as a distance."""
        return 1.0 if self.margin <= 0 else self.margin ** (1 / self.exponent)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        reference: Several | None = None,
        reference_labels: Several | None = None,
        triplets: Tensor | None = None,
    ) -> Tensor:
        if (labels is None) == (triplets is None):
            raise ValueError("give either labels or triplets")
        if triplets is not None:
            return self._given(embeddings, reference, triplets)
        assert labels is not None
        d, positive, negative = self._pairs(embeddings, labels, reference, reference_labels)
        e, seen = self.squared(d), d.detach()
        between = e if reference is None or not self.swap else self.squared(self.distance(joined(reference)))
        valid: Tensor | int
        if self.mining == "batch_hard":
            terms = self._batch_hard(e, positive, negative, between)
            loss, valid, active = self._reduce(terms), len(terms), (terms.detach() > 0).sum()
        elif self.soft_margin or self.swap or self.reduction == "none":
            terms, chosen = self._table(e, positive, negative, between)
            loss, valid, active = self._reduce(terms, chosen), chosen.sum(), ((terms.detach() > 0) & chosen).sum()
        else:
            semi_hard = self.mining == "semi_hard"
            w, active = _active(e.detach(), positive, negative, self.margin, inclusive=semi_hard)
            if semi_hard:  # without those whose negative is not farther than the positive
                w_hard, hard = _active(e.detach(), positive, negative, 0.0, inclusive=True)
                w, active = w - w_hard, active - hard
            number = active if semi_hard else (positive.sum(dim=1) * negative.sum(dim=1)).sum()
            total = (w * e).sum() + self.margin * active.to(e.dtype)
            loss, valid = total / (active if self.average == "active" else number).clamp_min(1), number

        def observe() -> Seen:  # the words, too, only when asked: they wait for the device
            cause = ""
            if self.mining == "semi_hard":
                n_triplets = (positive.sum(dim=1) * negative.sum(dim=1)).sum()
                hard = _active(self.squared(seen), positive, negative, 0.0, inclusive=True)[1]
                cause = f"none of {n_triplets} is semi-hard, {hard} are harder and the others easier"
            return Seen(valid, active, seen[positive], seen[negative], cause)

        return self._finish(loss, embeddings, labels, observe, reference_labels)

    def _term(self, near: Tensor, far: Tensor, between: Tensor) -> Tensor:
        """The value of triplets with ``d^p`` of their three sides (i, j), (i, k), (j, k)."""
        if self.swap:
            far = torch.minimum(far, between)
        if self.soft_margin:
            # log(1 + exp(d_ij^p - d_ik^p))
            return -F.logsigmoid(far - near)
        # max(d_ij^p + m - d_ik^p, 0)
        return (near + self.margin - far).relu()

    def _batch_hard(self, e: Tensor, positive: Tensor, negative: Tensor, between: Tensor) -> Tensor:
        """A term for every anchor with a triplet."""
        anchors = positive.any(dim=1) & negative.any(dim=1)
        nearest_first, farthest_first = e.masked_fill(~negative, torch.inf), e.masked_fill(~positive, -torch.inf)
        near, far = farthest_first.amax(dim=1)[anchors], nearest_first.amin(dim=1)[anchors]
        if self.swap:
            between = between[farthest_first.argmax(dim=1), nearest_first.argmin(dim=1)][anchors]
        return self._term(near, far, between)

    def _table(self, e: Tensor, positive: Tensor, negative: Tensor, between: Tensor) -> tuple[Tensor, Tensor]:
        """A row of terms for every positive pair, a column for every sample, and which of them are triplets of T."""
        i, j = torch.nonzero(positive).T
        near, far, chosen = e[i, j][:, None], e[i], negative[i]
        if self.mining == "semi_hard":
            chosen = chosen & (far > near) & (far <= near + self.margin)
        return self._term(near, far, between[j] if self.swap else far), chosen

    def _given(self, embeddings: Tensor, reference: Several | None, triplets: Tensor) -> Tensor:
        """The loss over the caller's triplets."""
        others = None if reference is None else joined(reference)
        d = self.distance(embeddings, others)
        i, j, k = check_indices(triplets, "triplets", *d.shape).to(d.device)
        near, far = d[i, j], d[i, k]
        between = near
        if self.swap:
            between = (d if others is None else self.distance(others))[j, k]
        terms = self._term(self.squared(near), self.squared(far), self.squared(between))
        near, far, active = near.detach(), far.detach(), (terms.detach() > 0).sum()
        return self._finish(self._reduce(terms), embeddings, None, lambda: Seen(len(near), active, near, far))


def _active(
    e: Tensor, positive: Tensor, negative: Tensor, margin: float, inclusive: bool = False
) -> tuple[Tensor, Tensor]:
    """Count the triplets with ``e_ik < e_ij + margin`` (``<=`` if inclusive).

    Returns:
        W (n, n), at a positive (i, j) the number of its active triplets, at a negative (i, k) minus that number; and
        the number of all active triplets. Every row of W sums to 0.
    """
    n_positive = positive.sum(dim=1, keepdim=True)
    most = positive.shape[1] if is_traced(e) else max(int(n_positive.max()), 1)  # a graph's shapes depend on no number
    # Each anchor's thresholds e_ij + margin, ascending, with infinity where it has fewer positives than the most.
    threshold, column = torch.where(positive, e + margin, torch.inf).topk(most, dim=1, largest=False)
    # Rank of a negative: how many thresholds it clears. The other n_positive - rank are active with it.
    rank = torch.searchsorted(threshold, e, right=not inclusive)
    rank = torch.where(negative, rank, n_positive)
    w = (rank - n_positive).to(e.dtype)
    # The p-th threshold is active with all negatives of rank <= p: a running count of ranks.
    count = rank.new_zeros(len(e), most + 1).scatter_add_(1, rank, torch.ones_like(rank)).cumsum(dim=1)[:, :most]
    count = count.masked_fill_(torch.arange(most, device=e.device) >= n_positive, 0)
    return w.scatter_add_(1, column, count.to(w.dtype)), count.sum()
