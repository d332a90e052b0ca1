"""Eq. 3: N-pair loss (Sohn, NIPS 2016)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Literal, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from snrlib.distances import Distance
from snrlib.losses.base import Loss, Seen, SharedOptions, check_power
from snrlib.utils.checks import check_choice, check_embeddings, check_labels, check_number

__all__ = ["NPairsLoss"]


class NPairsLoss(Loss):
    """Eq. 3: of the positives of N classes, the anchor's own shall be the most similar.

        L = 1/N sum_i  log(1 + sum_(j != i) exp(margin + s(f_i, f_j+) - s(f_i, f_i+)))

    for N pairs (anchor f_i, positive f_i+) from N classes; margin = 0 in eq. 3. The similarity s, times a scale, is

    - "inner_product", ``s = (A f_i)'(A f_j+)``: eq. 3 as printed, the default of absolute distances;
    - "negative", ``s = -d^p``: ``-d`` for relative distances, their default (our reading of section 4.5), and
      ``-d^2`` for absolute ones;
    - "inverse", ``s = 1/d``, for relative distances; it diverges as d -> 0 and is held at 1e4, without a gradient.

    The first sample of a class in the batch is its anchor, the second its positive. With m a class, the p-th samples of
    all classes are anchors and the q-th their positives, for all p < q: every choice is one N-pair batch, and the loss
    is the mean over its pairs. As in eq. 3 (m = 2) the order in the batch matters, samplers shuffle it. Classes without
    a q-th sample stand aside; a pair without a negative does not count. There is a block for every q, no (n, n) matrix.

    Args:
        distance: a member of the family; the anchor f_i is its query.
        margin: added to every negative similarity, any finite number; 0 is eq. 3.
        similarity: see above.
        scale: a factor of every similarity, above 0: an inverse temperature, 1 in eq. 3. Under a distance without a
            scale of its own, as a relative one, the network cannot make the similarities larger itself.
        power: p of the similarity "negative", 1 or 2; None is that of the two forms above.
        **shared: ``regularizer``, ``average``, ``reduction``, as in `Loss`.

    The report counts a pair as active if its loss is above ``log 2``: the others take more than half of the softmax.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar; 0 with a working backward if fewer than two classes have
    two samples. There is no second set: a pair's place is its order in the batch.

    Raises:
        TypeError, ValueError: bad arguments, embeddings or labels.

    >>> from snrlib.distances import get_distance
    >>> f = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    >>> NPairsLoss(get_distance("euclidean"))(f, torch.tensor([0, 0, 1, 1]))  # log(1 + exp(0 - 2))
    tensor(0.1269)
    """

    term = "positive pair"
    told = ("margin", "similarity", "scale", "power")
    default_margin = 0.0
    default_scale = 1.0

    def __init__(
        self,
        distance: Distance,
        margin: float = default_margin,
        similarity: Literal["inner_product", "negative", "inverse"] | None = None,
        scale: float = default_scale,
        power: Literal[1, 2] | None = None,
        **shared: Unpack[SharedOptions],
    ):
        super().__init__(distance, **shared)
        self.margin = check_number(margin, "margin")
        default = "negative" if distance.relative else "inner_product"
        choices = ("negative", "inverse" if distance.relative else "inner_product")
        self.similarity = default if similarity is None else check_choice(similarity, "similarity", choices)
        self.scale = check_number(scale, "scale", above=0)
        self.power = check_power(power)
        if power is not None and self.similarity != "negative":
            raise ValueError(f"power is of the similarity 'negative', -d^power; got {power!r} with {self.similarity!r}")

    def _similarity(self, anchors: Tensor, positives: Tensor) -> tuple[Tensor, Tensor | None]:
        """s, and the distances where it is made of them; (n_anchors, n_positives)."""
        if self.similarity == "inner_product":
            s, d = self.distance.inner_product(anchors, positives), None
        else:
            d = self.distance(anchors, positives)
            s = -self.squared(d) if self.similarity == "negative" else 1 / d.clamp_min(1e-4)
        return s if self.scale == 1 else self.scale * s, None if d is None else d.detach()

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        x = check_embeddings(embeddings)
        blocks, losses = [], []
        for anchors, positives, own in _batches(check_labels(labels, len(x)), x.device):
            s, d = self._similarity(x.index_select(0, anchors), x.index_select(0, positives))
            if self.margin:
                s = s - self.margin * F.one_hot(own, s.shape[1])
            # log(1 + sum exp(margin + s_ij - s_ii)) is the cross-entropy of a softmax whose own logit lost the margin.
            losses.append(F.cross_entropy(s, own, reduction="none"))
            blocks.append((anchors, positives, own, d))
        if not losses:
            losses.append(self._similarity(x[:1], x[:1])[0][0, :0])
        terms = losses[0] if len(losses) == 1 else torch.cat(losses)
        loss = self._reduce(terms)
        seen = terms.detach()
        # Eq. 3 has no distances: with inner products they are computed for the report, of copies, when it is asked.
        h, distance = x.detach(), self.distance
        if self.similarity == "inner_product":
            h = h.clone()
            distance = copy.deepcopy(self.distance) if any(True for _ in self.distance.parameters()) else self.distance

        def observe() -> Seen:
            positive, negative = [h.new_empty(0)], [h.new_empty(0)]
            for anchors, positives, own, d in blocks:
                d = distance(h[anchors], h[positives]).detach() if d is None else d
                mine = F.one_hot(own, d.shape[1]).bool()
                positive.append(d[mine])
                negative.append(d[~mine])
            cause = "fewer than two classes have two samples"
            active = (seen > math.log(2)).sum()
            return Seen(len(seen), active, torch.cat(positive), torch.cat(negative), cause)

        return self._finish(loss, embeddings, labels, observe)


def _batches(labels: Tensor, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """All N-pair batches whose positives are the q-th samples, for every q: q anchors of each class, one positive.

    Yields:
        Indices of the anchors (q N,) and of the positives (N,), and which of the positives is each anchor's own (q N,).
    """
    members: dict[int, list[int]] = {}
    for i, label in enumerate(labels.tolist()):
        members.setdefault(label, []).append(i)
    samples = [members[label] for label in sorted(members)]
    for q in range(1, max(map(len, samples))):
        having = [of_class for of_class in samples if len(of_class) > q]
        if len(having) < 2:
            return
        anchors = torch.tensor([i for of_class in having for i in of_class[:q]], device=device)
        positives = torch.tensor([of_class[q] for of_class in having], device=device)
        yield anchors, positives, torch.arange(len(anchors), device=device) // q
