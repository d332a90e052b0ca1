"""Batches for metric learning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

from snrlib.checks import check_labels

__all__ = ["MPerClassSampler"]


class MPerClassSampler(Sampler[int]):
    """Indices such that every ``batch_size`` in a row hold ``batch_size / m`` distinct classes, ``m`` images each.

    An epoch is ``length`` indices, rounded down to whole batches: it is a number of batches, not a pass over the data.
    Classes are drawn without replacement within a batch, images without replacement within a class; a class with fewer
    than ``m`` images repeats some. Each new iteration continues the random sequence of ``seed``.

    Args:
        labels: (n,), the class of every image.
        m: images a class and batch.
        batch_size: a multiple of m.
        length: indices an epoch, at least batch_size.
        seed: of the draws.

    Raises:
        ValueError: sizes that do not fit each other, or fewer classes than a batch needs.

    >>> list(MPerClassSampler([0, 0, 1, 1, 2, 2], m=2, batch_size=4, length=4, seed=1))
    [2, 3, 4, 5]
    """

    def __init__(self, labels: Tensor | Sequence[int], m: int, batch_size: int, length: int, seed: int = 0):
        labels = check_labels(torch.as_tensor(labels))
        if m < 1 or batch_size < 1 or batch_size % m:
            raise ValueError(f"batch_size must be a positive multiple of m, got batch_size={batch_size} and m={m}")
        if length < batch_size:
            raise ValueError(f"length must be at least batch_size={batch_size}, got {length}")
        self.members = [torch.nonzero(labels == label).flatten() for label in labels.unique()]
        self.classes_per_batch = batch_size // m
        if len(self.members) < self.classes_per_batch:
            raise ValueError(
                f"a batch of {batch_size} with {m} a class needs {self.classes_per_batch} classes, "
                f"the labels hold {len(self.members)}"
            )
        self.m = m
        self.batch_size = batch_size
        self.n_batches = length // batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.n_batches * self.batch_size

    def __iter__(self) -> Iterator[int]:
        for _ in range(self.n_batches):
            for label in torch.randperm(len(self.members), generator=self.generator)[: self.classes_per_batch]:
                members = self.members[int(label)]
                draws = [
                    torch.randperm(len(members), generator=self.generator) for _ in range(-(-self.m // len(members)))
                ]
                yield from members[torch.cat(draws)[: self.m]].tolist()
