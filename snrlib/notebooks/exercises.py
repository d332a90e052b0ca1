"""Check an answer to an exercise: not attempted, right, or wrong with the likely mistake."""

from __future__ import annotations

import ast
import base64
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["Failed", "Verdict", "attempt", "check", "packed", "run_packed"]


@dataclass(frozen=True)
class Verdict:
    """The outcome of an exercise; a notebook shows it as a sentence."""

    outcome: Literal["not attempted", "right", "wrong"]
    message: str

    def __repr__(self) -> str:
        return self.message

    @property
    def right(self) -> bool:
        """Whether the answer is right."""
        return self.outcome == "right"


@dataclass(frozen=True)
class Failed:
    """What a student's function did instead of returning something; ``begun`` is False while it is still a stub."""

    message: str
    begun: bool = True


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a student's function returns, for `check`; a `Failed` instead of an error.

    >>> def stub(x):
    ...     raise NotImplementedError
    >>> check(attempt(stub, 1), 2)
    Not attempted yet: write the function.
    >>> check(attempt(lambda x: x / 0, 1), 2)
    Not yet: it raises ZeroDivisionError: division by zero.
    >>> check(attempt(lambda x: None, 1), 2)
    Not yet: it returns nothing.
    """
    try:
        found = function(*arguments)
    except NotImplementedError:
        return Failed("write the function.", begun=False)
    except Exception as error:
        return Failed(f"it raises {type(error).__name__}: {error}.")
    return Failed("it returns nothing.") if found is None else found


def check(answer: Any, expected: Any, mistakes: Mapping[str, Any] | None = None, tolerance: float = 1e-3) -> Verdict:
    """Compare an answer with the expected one.

    Args:
        answer: a number, array or tensor, a string or a bool, or what `attempt` gives; None means not attempted.
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
    if isinstance(answer, Failed):
        if answer.begun:
            return Verdict("wrong", f"Not yet: {answer.message}")
        return Verdict("not attempted", f"Not attempted yet: {answer.message}")
    if _same(answer, expected, tolerance):
        return Verdict("right", "Right.")
    for hint, wrong in (mistakes or {}).items():
        if _same(answer, wrong, tolerance):
            return Verdict("wrong", f"Not yet: {hint}")
    shape, wanted = _shape(answer), _shape(expected)
    if shape is not None and wanted is not None and shape != wanted:
        return Verdict("wrong", f"Not yet: it has the shape {shape}, expected is {wanted}.")
    return Verdict("wrong", f"Not yet: got {answer!r}. Read the question once more.")


def packed(source: str) -> str:
    """The code of a check, so that nobody reads the answer in it by accident. It is no secret: see `run_packed`."""
    return base64.b85encode(zlib.compress(source.encode(), 9)).decode()


def run_packed(code: str, names: dict[str, Any]) -> Any:
    r"""Run a packed check and give what its last line is worth.

    Args:
        code: as `packed` gives it.
        names: the variables of the notebook, ``globals()``.

    >>> run_packed(packed("y = x + 1\ny * 2"), {"x": 2})
    6
    """
    body = ast.parse(zlib.decompress(base64.b85decode(code)))
    last = body.body.pop()
    exec(compile(body, "<check>", "exec"), names)
    return eval(compile(ast.Expression(last.value), "<check>", "eval"), names)  # type: ignore[attr-defined]


def _shape(answer: Any) -> tuple[int, ...] | None:
    """Of what is made of numbers; None of anything else."""
    try:
        return np.asarray(_plain(answer), dtype=float).shape
    except (TypeError, ValueError):
        return None


def _plain(value: Any) -> Any:
    """A tensor without its gradient; the element itself if there is only one."""
    if hasattr(value, "detach"):
        value = value.detach()
    if hasattr(value, "item") or isinstance(value, list | tuple):
        try:
            array = np.asarray(value)
        except ValueError:  # parts of different shapes
            return value
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
