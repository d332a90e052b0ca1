"""What is refused at the public edge; the embeddings' own cases stand in test_distances.py."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from snrlib.backbones import embedder
from snrlib.data import load
from snrlib.distances import get_distance
from snrlib.losses import get_loss
from snrlib.utils.checks import check_choice, check_embeddings, check_labels, check_number


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_becomes_float32_and_float64_stays(dtype: torch.dtype) -> None:
    assert check_embeddings(torch.ones(2, 3, dtype=dtype)).dtype == torch.float32
    assert check_embeddings(torch.ones(2, 3, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_embeddings_that_would_overflow_are_refused(dtype: torch.dtype) -> None:
    limit = (torch.finfo(dtype).max / (4 * 8)) ** 0.5
    x = torch.full((2, 8), 0.999 * limit, dtype=dtype)
    x[1] *= -1
    checked = check_embeddings(x)
    assert torch.isfinite((checked[0] - checked[1]).square().sum())
    with pytest.raises(ValueError, match=r"embeddings must be at most .* in size, or torch.float\d+ overflows; got"):
        check_embeddings(1.01 * x)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 1], TypeError, r"labels must be a torch\.Tensor of integers, got"),
        (np.array([0, 1]), TypeError, r"labels must be a torch\.Tensor of integers, got"),
        (torch.zeros(2), ValueError, r"labels must be 2 integers, got torch\.float32 of shape"),
        (torch.zeros(2, dtype=torch.bool), ValueError, r"labels must be 2 integers, got torch\.bool of shape"),
        (torch.zeros(1, 2).long(), ValueError, r"labels must be 2 integers, got torch\.int64 of shape \(1, 2\)"),
        (torch.arange(3), ValueError, r"labels must be 2 integers, got torch\.int64 of shape \(3,\)"),
    ],
)
def test_labels_must_be_integers_one_per_embedding(labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_labels(labels, 2)
    with pytest.raises(ValueError, match=r"labels must be a row of integers, got torch\.float32"):
        check_labels(torch.zeros(2))
    right = torch.arange(2, dtype=torch.int32)
    assert check_labels(right, 2) is right


@pytest.mark.parametrize("value", [True, None, "1", float("nan"), float("inf"), 1j, torch.tensor(1.0)])
def test_a_number_must_be_finite_and_real(value: object) -> None:
    with pytest.raises(ValueError, match="margin must be a finite number, got"):
        check_number(value, "margin")


def test_a_number_comes_back_as_float_above_bound() -> None:
    assert check_number(np.float32(0.5), "margin", above=0) == 0.5
    assert type(check_number(2, "margin")) is float
    with pytest.raises(ValueError, match="margin must be a finite number above 0, got 0"):
        check_number(0, "margin", above=0)


def test_a_choice_must_be_one_of_the_choices() -> None:
    assert check_choice("b", "letter", ("a", "b")) == "b"
    with pytest.raises(ValueError, match="letter must be one of a, b, got 'c'"):
        check_choice("c", "letter", ("a", "b"))
    values: Any = (["a"], {"a"}, None, 3)
    for value in values:
        with pytest.raises(ValueError, match="letter must be one of a, b, got"):
            check_choice(value, "letter", ("a", "b"))
        for choose in (get_distance, partial(get_loss, distance=get_distance("snr")), load, embedder):
            with pytest.raises(ValueError, match=r"choose from|must be one of"):
                choose(value)
