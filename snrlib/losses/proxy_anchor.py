"""Proxy anchor loss (Kim, Kim, Cho, Kwak, CVPR 2020)."""

from __future__ import annotations

import math
from typing import Literal, Unpack

import torch
from torch import Tensor

from snrlib.distances import Distance
from snrlib.losses.base import check_power, held, log_one_plus_sum_exp
from snrlib.losses.proxies import ProxyLoss, ProxyOptions
from snrlib.utils.checks import check_number

__all__ = ["ProxyAnchorLoss"]


class ProxyAnchorLoss(ProxyLoss):
    """Every proxy is an anchor and has all samples of the batch as positives or negatives:

        L = 1/|C+| sum_(c in C+) log(1 + sum_(x of c)     exp(alpha (e(x, p_c) - (margin - delta))))
          + 1/|C|  sum_c         log(1 + sum_(x not of c) exp(alpha ((margin + delta) - e(x, p_c))))

    with C+ the classes in the batch, and e = d for a relative distance and d^2 for an absolute one. The paper's
    similarity is the cosine: over the cosine distance e = 1 - cos, so that the margin 1 is cos = 0 and delta is the
    paper's margin. Its constants are the defaults, in units of the margin.

    Args:
        distance: any member of the family; the sample is the query.
        margin: the e that parts near from far, above 0; 1 in the paper, over the cosine distance.
        delta: how far from there a sample is near or far enough, at least 0; None is margin/10, the paper's 0.1.
        alpha: how steeply the hardest samples count, above 0; None is 32/margin, the paper's 32.
        power: of d in e; None is 1 for a relative distance and 2 for an absolute one.
        **options: ``n_classes``, ``embedding_size``, ``seed`` and ``rate``, as in `ProxyLoss`; ``regularizer``,
            ``average`` and ``reduction``, as in `Loss`. The terms are the proxies'.

    The report counts a proxy as active if its loss is above ``log 2``.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar.

    Raises:
        TypeError, ValueError: bad arguments, embeddings or labels.

    >>> from snrlib.distances import get_distance
    >>> loss = ProxyAnchorLoss(get_distance("euclidean"), alpha=1.0, n_classes=2, embedding_size=1)
    >>> loss.proxies.data = torch.tensor([[0.0], [2.0]])
    >>> loss(torch.tensor([[0.5]]), torch.tensor([0])).detach()  # log(1 + exp(.25 - .9)) + log(1 + exp(1.1 - 2.25)) / 2
    tensor(0.5576)
    """

    term = "proxy"
    told = ("margin", "delta", "alpha", "power")
    default_margin = 1.0
    margin_unit = "squared distance"

    def __init__(
        self,
        distance: Distance,
        margin: float = default_margin,
        delta: float | None = None,
        alpha: float | None = None,
        power: Literal[1, 2] | None = None,
        **options: Unpack[ProxyOptions],
    ):
        super().__init__(distance, **options)
        self.power = check_power(power)
        self.margin = check_number(margin, "margin", above=0)
        self.delta = check_number(self.margin / 10 if delta is None else delta, "delta", at_least=0)
        self.alpha = check_number(32 / self.margin if alpha is None else alpha, "alpha", above=0)

    @property
    def unit(self) -> float:
        """The margin, as a distance."""
        return self.margin ** (1 / self.exponent)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        x, labels, proxies = self._checked(embeddings, labels)
        e = held(self.squared(self.distance(x, proxies)))
        own = labels[:, None] == torch.arange(len(proxies), device=x.device)
        # log(1 + sum_(x of c) exp(alpha (e - (margin - delta))))
        pull = log_one_plus_sum_exp(self.alpha * (e - (self.margin - self.delta)), own, dim=0)
        # log(1 + sum_(x not of c) exp(alpha ((margin + delta) - e)))
        push = log_one_plus_sum_exp(self.alpha * ((self.margin + self.delta) - e), ~own, dim=0)
        terms = len(proxies) * pull / own.any(dim=0).sum() + push  # their mean is the sum of both means
        return self._finish_samples(terms, terms.detach() > math.log(2), embeddings, labels)
