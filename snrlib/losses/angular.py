"""Angular loss (Wang, Zhou, Wen, Liu, Lin, ICCV 2017), which the report names in 3.2."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from snrlib.distances import Distance
from snrlib.losses.base import Loss, Seen, SharedOptions, pair_masks
from snrlib.utils.checks import check_number

__all__ = ["AngularLoss"]


class AngularLoss(Loss):
    """The angle at the negative of the triangle (anchor, positive, negative) shall be small, in its N-pair form:

        L   = 1/|P| sum_((a,p) in P)  log(1 + sum_(n in N_a) exp(f_apn))
        f_apn = 4 tan^2(alpha) (z_a + z_p)'z_n - 2 (1 + tan^2(alpha)) z_a'z_p

    with ``z = A x / ||A x||`` the mapped embeddings at length 1, P the ordered positive pairs and N_a the anchor's
    negatives. ``f_apn`` is ``||z_a - z_p||^2 - 4 tan^2(alpha) ||z_n - (z_a + z_p)/2||^2`` up to a constant.

    Defined over the absolute distances, by their inner products: an angle has no unit that an anchor could supply.
    Since z_a and z_p meet the same negatives, the sum over n is one matrix product of ``exp(4 tan^2(alpha) z_a'z_n)``
    with itself: no (pairs x negatives) table.

    Args:
        distance: an absolute member of the family.
        alpha: the angle in degrees, in (0, 60]; 40 or 45 are usual.
        **shared: ``regularizer``, ``average``, ``reduction``, as in `Loss`.

    An embedding that A maps to (nearly) 0 has no direction: cosines of 0, and no gradient. The report counts a pair as
    active if its loss is above ``log 2``, and gives chords ``||z_a - z_p||`` as distances. pytorch-metric-learning does
    not bring z_n to length 1; on embeddings of length 1 both are the same.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar; 0 with a working backward if there is no positive or no
    negative pair. There is no second set.

    Raises:
        TypeError, ValueError: bad arguments (a relative distance is one), embeddings or labels.

    >>> from snrlib.distances import get_distance
    >>> x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    >>> AngularLoss(get_distance("euclidean"), alpha=45)(x, torch.tensor([0, 0, 1]))  # log(1 + exp(4 * 0 - 4 * 1))
    tensor(0.0181)
    """

    term = "positive pair"
    told = ("alpha",)

    def __init__(self, distance: Distance, alpha: float = 40.0, **shared: Unpack[SharedOptions]):
        super().__init__(distance, **shared)
        if distance.relative:
            raise ValueError(f"the angular loss is defined over absolute distances only, got {distance!r}")
        self.alpha = check_number(alpha, "alpha (degrees)", above=0, at_most=60)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        s = self.distance.inner_product(embeddings, embeddings)
        positive, negative = pair_masks(labels, len(embeddings), s.device)
        power = s.diagonal()
        none = power <= self.distance.eps  # no length, no direction: cosines of 0, and no gradient
        scale = torch.where(none, 0, power.masked_fill(none, 1).rsqrt())
        s = s * scale * scale[:, None]
        t = math.tan(math.radians(self.alpha)) ** 2
        # sum_n exp(4 tan^2(alpha) (z_a + z_p)'z_n), of all a and p
        reach = torch.where(negative, (4 * t * s).exp(), 0)
        with torch.autocast(s.device.type, enabled=False):
            total = reach @ reach.T
        # Either every sample has a negative or, with a single class, none has: no pair is valid then.
        i, j = torch.nonzero(positive & negative.any()).T
        terms = torch.log1p(total[i, j] * (-2 * (1 + t) * s[i, j]).exp())
        loss = self._reduce(terms)
        seen, cosine = terms.detach(), s.detach()

        def observe() -> Seen:
            chord = (2 - 2 * cosine).relu().sqrt()
            return Seen(len(i), (seen > math.log(2)).sum(), chord[positive], chord[negative])

        return self._finish(loss, embeddings, labels, observe)
