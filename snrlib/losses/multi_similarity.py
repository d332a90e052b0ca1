"""Multi-similarity loss and its pair mining (Wang, Han, Huang, Dong, Scott, CVPR 2019)."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import Tensor

from snrlib.distances import Distance
from snrlib.losses.base import Loss, Seen, Several, SharedOptions, check_power, held, log_one_plus_sum_exp
from snrlib.utils.checks import check_choice, check_number

__all__ = ["MultiSimilarityLoss"]


class MultiSimilarityLoss(Loss):
    """A pair pulls or pushes by its own distance and by how it stands to the anchor's other pairs:

        L = 1/n sum_i  1/alpha log(1 + sum_(k in P_i) exp(alpha (e_ik - margin)))
                     + 1/beta  log(1 + sum_(k in N_i) exp(beta (margin - e_ik)))

    with e = d for a relative distance and d^2 for an absolute one. Of the anchor's positives and negatives only those
    are looked at that are about as hard as the hardest of the other kind:

        P_i = positives with e_ik > min_(negatives l) e_il - epsilon
        N_i = negatives with e_ik < max_(positives l) e_il + epsilon

    The paper's similarity is the cosine: over the cosine distance e = 1 - cos, and its lambda is 1 - margin. Its
    constants are the defaults, in units of the margin: the loss of c e at the margin c margin is c times the loss.

    Args:
        distance: any member of the family.
        margin: the e that parts near from far, above 0; 0.5 in the paper, over the cosine distance.
        alpha: how steeply the positives count, above 0; None is 1/margin, the paper's 2.
        beta: how steeply the negatives count, above 0; None is 25/margin, the paper's 50.
        epsilon: of the mining, at least 0; None is margin/5, the paper's 0.1.
        mining: "pairs" as above; "all" takes all pairs.
        power: of d in e; None is 1 for a relative distance and 2 for an absolute one.
        **shared: ``regularizer``, ``average``, ``reduction``, as in `Loss`; the terms are the anchors'.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar; 0 with a working backward if nothing is mined.

    Raises:
        TypeError, ValueError: bad arguments, embeddings or labels.

    >>> from snrlib.distances import get_distance
    >>> points = torch.tensor([[0.0], [1.0], [1.5]])
    >>> loss = MultiSimilarityLoss(get_distance("euclidean"), margin=1.0, alpha=1.0, beta=1.0)
    >>> loss(points, torch.tensor([0, 0, 1]))  # of 1 alone: (log(1 + exp(1 - 1)) + log(1 + exp(1 - 0.25))) / 3
    tensor(0.6100)
    """

    told = ("margin", "alpha", "beta", "epsilon", "mining", "power")
    default_margin = 0.5
    margin_unit = "squared distance"

    def __init__(
        self,
        distance: Distance,
        margin: float = default_margin,
        alpha: float | None = None,
        beta: float | None = None,
        epsilon: float | None = None,
        mining: str = "pairs",
        power: Literal[1, 2] | None = None,
        **shared: Unpack[SharedOptions],
    ):
        super().__init__(distance, **shared)
        self.power = check_power(power)
        self.margin = check_number(margin, "margin", above=0)
        self.alpha = check_number(1 / self.margin if alpha is None else alpha, "alpha", above=0)
        self.beta = check_number(25 / self.margin if beta is None else beta, "beta", above=0)
        self.epsilon = check_number(self.margin / 5 if epsilon is None else epsilon, "epsilon", at_least=0)
        self.mining = check_choice(mining, "mining", ("pairs", "all"))

    @property
    def unit(self) -> float:
        """The margin, as a distance."""
        return self.margin ** (1 / self.exponent)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        reference: Several | None = None,
        reference_labels: Several | None = None,
    ) -> Tensor:
        d, positive, negative = self._pairs(embeddings, labels, reference, reference_labels)
        e = held(self.squared(d))
        seen, all_positive, all_negative, terms = d.detach(), positive, negative, positive.sum() + negative.sum()
        if self.mining == "pairs":
            both = positive.any(dim=1, keepdim=True) & negative.any(dim=1, keepdim=True)
            terms = (both & (positive | negative)).sum()
            nearest = e.masked_fill(~negative, torch.inf).amin(dim=1, keepdim=True)
            farthest = e.masked_fill(~positive, -torch.inf).amax(dim=1, keepdim=True)
            positive, negative = positive & (e > nearest - self.epsilon), negative & (e < farthest + self.epsilon)
        # 1/alpha log(1 + sum exp(alpha (e - margin)))
        pull = log_one_plus_sum_exp(self.alpha * (e - self.margin), positive) / self.alpha
        # 1/beta log(1 + sum exp(beta (margin - e)))
        push = log_one_plus_sum_exp(self.beta * (self.margin - e), negative) / self.beta
        return self._finish(
            self._reduce(pull + push),
            embeddings,
            labels,
            lambda: Seen(terms, positive.sum() + negative.sum(), seen[all_positive], seen[all_negative]),
            reference_labels,
        )
