"""Eq. 3: N-pair loss (Sohn, NIPS 2016)."""

from __future__ import annotations

import copy
import math
from typing import Literal, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from snrlib.distances import Distance
from snrlib.losses.base import Loss, Seen, SharedOptions
from snrlib.utils.checks import check_choice, check_embeddings, check_labels, check_number

__all__ = ["NPairsLoss"]


class NPairsLoss(Loss):
    """Eq. 3: of the positives of N classes, the anchor's own shall be the most similar.

        L = 1/N sum_i  log(1 + sum_(j != i) exp(margin + s(f_i, f_j+) - s(f_i, f_i+)))

    for N pairs (anchor f_i, positive f_i+) from N classes; margin = 0 in eq. 3. The similarity s is

    - "inner_product", ``s = (A f_i)'(A f_j+)``: eq. 3 as printed, the default of absolute distances;
    - "negative", ``s = -d`` for relative distances, their default (our reading of section 4.5), and ``s = -d^2`` for
      absolute ones;
    - "inverse", ``s = 1/d``, for relative distances; it diverges as d -> 0 and is held at 1e4, without a gradient.

    The first sample of a class in the batch is its anchor, the second its positive. With m a class, the p-th samples of
    all classes are anchors and the q-th their positives, for all p < q: every choice is one N-pair batch, and the loss
    is the mean over its pairs. As in eq. 3 (m = 2) the order in the batch matters, samplers shuffle it. Classes without
    a q-th sample stand aside; a pair without a negative does not count. There is a block for every q, no (n, n) matrix.

    Args:
        distance: a member of the family; the anchor f_i is its query.
        margin: added to every negative similarity, any finite number; 0 is eq. 3.
        similarity: see above.
        **shared: ``regularizer``, ``average``, ``reduction``, as in `Loss`.

    The report counts a pair as active if its loss is above ``log 2``: the others take more than half of the softmax.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar; 0 with a working backward if fewer than two classes have
    two samples.

    Raises:
        TypeError, ValueError: bad arguments, embeddings or labels.

    >>> from snrlib.distances import get_distance
    >>> f = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    >>> NPairsLoss(get_distance("euclidean"))(f, torch.tensor([0, 0, 1, 1]))  # log(1 + exp(0 - 2))
    tensor(0.1269)
    """

    term = "positive pair"
    told = ("margin", "similarity")
    default_margin = 0.0

    def __init__(
        self,
        distance: Distance,
        margin: float = default_margin,
        similarity: Literal["inner_product", "negative", "inverse"] | None = None,
        **shared: Unpack[SharedOptions],
    ):
        super().__init__(distance, **shared)
        self.margin = check_number(margin, "margin")
        default = "negative" if distance.relative else "inner_product"
        choices = ("negative", "inverse" if distance.relative else "inner_product")
        self.similarity = default if similarity is None else check_choice(similarity, "similarity", choices)

    def _similarity(self, anchors: Tensor, positives: Tensor) -> tuple[Tensor, Tensor | None]:
        """s, and the distances where it is made of them; (n_anchors, n_positives)."""
        if self.similarity == "inner_product":
            return self.distance.inner_product(anchors, positives), None
        d = self.distance(anchors, positives)
        return -self.squared(d) if self.similarity == "negative" else 1 / d.clamp_min(1e-4), d.detach()

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        x = check_embeddings(embeddings)
        labels = check_labels(labels, len(x)).to(x.device)
        # In the order of the classes: the class of every sample, its size, and the sample's place in it.
        ordered, order = labels.sort(stable=True)
        _, cls, sizes = ordered.unique_consecutive(return_inverse=True, return_counts=True)
        place = torch.arange(len(x), device=x.device) - (sizes.cumsum(0) - sizes)[cls]
        blocks, losses = [], []
        for q in range(1, int(sizes.max())):
            # All N-pair batches whose positives are the q-th samples: a column a class, q anchors a class.
            has = sizes > q
            if has.sum() < 2:
                break
            earlier = (place < q) & has[cls]
            anchors, positives = order[earlier], order[place == q]
            own = (has.cumsum(0) - 1)[cls[earlier]]  # the column of each anchor's own positive
            s, d = self._similarity(x.index_select(0, anchors), x.index_select(0, positives))
            if self.margin:
                s = s - self.margin * F.one_hot(own, s.shape[1])
            # log(1 + sum exp(margin + s_ij - s_ii)) is the cross-entropy of a softmax whose own logit lost the margin.
            losses.append(F.cross_entropy(s, own, reduction="none"))
            blocks.append((anchors, positives, own, d))
        terms = torch.cat(losses) if losses else self._similarity(x[:1], x[:1])[0][0, :0]
        loss = self._reduce(terms)
        seen = terms.detach()
        # Eq. 3 has no distances: with inner products they are computed for the report, of copies, when it is asked.
        h, distance = x.detach(), self.distance
        if self.similarity == "inner_product":
            h = h.clone()
            distance = copy.deepcopy(self.distance) if any(True for _ in self.distance.parameters()) else self.distance

        @torch.no_grad()
        def observe() -> Seen:
            positive, negative = [h.new_empty(0)], [h.new_empty(0)]
            for anchors, positives, own, d in blocks:
                d = distance(h[anchors], h[positives]) if d is None else d
                mine = F.one_hot(own, d.shape[1]).bool()
                positive.append(d[mine])
                negative.append(d[~mine])
            cause = "fewer than two classes have two samples"
            active = (seen > math.log(2)).sum()
            return Seen(len(seen), active, torch.cat(positive), torch.cat(negative), cause)

        return self._finish(loss, embeddings, labels, observe)
