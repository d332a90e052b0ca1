"""ProxyNCA++ (Teh, DeVries, Taylor, ECCV 2020), after ProxyNCA (Movshovitz-Attias et al., ICCV 2017)."""

from __future__ import annotations

import math
from typing import Literal, Unpack

from torch import Tensor
from torch.nn import functional as F

from snrlib.distances import Distance
from snrlib.losses.base import check_power, held
from snrlib.losses.proxies import ProxyLoss, ProxyOptions
from snrlib.utils.checks import check_number

__all__ = ["ProxyNCALoss"]


class ProxyNCALoss(ProxyLoss):
    """Of all proxies, a sample's own shall be the nearest, by a softmax over distances:

        L = 1/n sum_i  -log( exp(-s e(x_i, p_y)) / sum_c exp(-s e(x_i, p_c)) )

    with y the class of x_i, and e = d for a relative distance and d^2 for an absolute one. The paper's is Euclid on
    vectors of length 1 (``normalize_embeddings=True``). The own proxy stands in the sum below, which makes it a
    probability; in the first ProxyNCA it did not. Class averages and the other training tricks of the paper are none
    of the loss.

    Args:
        distance: any member of the family; the sample is the query.
        scale: s, the reciprocal of the paper's temperature 1/9, above 0.
        power: of d in e; None is 1 for a relative distance and 2 for an absolute one.
        **options: ``n_classes``, ``embedding_size``, ``seed`` and ``rate``, as in `ProxyLoss`; ``regularizer``,
            ``average`` and ``reduction``, as in `Loss`.

    The report counts a sample as active if its loss is above ``log 2``: the others have more than half of the softmax.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar.

    Raises:
        TypeError, ValueError: bad arguments, embeddings or labels.

    >>> import torch
    >>> from snrlib.distances import get_distance
    >>> loss = ProxyNCALoss(get_distance("euclidean"), scale=1.0, n_classes=2, embedding_size=1)
    >>> loss.proxies.data = torch.tensor([[0.0], [2.0]])
    >>> loss(torch.tensor([[0.5]]), torch.tensor([0])).detach()  # log(1 + exp(0.25 - 2.25))
    tensor(0.1269)
    """

    told = ("scale", "power")
    default_scale = 9.0

    def __init__(
        self,
        distance: Distance,
        scale: float = default_scale,
        power: Literal[1, 2] | None = None,
        **options: Unpack[ProxyOptions],
    ):
        super().__init__(distance, **options)
        self.power = check_power(power)
        self.scale = check_number(scale, "scale", above=0)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        x, labels, proxies = self._checked(embeddings, labels)
        # -log softmax of -s e(x_i, p_c), at the own proxy
        s = held(-self.scale * self.squared(self.distance(x, proxies)))
        terms = F.cross_entropy(s, labels, reduction="none")
        return self._finish_samples(terms, terms.detach() > math.log(2), embeddings, labels)
