"""NT-Xent, the normalised and tempered cross-entropy of SimCLR (Chen, Kornblith, Norouzi, Hinton, ICML 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from snrlib.losses.base import PairSoftmaxLoss, Seen, Several

__all__ = ["NTXentLoss"]


class NTXentLoss(PairSoftmaxLoss):
    """Of an anchor's positive and all its negatives, the positive shall take the softmax:

        L = 1/|P| sum_((a,p) in P)  -log( exp(-s e_ap) / (exp(-s e_ap) + sum_(n in N_a) exp(-s e_an)) )

    with P the ordered positive pairs, N_a the anchor's negatives, and e = d for a relative distance and d^2 for an
    absolute one. Two views of one image are a class of two in the paper; with more of a class, each positive stands
    alone against the negatives, as in pytorch-metric-learning (`SupConLoss` puts them side by side). The paper's
    similarity is the cosine: over the cosine distance e = 1 - cos, and the 1 cancels.

    Args:
        distance: any member of the family.
        scale: s, the reciprocal of the paper's temperature, above 0; 10 suits distances of about 1.
        power: of d in e; None is 1 for a relative distance and 2 for an absolute one.
        **shared: ``regularizer``, ``average``, ``reduction``, as in `Loss`.

    The report counts a pair as active if its loss is above ``log 2``: the others take more than half of the softmax.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar; 0 with a working backward if there is no positive or no
    negative pair.

    Raises:
        TypeError, ValueError: bad arguments, embeddings or labels.

    >>> from snrlib.distances import get_distance
    >>> points = torch.tensor([[0.0], [1.0], [2.0]])
    >>> loss = NTXentLoss(get_distance("euclidean"), scale=1.0)
    >>> loss(points, torch.tensor([0, 0, 1]))  # (log(1 + exp(1 - 4)) + log(1 + exp(1 - 1))) / 2
    tensor(0.3709)
    """

    term = "positive pair"

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        reference: Several | None = None,
        reference_labels: Several | None = None,
    ) -> Tensor:
        d, positive, negative = self._pairs(embeddings, labels, reference, reference_labels)
        s = self._similarity(d)
        opposed = negative.any(dim=1, keepdim=True)
        a, p = torch.nonzero(positive & opposed).T
        # log sum_n exp(-s e_an), of every anchor; one without negatives has no term
        others = torch.where(negative | ~opposed, s, -torch.inf).logsumexp(dim=1)
        # -log( exp(s_ap) / (exp(s_ap) + sum exp(s_an)) )
        terms = torch.logaddexp(s[a, p], others[a]) - s[a, p]
        seen, value = d.detach(), terms.detach()
        return self._finish(
            self._reduce(terms),
            embeddings,
            labels,
            lambda: Seen(len(a), (value > math.log(2)).sum(), seen[positive], seen[negative]),
            reference_labels,
        )
