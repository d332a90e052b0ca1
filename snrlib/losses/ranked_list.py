"""Ranked list loss (Wang, Hua, Kodirov, Hu, Garnier, Robertson, CVPR 2019), which the report names in 3.2."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from snrlib.distances import Distance
from snrlib.losses.base import Loss, Seen, Several, SharedOptions
from snrlib.utils.checks import check_number

__all__ = ["RankedListLoss"]


class RankedListLoss(Loss):
    """Keep the negatives of every query beyond alpha, mostly the nearest, and its positives within alpha - m.

        L   = 1/n sum_i  (1 - balance) L_P(i) + balance L_N(i)
        L_P = mean of  d_ij - (alpha - m)                over the positives with d_ij > alpha - m
        L_N = sum_k w_ik (alpha - d_ik) / sum_k w_ik     over the negatives with d_ik < alpha,
              w_ik = exp(temperature (alpha - d_ik))

    An empty mean is 0. The class may keep a shape of its own, of radius alpha - m, instead of shrinking to a point.
    The weights are differentiated with the rest, as in pytorch-metric-learning; hence a negative inside alpha that is
    farther than the weighted mean of them by more than 1/temperature is pulled nearer, not pushed.

    Args:
        distance: a member of the family; the paper's is Euclidean on embeddings of length 1
            (``normalize_embeddings=True``).
        margin: m, above 0 and at most alpha, in units of the distance; the paper uses about 0.4, 0.5 suits distances of
            about 1.
        alpha: the boundary of the negatives; the paper uses about 1.2. None is three times the margin, as there.
        temperature: of the weights, at least 0 (which weighs all alike).
        balance: weight of the negatives' part, in [0, 1].
        **shared: ``regularizer``, ``average``, ``reduction``, as in `Loss`.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar; 0 with a working backward for one sample.

    Raises:
        TypeError, ValueError: bad arguments, embeddings or labels.

    >>> from snrlib.distances import get_distance
    >>> points = torch.tensor([[0.0], [1.0], [1.5]])
    >>> loss = RankedListLoss(get_distance("euclidean"), margin=0.4, alpha=1.2)
    >>> loss(points, torch.tensor([0, 0, 1]))  # pull 0.2 + 0.2, push 0 + 0.7 + 0.7, halved, over 3
    tensor(0.3000)
    """

    told = ("margin", "alpha", "temperature", "balance")
    default_margin = 0.5
    margin_unit = "distance"

    def __init__(
        self,
        distance: Distance,
        margin: float = default_margin,
        alpha: float | None = None,
        temperature: float = 10.0,
        balance: float = 0.5,
        **shared: Unpack[SharedOptions],
    ):
        super().__init__(distance, **shared)
        self.margin = check_number(margin, "margin", above=0)
        self.alpha = 3 * self.margin if alpha is None else check_number(alpha, "alpha", above=0)
        check_number(margin, "margin", at_most=self.alpha)
        self.temperature = check_number(temperature, "temperature", at_least=0)
        self.balance = check_number(balance, "balance", at_least=0, at_most=1)

    @property
    def unit(self) -> float:
        """The boundary of the negatives."""
        return self.alpha

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        reference: Several | None = None,
        reference_labels: Several | None = None,
    ) -> Tensor:
        d, positive, negative = self._pairs(embeddings, labels, reference, reference_labels)
        near = self.alpha - self.margin
        outside = positive & (d > near)
        inside = negative & (d < self.alpha)
        pull = torch.where(outside, d - near, 0).sum(dim=1) / outside.sum(dim=1).clamp_min(1)
        # softmax is w / sum(w), of finite numbers however large the exponents; a row without any stays 0.
        weight = torch.where(inside, self.temperature * (self.alpha - d), torch.finfo(d.dtype).min).softmax(dim=1)
        push = torch.where(inside, weight * (self.alpha - d), 0).sum(dim=1)
        loss = self._reduce((1 - self.balance) * pull + self.balance * push)
        seen = d.detach()
        return self._finish(
            loss,
            embeddings,
            labels,
            lambda: Seen(
                positive.sum() + negative.sum(),
                (outside.sum() if self.balance < 1 else 0) + (inside.sum() if self.balance > 0 else 0),
                seen[positive],
                seen[negative],
            ),
            reference_labels,
        )
