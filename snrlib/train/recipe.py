"""The numbers of a training, checked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from numbers import Integral, Real
from typing import Any, Literal

import torch

from snrlib.utils.checks import check_choice, has_bfloat16

__all__ = ["PRECISIONS", "Recipe", "fastest_precision"]

PRECISIONS: tuple[str, ...] = ("auto", "float32", "bfloat16", "float16")


def fastest_precision(device: torch.device | str = "cpu") -> str:
    """bfloat16 where a GPU or processor has instructions for it, else float16 on CUDA and float32 on a processor."""
    if torch.device(device).type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
    return "bfloat16" if has_bfloat16() else "float32"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained: every number and choice that decides which weights come out.

    Args:
        steps: batches.
        batch_size: images per batch, a multiple of m; under ``torchrun``, of all processes together.
        m: images per class and batch.
        optimizer: AdamW, or SGD with momentum. One-cycle moves the momentum (AdamW's first beta) against the learning
            rate, from 0.95 to 0.85 and back.
        learning_rate: at the peak, of the head and of the loss; above 0.
        trunk_learning_rate: of the trunk of an `Embedder`; None is the same.
        weight_decay: of the optimizer, at least 0.
        warm_up: the share of the steps in which the learning rate rises, above 0 and below 1.
        clip: the largest length of the gradient of all parameters, to which a longer one is scaled; None does not.
        precision: in which the trunk of an `Embedder` (of another network, all of it) computes where that is safe:
            "float32", "bfloat16" or, on CUDA, "float16"; "auto" is the fastest of them that the device computes with
            (`fastest_precision`). Weights, embeddings, distances and losses are float32 always. With "float32" AdamW
            takes its steps one tensor at a time, to the bits of earlier versions; else fused.
        every: steps between two judgements of the validation images, and between two checkpoints.
        patience: judgements without a new best score after which training stops; None never stops early.
        seed: of the batches, of dropout and of augmentation.

    Raises:
        TypeError: a value of another type; strings and booleans are no numbers.
        ValueError: a number out of its range, NaN, or an unknown optimizer. Both say what was expected.

    >>> Recipe(steps=100, learning_rate=1e-3).batch_size
    128
    >>> Recipe(steps=0)
    Traceback (most recent call last):
    ValueError: steps must be a whole number of at least 1, got 0
    """

    steps: int = 200
    batch_size: int = 128
    m: int = 4
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 4e-3
    trunk_learning_rate: float | None = None
    weight_decay: float = 0.01
    warm_up: float = 0.3
    clip: float | None = None
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    every: int = 50
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self.optimizer, "optimizer", ("adamw", "sgd"))
        check_choice(self.precision, "precision", PRECISIONS)
        for name, rule in _RULES.items():
            value = getattr(self, name)
            if value is None and getattr(Recipe, name) is None:  # by default, so that None is meant
                continue
            object.__setattr__(self, name, rule.checked(name, value))


@dataclass(frozen=True)
class _Rule:
    """What a value must be: its type, its range in words, and the range as a test, which NaN does not pass."""

    kind: Callable[[Any], int | float]
    words: str
    fits: Callable[[Any], bool]

    def checked(self, name: str, value: Any) -> int | float:
        """The value as a plain number, since a checkpoint holds no NumPy."""
        number = Integral if self.kind is int else Real
        message = f"{name} must be {self.words}, got {value!r}"
        if not isinstance(value, number) or isinstance(value, bool):
            raise TypeError(message)
        if not self.fits(value):
            raise ValueError(message)
        return self.kind(value)


_COUNT = _Rule(int, "a whole number of at least 1", lambda x: x >= 1)
_POSITIVE = _Rule(float, "a finite number above 0", lambda x: 0 < x < inf)
_NOT_NEGATIVE = _Rule(float, "a finite number of at least 0", lambda x: 0 <= x < inf)
_RULES: dict[str, _Rule] = {
    "steps": _COUNT,
    "batch_size": _COUNT,
    "m": _COUNT,
    "learning_rate": _POSITIVE,
    "trunk_learning_rate": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "warm_up": _Rule(float, "a number above 0 and below 1", lambda x: 0 < x < 1),
    "clip": _POSITIVE,
    "every": _COUNT,
    "patience": _COUNT,
    "seed": _Rule(int, "a whole number from 0 to 2**64 - 1", lambda x: 0 <= x < 2**64),
}
