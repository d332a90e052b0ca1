"""Normalised softmax (Wang, Xiang, Cheng, Yuille, ACM MM 2017, "NormFace"; Zhai and Wu, BMVC 2019)."""

from __future__ import annotations

import math
from typing import Unpack

from torch import Tensor
from torch.nn import functional as F

from snrlib.distances import Distance
from snrlib.losses.proxies import CosineProxyLoss, ProxyOptions
from snrlib.utils.checks import check_number

__all__ = ["NormalisedSoftmaxLoss"]


class NormalisedSoftmaxLoss(CosineProxyLoss):
    """A classifier of directions: weights, which are the proxies, and embeddings are brought to length 1.

        L = 1/n sum_i  -log( exp(s cos(x_i, p_y)) / sum_c exp(s cos(x_i, p_c)) )

    with y the class of x_i. Zhai and Wu bring embeddings to zero mean as well (layer norm): that is the correlation.

    Args:
        distance: cosine, correlation, or Euclid with ``normalize_embeddings=True``, see `CosineProxyLoss`.
        scale: s, the reciprocal of the paper's temperature 0.05, above 0.
        **options: ``n_classes``, ``embedding_size``, ``seed`` and ``rate``, as in `ProxyLoss`; ``regularizer``,
            ``average`` and ``reduction``, as in `Loss`.

    The report counts a sample as active if its loss is above ``log 2``: the others have more than half of the softmax.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar.

    Raises:
        TypeError, ValueError: bad arguments (another distance is one), embeddings or labels.

    >>> import torch
    >>> from snrlib.distances import get_distance
    >>> d = get_distance("euclidean", normalize_embeddings=True)
    >>> loss = NormalisedSoftmaxLoss(d, scale=2.0, n_classes=2, embedding_size=2)
    >>> loss.proxies.data = torch.tensor([[3.0, 0.0], [0.0, 5.0]])
    >>> loss(torch.tensor([[7.0, 0.0]]), torch.tensor([0])).detach()  # log(1 + exp(2 (0 - 1)))
    tensor(0.1269)
    """

    told = ("scale",)
    default_scale = 20.0

    def __init__(self, distance: Distance, scale: float = default_scale, **options: Unpack[ProxyOptions]):
        super().__init__(distance, **options)
        self.scale = check_number(scale, "scale", above=0)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        cosine, labels = self._cosines(embeddings, labels)
        # -log softmax of s cos(x_i, p_c), at the own proxy
        terms = F.cross_entropy(self.scale * cosine, labels, reduction="none")
        return self._finish_samples(terms, terms.detach() > math.log(2), embeddings, labels)
