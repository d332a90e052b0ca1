"""Three outcomes of an exercise."""

import numpy as np
import pytest
import torch

from snrlib.notebooks.exercises import check


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (2, 2.0),
        (2.0005, 2),
        (torch.tensor(2.0), 2.0),
        ([1, 2], np.array([1.0, 2.0])),
        ("Query ", "query"),
        (True, True),
        (np.True_, True),
        ([2.0], 2.0),
        (torch.tensor([2.0], requires_grad=True), 2.0),
    ],
)
def test_a_right_answer_is_right_in_any_spelling(answer: object, expected: object) -> None:
    verdict = check(answer, expected)
    assert (verdict.outcome, repr(verdict)) == ("right", "Right.")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(2.1, 2.0), ([2.0, 2.0], 2.0), ("ref", "query"), (1, True), ("2", 2), (float("nan"), 2.0), (0.0005, 0.002)],
)
def test_a_wrong_answer_is_wrong(answer: object, expected: object) -> None:
    assert check(answer, expected).outcome == "wrong"


def test_no_answer_is_not_a_wrong_one() -> None:
    assert check(None, 2.0).outcome == "not attempted"


def test_a_likely_mistake_gets_its_hint() -> None:
    verdict = check(4.0, 2.0, {"half of it?": 1.0, "the square?": 4.0})
    assert (verdict.outcome, repr(verdict)) == ("wrong", "Not yet: the square?")
