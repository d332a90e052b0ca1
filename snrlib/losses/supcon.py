"""Supervised contrastive loss (Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan, NeurIPS 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from snrlib.losses.base import PairSoftmaxLoss, Seen, Several

__all__ = ["SupConLoss"]


class SupConLoss(PairSoftmaxLoss):
    """An anchor's positives shall share the softmax over all other samples, the paper's L_out:

        L = mean over anchors i of  -1/|P_i| sum_(p in P_i) log( exp(-s e_ip) / sum_(k != i) exp(-s e_ik) )

    with P_i the anchor's positives, and e = d for a relative distance and d^2 for an absolute one. An anchor counts if
    it has a positive and a negative. The paper's similarity is the cosine: over the cosine distance e = 1 - cos, and
    the 1 cancels. Positives stand in the sum below as well: the least value is ``log |P_i|``, not 0.

    Args:
        distance: any member of the family.
        scale: s, the reciprocal of the paper's temperature 0.1, above 0; suits distances of about 1.
        power: of d in e; None is 1 for a relative distance and 2 for an absolute one.
        **shared: ``regularizer``, ``average``, ``reduction``, as in `Loss`.

    The report counts an anchor as active if its loss is more than ``log 2`` above the least: of the others, the
    positives take more than half of the softmax.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar; 0 with a working backward if no anchor counts.

    Raises:
        TypeError, ValueError: bad arguments, embeddings or labels.

    >>> from snrlib.distances import get_distance
    >>> points = torch.tensor([[0.0], [1.0], [2.0]])
    >>> loss = SupConLoss(get_distance("euclidean"), scale=1.0)
    >>> loss(points, torch.tensor([0, 0, 1]))  # one positive each: (log(1 + exp(1 - 4)) + log(1 + exp(1 - 1))) / 2
    tensor(0.3709)
    """

    term = "anchor"

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        reference: Several | None = None,
        reference_labels: Several | None = None,
    ) -> Tensor:
        d, positive, negative = self._pairs(embeddings, labels, reference, reference_labels)
        s = self._similarity(d)
        number = positive.sum(dim=1)
        valid = (number > 0) & negative.any(dim=1)
        # log( exp(s_ip) / sum_(k != i) exp(s_ik) )
        others = (positive | negative) | ~valid[:, None]  # a row of nothing has no logarithm
        log_share = s - torch.where(others, s, -torch.inf).logsumexp(dim=1, keepdim=True)
        # -1/|P_i| sum over the positives
        terms = -torch.where(positive, log_share, 0).sum(dim=1) / number.clamp_min(1)
        seen, value = d.detach(), terms.detach()
        return self._finish(
            self._reduce(terms, valid),
            embeddings,
            labels,
            lambda: Seen(
                valid.sum(),
                (valid & (value - number.clamp_min(1).log() > math.log(2))).sum(),
                seen[positive],
                seen[negative],
            ),
            reference_labels,
        )
