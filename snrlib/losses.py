"""Losses over any member of the family of distances."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from snrlib.checks import check_labels
from snrlib.distances import Distance

__all__ = ["TripletMarginLoss"]


class TripletMarginLoss(nn.Module):
    """Eq. 2: the mean of ``max(d_ij^2 + m - d_ik^2, 0)`` over ALL valid triplets (anchor i, positive j, negative k).

    An absolute distance is squared, as printed. A relative distance is a ratio of squares already and enters as it is
    (our reading of section 4.5). The report calls the index set "samples"; it is triplets.

    Args:
        distance: a member of the family; the triplet's anchor i is its query.
        margin: m; tune it per distance, their scales differ.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar; 0 with a working backward if no triplet is valid.

    Raises:
        TypeError, ValueError: a distance or margin that is none; labels that are not as many integers.
    """

    def __init__(self, distance: Distance, margin: float):
        super().__init__()
        if not isinstance(distance, Distance):
            raise TypeError(f"distance must be a Distance, as get_distance returns, got {distance!r}")
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin):
            raise ValueError(f"margin must be a finite number, got {margin!r}")
        self.distance = distance
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        d = self.distance(embeddings)  # checks the embeddings
        check_labels(labels, len(embeddings))
        if not self.distance.relative:
            d = d.square()
        same = labels[:, None] == labels
        anchor, positive = torch.nonzero(same & ~torch.eye(len(labels), dtype=torch.bool, device=same.device)).T
        # One row a positive pair, one column a possible negative: n (m - 1) x n numbers for m images a class.
        loss = (d[anchor, positive][:, None] + self.margin - d[anchor]).relu()
        negative = ~same[anchor]
        return (loss * negative).sum() / negative.sum().clamp_min(1)

    def extra_repr(self) -> str:
        return f"margin={self.margin}"
