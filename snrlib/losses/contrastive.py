"""Eq. 1: contrastive loss (Hadsell, Chopra, LeCun, CVPR 2006)."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import Tensor

from snrlib.distances import Distance
from snrlib.losses.base import Loss, Seen, Several, SharedOptions, check_indices, check_power, joined
from snrlib.utils.checks import check_choice, check_flag, check_number

__all__ = ["ContrastiveLoss"]


class ContrastiveLoss(Loss):
    """Eq. 1 of the report, its missing 0 put in: pull positive pairs together, push negative ones beyond a margin.

        absolute   L = 1/(2N) sum_(i,j)  y d_ij^2 + (1 - y) max(0, margin - d_ij)^2      (p = 2)
        relative   L = 1/(2N) sum_(i,j)  y d_ij   + (1 - y) max(0, margin - d_ij)        (p = 1)

    over all N = n (n - 1) ordered pairs i != j of the batch (y = 1 for one class), since a relative distance has two
    values a pair: both count, so that its anchor side makes no difference here. The relative form is our reading of
    section 4.5: the SNR distance is a ratio of squares, its hinge is linear. The report calls the index set "samples".

    Args:
        distance: a member of the family.
        margin: from where on a negative pair is far enough, in units of the distance; 1 suits distances of about 1,
            others want their own.
        positive_margin: up to where a positive pair is near enough, 0 in eq. 1: ``max(0, d - positive_margin)`` takes
            the place of d in the first term.
        power: p, the exponent of both terms, 1 or 2; None is that of the two forms above.
        hinge: of the negative term alone, whatever p is: "squared" or "linear"; None goes with p.
        balanced: average positive and negative pairs apart, each over its own number, ``(mean + mean) / 2``; in a batch
            of many classes eq. 1 drowns the few positive pairs.
        **shared: ``regularizer``, ``average``, ``reduction``, as in `Loss`.

    An absolute distance within the rounding error of the embeddings' lengths (in float32, about 1e-3 of their distance
    from the batch mean) counts as 0 and has no gradient: negatives as near as that are not pushed apart.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar; 0 with a working backward if no pair is valid. With
    ``positive_pairs=(p, 2)``, ``negative_pairs=(q, 2)`` or both, rows of indices (i, j), the pairs are the caller's and
    no labels are needed; j counts in the reference if one is given.

    Raises:
        TypeError, ValueError: bad arguments, embeddings, labels or pairs.

    >>> from snrlib.distances import get_distance
    >>> points = torch.tensor([[0.0], [1.0], [1.5]])
    >>> ContrastiveLoss(get_distance("euclidean"), margin=1.0)(points, torch.tensor([0, 0, 1]))  # (1 + 0 + .25) / 6
    tensor(0.2083)
    """

    told = ("margin", "positive_margin", "power", "hinge", "balanced")
    default_margin = 1.0
    margin_unit = "distance"

    def __init__(
        self,
        distance: Distance,
        margin: float = default_margin,
        positive_margin: float = 0.0,
        power: Literal[1, 2] | None = None,
        hinge: Literal["squared", "linear"] | None = None,
        balanced: bool = False,
        **shared: Unpack[SharedOptions],
    ):
        super().__init__(distance, **shared)
        self.margin = check_number(margin, "margin", above=0)
        self.positive_margin = check_number(positive_margin, "positive_margin", at_least=0, at_most=self.margin)
        self.power = check_power(power)
        default = "linear" if self.exponent == 1 else "squared"
        self.hinge = default if hinge is None else check_choice(hinge, "hinge", ("squared", "linear"))
        self.balanced = check_flag(balanced, "balanced")

    @property
    def unit(self) -> float:
        """The margin."""
        return self.margin

    def _pull(self, d: Tensor) -> Tensor:
        # y d^p
        return self.squared((d - self.positive_margin).relu() if self.positive_margin else d)

    def _push(self, d: Tensor) -> Tensor:
        # (1 - y) max(0, margin - d)^p
        push = (self.margin - d).relu()
        return push.square() if self.hinge == "squared" else push

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        reference: Several | None = None,
        reference_labels: Several | None = None,
        positive_pairs: Tensor | None = None,
        negative_pairs: Tensor | None = None,
    ) -> Tensor:
        if (labels is None) == (positive_pairs is None and negative_pairs is None):
            raise ValueError("give either labels or positive_pairs, negative_pairs or both")
        if labels is None:
            return self._given(embeddings, reference, positive_pairs, negative_pairs)
        d, positive, negative = self._pairs(embeddings, labels, reference, reference_labels)
        pull, push = self._pull(d), self._push(d)
        if self.balanced and self.reduction == "mean":
            loss = (self._reduce(pull, positive) + self._reduce(push, negative)) / 2
        else:
            loss = self._reduce(pull.where(positive, push), positive | negative) / 2
        seen = d.detach()
        return self._finish(
            loss,
            embeddings,
            labels,
            lambda: Seen(
                positive.sum() + negative.sum(),
                (positive & (seen > self.positive_margin)).sum() + (negative & (seen < self.margin)).sum(),
                seen[positive],
                seen[negative],
            ),
            reference_labels,
        )

    def _given(
        self, embeddings: Tensor, reference: Several | None, positive: Tensor | None, negative: Tensor | None
    ) -> Tensor:
        """The loss over the caller's pairs."""
        others = None if reference is None else joined(reference)
        d = self.distance(embeddings, others)
        none = torch.zeros(0, 2, dtype=torch.long)
        i, j = check_indices(none if positive is None else positive, "positive_pairs", *d.shape).to(d.device)
        k, l = check_indices(none if negative is None else negative, "negative_pairs", *d.shape).to(d.device)
        near, far = d[i, j], d[k, l]
        pull, push = self._pull(near), self._push(far)
        if self.balanced and self.reduction == "mean":
            loss = (self._reduce(pull) + self._reduce(push)) / 2
        else:
            loss = self._reduce(torch.cat([pull, push])) / 2
        near, far = near.detach(), far.detach()

        def observe() -> Seen:
            active = (near > self.positive_margin).sum() + (far < self.margin).sum()
            return Seen(len(near) + len(far), active, near, far)

        return self._finish(loss, embeddings, None, observe)
