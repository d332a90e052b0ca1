"""The numbers of a training: which are refused, with which words, and that keywords are the same."""

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest
from training_cases import images, losses, network

from snrlib.train import Recipe, train

COUNTS = ("steps", "batch_size", "m", "every", "patience")


@pytest.mark.parametrize(
    ("names", "wanted", "outside"),
    [
        (COUNTS, "a whole number of at least 1", [0, -1]),
        (("seed",), "a whole number from 0 to 2**64 - 1", [-1, 2**64]),
        (("learning_rate", "clip"), "a finite number above 0", [0, -1.0, math.nan, math.inf]),
        (("trunk_learning_rate", "weight_decay"), "a finite number of at least 0", [-1e-9, math.nan, math.inf]),
        (("warm_up",), "a number above 0 and below 1", [0.0, 1.0, math.nan]),
    ],
)
def test_a_recipe_says_which_number_it_wants(names: tuple[str, ...], wanted: str, outside: list) -> None:
    no_numbers: list[Any] = ["1", True, [1], 1j]
    if "whole" in wanted:
        no_numbers += [2.0, math.nan]
    for name in names:
        for error, values in ((ValueError, outside), (TypeError, no_numbers)):
            for value in values:
                with pytest.raises(error, match=re.escape(f"{name} must be {wanted}, got {value!r}")):
                    Recipe(**{name: value})


def test_a_recipe_is_keywords_by_another_name() -> None:
    four: Any = np.int64(4)
    recipe = Recipe(steps=four, batch_size=16, learning_rate=0.01, clip=1)
    assert recipe == Recipe(batch_size=16, learning_rate=0.01, clip=1.0, steps=4)
    assert (type(recipe.steps), type(recipe.clip)) == (int, float), "plain numbers, whatever they were"
    first = train(network(), images(), losses("snr"), recipe, seed=1)
    second = train(network(), images(), losses("snr"), steps=4, batch_size=16, learning_rate=0.01, clip=1, seed=1)
    assert first.loss.tolist() == second.loss.tolist()
    assert all(f"``{field.name}``" in (train.__doc__ or "") for field in dataclasses.fields(Recipe))
