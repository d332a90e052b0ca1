"""Three outcomes of an exercise."""

from typing import Any

import numpy as np
import pytest
import torch

from snrlib.notebooks.exercises import check

RIGHT: list[tuple[Any, Any]] = [
    *((2, 2.0), (2.0005, 2), ([2.0], 2.0), ("Query ", "query"), (True, True), (np.True_, True)),
    *((torch.tensor(2.0), 2.0), (torch.tensor([2.0], requires_grad=True), 2.0), ([1, 2], np.array([1.0, 2.0]))),
]
WRONG: list[tuple[Any, Any]] = [
    *((2.1, 2.0), ([2.0, 2.0], 2.0), ("ref", "query"), (1, True), ("2", 2), (float("nan"), 2.0), (0.0005, 0.002)),
]


@pytest.mark.parametrize(("answer", "expected"), RIGHT)
def test_a_right_answer_is_right_however_spelled(answer: Any, expected: Any) -> None:
    verdict = check(answer, expected)
    assert (verdict.outcome, repr(verdict)) == ("right", "Right.")


@pytest.mark.parametrize(("answer", "expected"), WRONG)
def test_a_wrong_answer_is_wrong(answer: Any, expected: Any) -> None:
    assert check(answer, expected).outcome == "wrong"


def test_no_answer_is_not_wrong_mistakes_get_hints() -> None:
    assert check(None, 2.0).outcome == "not attempted"
    verdict = check(4.0, 2.0, {"half of it?": 1.0, "the square?": 4.0})
    assert (verdict.outcome, repr(verdict)) == ("wrong", "Not yet: the square?")
