"""Check an answer to an exercise: not attempted, right, or wrong with the likely mistake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["Verdict", "check"]


@dataclass(frozen=True)
class Verdict:
    """The outcome of an exercise; a notebook shows it as a sentence."""

    outcome: Literal["not attempted", "right", "wrong"]
    message: str

    def __repr__(self) -> str:
        return self.message


def check(answer: Any, expected: Any, mistakes: Mapping[str, Any] | None = None, tolerance: float = 1e-3) -> Verdict:
    """Compare an answer with the expected one.

    Args:
        answer: a number, array or tensor, a string or a bool; None means not attempted.
        expected: of the same kind.
        mistakes: hints to the wrong answers that they explain, tried in order.
        tolerance: for numbers, relative above 1 and absolute below.

    >>> check(None, 2.0)
    Not attempted yet: replace None by your answer.
    >>> check(1.0, 2.0, {"the square root of it?": 1.0})
    Not yet: the square root of it?
    """
    if answer is None:
        return Verdict("not attempted", "Not attempted yet: replace None by your answer.")
    if _same(answer, expected, tolerance):
        return Verdict("right", "Right.")
    for hint, wrong in (mistakes or {}).items():
        if _same(answer, wrong, tolerance):
            return Verdict("wrong", f"Not yet: {hint}")
    return Verdict("wrong", f"Not yet: got {answer!r}. Read the question once more.")


def _plain(value: Any) -> Any:
    """A tensor without its gradient; the element itself if there is only one."""
    if hasattr(value, "detach"):
        value = value.detach()
    if hasattr(value, "item") or isinstance(value, list | tuple):
        array = np.asarray(value)
        return array.item() if array.size == 1 else value
    return value


def _same(a: Any, b: Any, tolerance: float) -> bool:
    a, b = _plain(a), _plain(b)
    if isinstance(a, str | bool) or isinstance(b, str | bool):
        return type(a) is type(b) and (a.strip().lower() == b.strip().lower() if isinstance(a, str) else a == b)
    try:
        a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    except (TypeError, ValueError):
        return False
    return a.shape == b.shape and bool(np.all(np.abs(a - b) <= tolerance * np.maximum(1, np.abs(b))))
