"""Batches of m images per class, and of N pairs."""

from typing import Any

import torch
from oracles import refusals

from snrlib.sampling import MPerClassSampler, NPairSampler

UNEVEN = torch.tensor([0] * 9 + [1] * 2 + [2] * 4 + [5] * 7 + [9] * 1)


def _batches(sampler: MPerClassSampler) -> list[list[int]]:
    indices = list(sampler)
    assert len(indices) == len(sampler)
    return [indices[start : start + sampler.batch_size] for start in range(0, len(indices), sampler.batch_size)]


def test_batches_hold_m_images_of_every_class() -> None:
    seen = set()
    for batch in _batches(MPerClassSampler(UNEVEN, m=4, batch_size=12, length=200)):
        labels, counts = UNEVEN[batch].unique(return_counts=True)
        assert counts.tolist() == [4] * 3
        for label in labels.tolist():
            drawn = {index for index in batch if UNEVEN[index] == label}
            assert len(drawn) == min(4, int((label == UNEVEN).sum())), "it repeats images only where it must"
        seen.update(batch)
    assert seen == set(range(len(UNEVEN))), "every class and image has its turn"


def test_every_class_has_the_same_chance() -> None:
    drawn = UNEVEN[list(MPerClassSampler(UNEVEN, m=1, batch_size=1, length=5000))]
    _, counts = drawn.unique(return_counts=True)
    assert ((counts / 5000 - 0.2).abs() < 4 * (0.2 * 0.8 / 5000) ** 0.5).all()  # four standard errors


def test_the_seed_decides_and_epochs_continue() -> None:
    def two_epochs(seed: int) -> tuple[list[int], list[int]]:
        sampler = MPerClassSampler(UNEVEN, m=2, batch_size=4, length=40, seed=seed)
        return list(sampler), list(sampler)

    assert two_epochs(1) == two_epochs(1) != two_epochs(2)
    first, second = two_epochs(1)
    assert first != second


def test_epochs_are_whole_batches_as_long_as_asked() -> None:
    assert len(MPerClassSampler(UNEVEN, m=2, batch_size=8, length=30)) == 24
    assert len(MPerClassSampler(UNEVEN, m=2, batch_size=4)) == 20  # of 23 images
    assert len(NPairSampler(UNEVEN, n_classes=4)) == 16
    assert len(MPerClassSampler(torch.tensor([0, 1]), m=4, batch_size=8)) == 8  # at least one batch


def test_classes_that_repeat_images_are_said() -> None:
    for m, words in ((4, "2 classes have fewer images and repeat them)"), (2, "1 class has fewer images"), (1, "")):
        told = repr(MPerClassSampler(UNEVEN, m=m, batch_size=4))
        assert words in told
        assert ("repeat" in told) == (m > 1)


def test_n_pair_batches_hold_images_in_pairs() -> None:
    drawn = set()
    for batch in _batches(NPairSampler(UNEVEN, n_classes=4, length=1000)):
        labels = UNEVEN[batch]
        assert torch.equal(labels[::2], labels[1::2])
        assert len(labels.unique()) == 4
        assert len(set(batch)) == 8
        drawn.update(batch)
    assert drawn == set(range(22))  # the last image is the only one of its class


def sample(m: Any, batch_size: int, length: int, labels: torch.Tensor = UNEVEN) -> Any:
    return lambda: MPerClassSampler(labels, m, batch_size, length)


test_batches_that_cannot_be_made_are_refused = refusals(
    (sample(4, 24, 24), ValueError, "needs 6 classes, the labels hold 5"),
    (sample(3, 8, 24), ValueError, "multiple of m, got batch_size=8 and m=3"),
    (sample(0, 8, 24), ValueError, "multiple of m"),
    (sample(2, 8, 7), ValueError, "length must be at least batch_size=8, got 7"),
    (sample(2.0, 8, 8), ValueError, "m, batch_size and length must be whole numbers, got 2.0, 8 and 8"),
    (sample(1, 1, 1, torch.ones(4)), ValueError, "row of integers"),
    (sample(1, 1, 1, torch.ones(2, 2, dtype=torch.long)), ValueError, "row of integers"),
    (lambda: NPairSampler(UNEVEN, n_classes=5), ValueError, "needs 5 classes with two images or more, .* hold 4"),
    (lambda: NPairSampler(UNEVEN, n_classes=1), ValueError, "n_classes must be at least 2, got 1"),
)
