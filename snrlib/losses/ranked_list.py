"""Ranked list loss (Wang, Hua, Kodirov, Hu, Garnier, Robertson, CVPR 2019), which the report names in 3.2."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import Tensor

from snrlib.distances import Distance
from snrlib.losses.base import Loss, Seen, Several, SharedOptions
from snrlib.utils.checks import check_choice, check_number

__all__ = ["RankedListLoss"]


class RankedListLoss(Loss):
    """Keep the negatives of every query beyond alpha, mostly the nearest, and its positives within alpha - m.

        L   = 1/n sum_i  (1 - balance) L_P(i) + balance L_N(i)
        L_P = sum_j w_ij (d_ij - (alpha - m)) / sum_j w_ij   over the positives with d_ij > alpha - m,
              w_ij = exp(positive_temperature (d_ij - (alpha - m)))
        L_N = sum_k w_ik (alpha - d_ik) / sum_k w_ik         over the negatives with d_ik < alpha,
              w_ik = exp(temperature (alpha - d_ik))

    An empty mean is 0. The class may keep a shape of its own, of radius alpha - m, instead of shrinking to a point.
    In the paper the weights only say how much each pair counts: in the authors' code they are constants of the backward
    pass. By default they are differentiated with the rest, as in pytorch-metric-learning; hence a negative inside alpha
    that is farther than the weighted mean of them by more than 1/temperature is pulled nearer, not pushed.

    Args:
        distance: a member of the family; the paper's is Euclidean on embeddings of length 1
            (``normalize_embeddings=True``).
        margin: m, from 0 to alpha, in units of the distance; the paper uses about 0.4, 0.5 suits distances of about 1.
        alpha: the boundary of the negatives, above 0; the paper uses about 1.2. None is three times the margin, as
            there; a margin of 0 needs one.
        temperature: of the negatives' weights, the paper's T_n, at least 0 (which weighs all alike).
        positive_temperature: of the positives' weights, the paper's T_p, at least 0.
        weights: "differentiated" or "constant", see above.
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

    told = ("margin", "alpha", "temperature", "balance", "positive_temperature", "weights")
    default_margin = 0.5
    margin_unit = "distance"

    def __init__(
        self,
        distance: Distance,
        margin: float = default_margin,
        alpha: float | None = None,
        temperature: float = 10.0,
        balance: float = 0.5,
        positive_temperature: float = 0.0,
        weights: Literal["differentiated", "constant"] = "differentiated",
        **shared: Unpack[SharedOptions],
    ):
        super().__init__(distance, **shared)
        self.margin = check_number(margin, "margin", at_least=0)
        if alpha is None and not self.margin:
            raise ValueError("a margin of 0 needs an alpha: None is three times the margin")
        self.alpha = 3 * self.margin if alpha is None else check_number(alpha, "alpha", above=0)
        check_number(margin, "margin", at_most=self.alpha)
        self.temperature = check_number(temperature, "temperature", at_least=0)
        self.balance = check_number(balance, "balance", at_least=0, at_most=1)
        self.positive_temperature = check_number(positive_temperature, "positive_temperature", at_least=0)
        self.weights = check_choice(weights, "weights", ("differentiated", "constant"))

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
        pull = self._weighted(d - near, outside, self.positive_temperature)
        push = self._weighted(self.alpha - d, inside, self.temperature)
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

    def _weighted(self, excess: Tensor, chosen: Tensor, temperature: float) -> Tensor:
        """``sum w x / sum w`` of every row over what is chosen of it, ``w = exp(temperature x)``; 0 of nothing."""
        if not temperature:
            return torch.where(chosen, excess, 0).sum(dim=1) / chosen.sum(dim=1).clamp_min(1)
        # softmax is w / sum(w), of finite numbers however large the exponents
        of = excess.detach() if self.weights == "constant" else excess
        weight = torch.where(chosen, temperature * of, torch.finfo(of.dtype).min).softmax(dim=1)
        return torch.where(chosen, weight * excess, 0).sum(dim=1)
