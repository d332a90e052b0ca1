"""Batches of m images a class, and of N pairs."""

import pytest
import torch

from snrlib.sampling import MPerClassSampler, NPairSampler

UNEVEN = torch.tensor([0] * 9 + [1] * 2 + [2] * 4 + [5] * 7 + [9] * 1)


def _batches(sampler: MPerClassSampler) -> list[list[int]]:
    indices = list(sampler)
    return [indices[start : start + sampler.batch_size] for start in range(0, len(indices), sampler.batch_size)]


def test_every_batch_holds_the_asked_number_of_classes_with_m_images_each() -> None:
    for batch in _batches(MPerClassSampler(UNEVEN, m=4, batch_size=12, length=120)):
        _, counts = UNEVEN[batch].unique(return_counts=True)
        assert counts.tolist() == [4, 4, 4]


def test_a_class_repeats_images_only_if_it_has_fewer_than_m() -> None:
    for batch in _batches(MPerClassSampler(UNEVEN, m=4, batch_size=20, length=200)):
        for label, members in ((0, 4), (1, 2), (2, 4), (5, 4), (9, 1)):
            drawn = [index for index in batch if UNEVEN[index] == label]
            assert len(drawn) == 4
            assert len(set(drawn)) == members


def test_an_epoch_is_length_indices_in_whole_batches() -> None:
    sampler = MPerClassSampler(UNEVEN, m=2, batch_size=8, length=30)
    assert len(sampler) == len(list(sampler)) == 24


def test_the_seed_decides_the_sequence_and_a_second_epoch_continues_it() -> None:
    def two_epochs(seed: int) -> tuple[list[int], list[int]]:
        sampler = MPerClassSampler(UNEVEN, m=2, batch_size=4, length=40, seed=seed)
        return list(sampler), list(sampler)

    assert two_epochs(1) == two_epochs(1)
    assert two_epochs(1) != two_epochs(2)
    first, second = two_epochs(1)
    assert first != second


def test_every_class_and_image_has_its_turn() -> None:
    assert set(MPerClassSampler(UNEVEN, m=2, batch_size=4, length=800)) == set(range(len(UNEVEN)))


def test_every_class_has_the_same_chance_whatever_its_size() -> None:
    drawn = UNEVEN[list(MPerClassSampler(UNEVEN, m=1, batch_size=1, length=5000))]
    _, counts = drawn.unique(return_counts=True)
    assert ((counts / 5000 - 0.2).abs() < 4 * (0.2 * 0.8 / 5000) ** 0.5).all()  # four standard errors


def test_an_epoch_is_as_long_as_the_data_unless_said_otherwise() -> None:
    assert len(MPerClassSampler(UNEVEN, m=2, batch_size=4)) == 20  # 23 images, whole batches
    assert len(NPairSampler(UNEVEN, n_classes=4)) == 16
    assert len(MPerClassSampler(torch.tensor([0, 1]), m=4, batch_size=8)) == 8  # at least one batch


def test_classes_that_repeat_images_are_said() -> None:
    assert "; 2 classes have fewer images and repeat them)" in repr(MPerClassSampler(UNEVEN, m=4, batch_size=8))
    assert "; 1 class has fewer images and repeats them)" in repr(MPerClassSampler(UNEVEN, m=2, batch_size=8))
    assert repr(MPerClassSampler(UNEVEN, m=1, batch_size=2)) == (
        "MPerClassSampler(2 of 5 classes x 1 images = 2 a batch, 11 batches an epoch)"
    )


def test_an_n_pair_batch_holds_two_different_images_of_every_class_side_by_side() -> None:
    for batch in _batches(NPairSampler(UNEVEN, n_classes=4, length=160)):
        labels = UNEVEN[batch]
        assert torch.equal(labels[::2], labels[1::2])
        assert len(labels.unique()) == 4
        assert len(set(batch)) == 8


def test_n_pair_batches_leave_out_classes_of_one_image_and_give_all_others_their_turn() -> None:
    drawn = set(NPairSampler(UNEVEN, n_classes=2, length=1000))
    assert drawn == set(range(22))  # the last image is the only one of its class


def test_n_pair_batches_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 5 classes with two images or more, the labels hold 4"):
        NPairSampler(UNEVEN, n_classes=5)
    with pytest.raises(ValueError, match="n_classes must be at least 2, got 1"):
        NPairSampler(UNEVEN, n_classes=1)


def test_it_feeds_a_data_loader() -> None:
    sampler = MPerClassSampler(UNEVEN, m=2, batch_size=6, length=60)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(UNEVEN), batch_size=6, sampler=sampler)
    assert all(len(labels.unique()) == 3 for (labels,) in loader)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"m": 4, "batch_size": 24, "length": 24}, "needs 6 classes, the labels hold 5"),
        ({"m": 3, "batch_size": 8, "length": 24}, "multiple of m, got batch_size=8 and m=3"),
        ({"m": 0, "batch_size": 8, "length": 24}, "multiple of m"),
        ({"m": 2, "batch_size": 8, "length": 7}, "length must be at least batch_size=8, got 7"),
        ({"m": 2.0, "batch_size": 8, "length": 8}, "m, batch_size and length must be whole numbers, got 2.0, 8 and 8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MPerClassSampler(UNEVEN, **arguments)


@pytest.mark.parametrize("labels", [torch.ones(4), torch.ones(2, 2, dtype=torch.long)])
def test_labels_must_be_a_row_of_integers(labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="row of integers"):
        MPerClassSampler(labels, 1, 1, 1)
