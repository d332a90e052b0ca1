"""ArcFace (Deng, Guo, Xue, Zafeiriou, CVPR 2019)."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from snrlib.distances import Distance
from snrlib.losses.proxies import CosineProxyLoss, ProxyOptions
from snrlib.utils.checks import check_number

__all__ = ["ArcFaceLoss"]


class ArcFaceLoss(CosineProxyLoss):
    """A normalised softmax in which the own angle counts as larger by a margin:

        L = 1/n sum_i  -log( exp(s cos(theta_iy + m)) / (exp(s cos(theta_iy + m)) + sum_(c != y) exp(s cos theta_ic)) )

    with theta_ic the angle between x_i and the proxy p_c, and y the class of x_i. Beyond theta = pi - m, where
    cos(theta + m) would rise again, cos(theta) - m sin(m) takes its place, as in the authors' code. With m = 0 it is
    `NormalisedSoftmaxLoss`.

    Args:
        distance: cosine, correlation, or Euclid with ``normalize_embeddings=True``, see `CosineProxyLoss`.
        margin: m in radians, from 0 to pi; 0.5 (28.6 degrees) in the paper.
        scale: s, above 0; 64 in the paper.
        **options: ``n_classes``, ``embedding_size``, ``seed`` and ``rate``, as in `ProxyLoss`; ``regularizer``,
            ``average`` and ``reduction``, as in `Loss`.

    An angle of 0 or pi (to rounding) moves along cos alone: its own derivative is infinite. The report counts a sample
    as active if its loss is above ``log 2``.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar.

    Raises:
        TypeError, ValueError: bad arguments (another distance is one), embeddings or labels.

    >>> from snrlib.distances import get_distance
    >>> d = get_distance("euclidean", normalize_embeddings=True)
    >>> loss = ArcFaceLoss(d, margin=math.pi / 2, scale=1.0, n_classes=2, embedding_size=2)
    >>> loss.proxies.data = torch.tensor([[3.0, 0.0], [0.0, 5.0]])
    >>> loss(torch.tensor([[7.0, 0.0]]), torch.tensor([0])).detach()  # cos(0 + pi/2) is cos(pi/2): log(1 + exp(0 - 0))
    tensor(0.6931)
    """

    told = ("margin", "scale")
    default_margin = 0.5
    default_scale = 64.0

    def __init__(
        self,
        distance: Distance,
        margin: float = default_margin,
        scale: float = default_scale,
        **options: Unpack[ProxyOptions],
    ):
        super().__init__(distance, **options)
        self.margin = check_number(margin, "margin (radians)", at_least=0, at_most=math.pi)
        self.scale = check_number(scale, "scale", above=0)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        cosine, labels = self._cosines(embeddings, labels)
        cos = cosine.gather(1, labels[:, None])
        # sin theta = sqrt(1 - cos^2); up to rounding it is 0, and its derivative not infinity
        squared = 1 - cos.square()
        straight = squared <= 16 * torch.finfo(cos.dtype).eps
        sin = squared.masked_fill(straight, 1).sqrt().masked_fill(straight, 0)
        # cos(theta + m) = cos theta cos m - sin theta sin m
        turned = cos * math.cos(self.margin) - sin * math.sin(self.margin)
        own = torch.where(cos >= -math.cos(self.margin), turned, cos - self.margin * math.sin(self.margin))
        mine = labels[:, None] == torch.arange(cosine.shape[1], device=cosine.device)
        terms = F.cross_entropy(self.scale * torch.where(mine, own, cosine), labels, reduction="none")
        return self._finish_samples(terms, terms.detach() > math.log(2), embeddings, labels)
