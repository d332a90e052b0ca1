"""The process in which a submission runs: it obeys one order a line and answers with plain data, whatever the code is.

It holds no check and no expected value. So a student's code can at most give other data, which is what it is asked for.
Orders and answers are JSON: ``{"run": code}``, ``{"get": name}``, ``{"call": name, "arguments": [...]}`` are answered
by ``{"value": ...}`` or ``{"error": text}``.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any

import numpy as np

__all__ = ["from_plain", "main", "to_plain"]

_DTYPES = ("float32", "float64", "int32", "int64", "bool")


def to_plain(value: Any) -> Any:
    """What JSON can hold, for a number, a text, an array or a tensor, or a list of these; else the name of its type.

    >>> to_plain(np.array([1.5, 2.0]))
    {'array': [1.5, 2.0], 'shape': [2], 'dtype': 'float64', 'tensor': False}
    >>> to_plain(object())
    {'other': 'object'}
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [to_plain(one) for one in value]
    tensor = hasattr(value, "detach")
    array = value.detach().cpu().numpy() if tensor else value
    if isinstance(array, np.ndarray | np.generic) and array.dtype.name in _DTYPES:
        return {
            "array": array.ravel().tolist(),
            "shape": list(array.shape),
            "dtype": array.dtype.name,
            "tensor": tensor,
        }
    if callable(value):
        return {"function": True}
    return {"other": type(value).__name__[:100]}


def from_plain(value: Any) -> Any:
    """The number, text, array, tensor or list again.

    Raises:
        ValueError: it is none of these, or damaged.

    >>> from_plain(to_plain(np.arange(6.0).reshape(2, 3))).shape
    (2, 3)
    """
    if isinstance(value, list):
        return [from_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != {"array", "shape", "dtype", "tensor"} or value["dtype"] not in _DTYPES:
        raise ValueError(f"it gives a {value.get('other', 'thing')!s:.100}, not numbers or text")
    try:
        array = np.array(value["array"], dtype=value["dtype"]).reshape(value["shape"])
    except (TypeError, OverflowError) as error:
        raise ValueError(f"it gives numbers that cannot be: {error}") from None
    if value["tensor"]:
        import torch  # here, since most exercises need numpy alone

        return torch.from_numpy(array)
    return array


def _limit(memory: int, file_size: int, processes: int) -> None:
    """Bound what this process and its children may take, for good."""
    if sys.platform != "win32":  # where nobody comes here, see `snrlib.teach.walls.check_limits`
        import resource

        for kind, most in (
            (resource.RLIMIT_AS, memory),
            (resource.RLIMIT_FSIZE, file_size),
            (resource.RLIMIT_NPROC, processes),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(kind, (most, most))


def _obey(order: dict[str, Any], names: dict[str, Any]) -> Any:
    if "run" in order:
        exec(compile(order["run"], "<cell>", "exec"), names)
        return None
    if "get" in order:
        return to_plain(names[order["get"]])
    return to_plain(names[order["call"]](*(from_plain(one) for one in order["arguments"])))


def main() -> None:
    """Obey until there are no more orders. What the code prints goes nowhere."""
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    _limit(*map(int, sys.argv[1:]))
    names: dict[str, Any] = {"__name__": "__main__"}
    for line in orders:
        try:
            answer = {"value": _obey(json.loads(line), names)}
            text = json.dumps(answer)
        except NotImplementedError:
            text = json.dumps({"stub": True})
        except BaseException as error:
            said = "of which nothing is known"
            with suppress(Exception):  # its own __str__ may raise
                said = f"{type(error).__name__}: {error}"[:300]
            text = json.dumps({"error": said})
        answers.write(text.encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
