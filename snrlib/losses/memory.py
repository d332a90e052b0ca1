"""A memory of earlier embeddings as a second set (Wang, Zhang, Huang, Scott, CVPR 2020, cross-batch memory)."""

from __future__ import annotations

import inspect
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from snrlib.distances import Distance
from snrlib.losses.base import Loss, Report
from snrlib.utils.checks import check_embeddings, check_labels

__all__ = ["CrossBatchMemory"]


class CrossBatchMemory(nn.Module):
    """A loss whose positives and negatives come from the batch and from the embeddings of the batches before.

        L(x, y) = loss(x, y, [x, memory], [y, labels of the memory])

    Embeddings drift slowly, so that those of some steps ago still say where a class lies: many more negatives, at the
    price of one matrix product. They are constants. The memory is first in, first out: in training mode every batch is
    put in after its loss, so that no embedding meets its own copy; that it is not compared with itself inside the batch
    is the loss's doing (`Loss`). The paper begins after some steps without a memory, when embeddings drift less: train
    with the loss itself until then.

    Args:
        loss: one that takes a second set.
        size: embeddings kept, at least 1; the first batches find fewer.

    The memory is a buffer: a checkpoint holds it, and a training that goes on has the same numbers. An epoch-long
    memory (size about the number of images) is what the paper recommends for small data sets.

    Shape: embeddings (n, M) and integer labels (n,) -> what the loss returns.

    Raises:
        TypeError, ValueError: no loss, or one without a second set, or a bad size; in a call, as the loss, or
            embeddings of another M than those remembered.

    >>> from snrlib.distances import get_distance
    >>> from snrlib.losses import ContrastiveLoss
    >>> memory = CrossBatchMemory(ContrastiveLoss(get_distance("euclidean")), size=3)
    >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([0, 0])
    >>> memory(x, y), memory(x, y)  # half the mean of 1, 1, and of 1, 0, 1, 1, 1, 0
    (tensor(0.5000), tensor(0.3333))
    """

    embeddings: Tensor
    labels: Tensor
    size: int

    def __init__(self, loss: Loss, size: int):
        super().__init__()
        if not isinstance(loss, Loss):
            raise TypeError(f"loss must be a Loss, got {type(loss).__name__}")
        if "reference" not in inspect.signature(loss.forward).parameters:
            raise ValueError(f"{type(loss).__name__} takes no second set, so that a memory is of no use to it")
        self.loss = loss
        if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
            raise ValueError(f"size must be a whole number of at least 1, got {size!r}")
        self.size = int(size)
        self.register_buffer("embeddings", torch.zeros(0, 0))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        width = check_embeddings(embeddings).shape[1]
        check_labels(labels, len(embeddings))
        if len(self.labels) and width != self.embeddings.shape[1]:
            raise ValueError(f"embeddings must have {self.embeddings.shape[1]} components, as remembered, got {width}")
        if not len(self.labels):
            value = self.loss(embeddings, labels)
        else:
            value = self.loss(embeddings, labels, [embeddings, self.embeddings], [labels, self.labels])
        if self.training:
            self._put(embeddings.detach(), labels)
        return value

    @torch.no_grad()
    def _put(self, embeddings: Tensor, labels: Tensor) -> None:
        """First in, first out; a batch is copied, since it may change in place."""
        known = self.embeddings if len(self.labels) else embeddings[:0]
        self.embeddings = torch.cat([known, embeddings])[-self.size :]
        self.labels = torch.cat([self.labels, labels.to(self.labels)])[-self.size :]

    def report(self) -> Report:
        """What the loss saw last."""
        return self.loss.report()

    @property
    def distance(self) -> Distance:
        """Of the loss."""
        return self.loss.distance

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("embeddings", "labels"):  # as many as were remembered
            if (stored := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(stored, device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"size={self.size}"
