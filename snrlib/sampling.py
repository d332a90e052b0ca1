"""Batches for metric learning: a few images of each of many classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral

import torch
from torch import Tensor
from torch.utils.data import Sampler

from snrlib.utils.checks import check_labels

__all__ = ["MPerClassSampler", "NPairSampler", "usual_batch"]


def usual_batch(n_classes: int, per_class: int, batch_size: int | None = None, m: int | None = None) -> tuple[int, int]:
    """Images per step, and of each class in it, that suit the number of classes: 64 and 4, more of few classes.

    Args:
        n_classes: that train.
        per_class: images of the middle class.
        batch_size: that was chosen, or None.
        m: likewise.

    Returns:
        Both; what was chosen stays.

    >>> [usual_batch(n, 20) for n in (100, 12, 5, 3, 2)]
    [(64, 4), (48, 4), (40, 8), (48, 16), (32, 16)]
    """
    if batch_size is None:
        if m is None:
            m = 4 if per_class >= 4 else 2
            while 64 // (2 * m) >= n_classes and 2 * m <= per_class:
                m *= 2
        return max(2, min(64 // m, n_classes)) * m, m
    if m is None:
        fitting = (
            size for size in range(2, batch_size + 1) if batch_size % size == 0 and batch_size // size <= n_classes
        )
        m = 4 if batch_size % 4 == 0 and batch_size // 4 <= n_classes else next(fitting, batch_size)
    return batch_size, m


class MPerClassSampler(Sampler[int]):
    """Indices such that every ``batch_size`` in a row hold ``batch_size / m`` distinct classes, ``m`` images each.

    An epoch is ``length`` indices, rounded down to whole batches: it is a number of batches, not a pass over the data.
    Every class has the same chance in every batch, whatever its size, so that images of small classes come up more
    often. Classes are drawn without replacement within a batch, images without replacement within a class; a class with
    fewer than ``m`` images repeats some, and the ``repr`` says how many classes that concerns. Each new iteration
    continues the random sequence of ``seed``.

    Args:
        labels: (n,), the class of every image.
        m: images a class and batch.
        batch_size: a multiple of m.
        length: indices an epoch, at least batch_size; None is as many as there are images, but at least one batch.
        seed: of the draws.

    Raises:
        ValueError: sizes that are not whole numbers or do not fit each other, or fewer classes than a batch needs.

    >>> sampler = MPerClassSampler([0, 0, 1, 1, 2], m=2, batch_size=4, length=4, seed=1)
    >>> sampler
    MPerClassSampler(2 of 3 classes x 2 images = 4 a batch, 1 batch an epoch; 1 class has fewer images and repeats them)
    >>> list(sampler)
    [2, 3, 4, 4]
    """

    _usable = "classes"

    def __init__(
        self, labels: Tensor | Sequence[int], m: int, batch_size: int, length: int | None = None, seed: int = 0
    ):
        labels = check_labels(torch.as_tensor(labels))
        length = max(len(labels), batch_size) if length is None else length
        if not all(isinstance(size, Integral) for size in (m, batch_size, length)):
            raise ValueError(
                f"m, batch_size and length must be whole numbers, got {m!r}, {batch_size!r} and {length!r}"
            )
        if m < 1 or batch_size < 1 or batch_size % m:
            raise ValueError(f"batch_size must be a positive multiple of m, got batch_size={batch_size} and m={m}")
        if length < batch_size:
            raise ValueError(f"length must be at least batch_size={batch_size}, got {length}")
        self.members = self._members(labels)
        self.classes_per_batch = batch_size // m
        if len(self.members) < self.classes_per_batch:
            raise ValueError(
                f"a batch of {batch_size} with {m} a class needs {self.classes_per_batch} {self._usable}, "
                f"the labels hold {len(self.members)}"
            )
        self.m = m
        self.batch_size = batch_size
        self.n_batches = length // batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def _members(self, labels: Tensor) -> list[Tensor]:
        """The indices of every class."""
        _, counts = labels.unique(return_counts=True)
        return list(labels.argsort(stable=True).split(counts.tolist()))

    def __len__(self) -> int:
        return self.n_batches * self.batch_size

    def __iter__(self) -> Iterator[int]:
        for _ in range(self.n_batches):
            for label in torch.randperm(len(self.members), generator=self.generator)[: self.classes_per_batch].tolist():
                members = self.members[label]
                draws = [
                    torch.randperm(len(members), generator=self.generator) for _ in range(-(-self.m // len(members)))
                ]
                yield from members[torch.cat(draws)[: self.m]].tolist()

    def __repr__(self) -> str:
        small = sum(len(members) < self.m for members in self.members)
        said = {0: "", 1: "; 1 class has fewer images and repeats them"}
        return (
            f"{type(self).__name__}({self.classes_per_batch} of {len(self.members)} classes x {self.m} images = "
            f"{self.batch_size} a batch, {self.n_batches} batch{'es' if self.n_batches > 1 else ''} an epoch"
            f"{said.get(small, f'; {small} classes have fewer images and repeat them')})"
        )


class NPairSampler(MPerClassSampler):
    """Batches of eq. 3: N distinct classes with two different images each, the anchor and then its positive.

    Classes of a single image have no pair and are left out. Otherwise as `MPerClassSampler` with m = 2.

    Args:
        labels: (n,), the class of every image.
        n_classes: N, at least 2; a batch holds 2 N indices.
        length: indices an epoch, at least 2 N; None is as many as there are images.
        seed: of the draws.

    Raises:
        ValueError: sizes that do not fit each other, or fewer than N classes with two images.

    >>> list(NPairSampler([0, 0, 0, 1, 1, 2], n_classes=2, length=4))
    [0, 2, 3, 4]
    """

    _usable = "classes with two images or more"

    def __init__(self, labels: Tensor | Sequence[int], n_classes: int, length: int | None = None, seed: int = 0):
        if n_classes < 2:
            raise ValueError(f"n_classes must be at least 2, got {n_classes}")
        super().__init__(labels, m=2, batch_size=2 * n_classes, length=length, seed=seed)

    def _members(self, labels: Tensor) -> list[Tensor]:
        return [members for members in super()._members(labels) if len(members) > 1]
