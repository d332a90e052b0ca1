"""Checks made once at the public edge; their errors name what was given and what was expected."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "as_labels",
    "check_choice",
    "check_class_labels",
    "check_embeddings",
    "check_flag",
    "check_labels",
    "check_number",
    "check_rank",
    "check_spread",
    "has_bfloat16",
    "is_traced",
    "largest_embedding",
]


def has_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def check_embeddings(x: Any, name: str = "embeddings") -> Tensor:
    """Refuse anything but a finite, non-empty floating-point tensor of shape (n, M); return it in compute precision.

    float64 stays float64; float32, bfloat16 and float16 are computed in float32. While a graph is traced, or under a
    transform of `torch.func`, there are no numbers to look at, and none is refused.

    Raises:
        TypeError: not a tensor, or not floating point.
        ValueError: not 2-D, empty, not finite, or so large that squared lengths overflow.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape (n, M), got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {x.dtype}")
    if x.ndim != 2:
        raise ValueError(f"{name} must be 2-D of shape (n, M), got shape {tuple(x.shape)}")
    if x.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(x.shape)}")
    computed = x if x.dtype == torch.float64 else x.float()
    if is_traced(x):
        return computed
    low, high = (bound.item() for bound in torch.aminmax(x.detach()))  # one pass; NaN comes through both
    largest = max(-low, high)
    limit = largest_embedding(computed)
    if largest <= limit:
        return computed
    bad = int((~torch.isfinite(x)).any(dim=1).sum())
    if bad:
        raise ValueError(f"{name} must be finite, got NaN or infinity in {bad} of {len(x)} rows")
    raise ValueError(f"{name} must be at most {limit:.1e} in size, or {computed.dtype} overflows; got {largest:.1e}")


def check_spread(x: Tensor, name: str = "embeddings") -> None:
    """Refuse embeddings (n, M) that no distance can tell apart.

    Raises:
        ValueError: all are the same, or differ by so little that the square of it vanishes.
    """
    widest = float((x.amax(dim=0) - x.amin(dim=0)).max())
    if widest**2 < 1e3 * torch.finfo(x.dtype).tiny:
        what = "are all the same" if not widest else f"differ by {widest:.2g} at most, of which the square vanishes"
        raise ValueError(f"the {name} {what}: no distance can tell them apart")


def largest_embedding(x: Tensor) -> float:
    """The largest size of a component of embeddings (n, M) at which squared distances do not overflow."""
    return (torch.finfo(x.dtype).max / (4 * x.shape[1])) ** 0.5  # (b - a)^2 is at most 4 M largest^2


def is_traced(x: Tensor) -> bool:
    """Whether it stands for numbers that cannot be asked for: under torch.compile, torch.export and torch.func."""
    return torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(x)


def check_labels(labels: Any, n: int | None = None, name: str = "labels") -> Tensor:
    """Refuse anything but a row of integers, ``n`` of them if given.

    Raises:
        TypeError: not a tensor.
        ValueError: not 1-D, not integers, or of another length.
    """
    if not isinstance(labels, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of integers, got {type(labels).__name__}")
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not whole or labels.ndim != 1 or (n is not None and len(labels) != n):
        wanted = "a row of integers" if n is None else f"{n} integers"
        raise ValueError(f"{name} must be {wanted}, got {labels.dtype} of shape {tuple(labels.shape)}")
    return labels


def check_class_labels(labels: Any, n: int, n_classes: int) -> Tensor:
    """Refuse anything but n integers from 0 to n_classes - 1: those of training classes, one proxy or neuron for each.

    While a graph is traced there are no numbers to look at, and none is refused.

    Raises:
        TypeError: not a tensor.
        ValueError: not 1-D, not integers, of another length, or out of the range.
    """
    labels = check_labels(labels, n)
    if not is_traced(labels) and not 0 <= labels.min() <= labels.max() < n_classes:
        low, high = labels.min().item(), labels.max().item()
        raise ValueError(f"labels must be from 0 to {n_classes - 1}, one for each class, got {low} to {high}")
    return labels


def as_labels(labels: Any, n: int, reference: Any = None, n_reference: int = 0) -> tuple[Tensor, Tensor]:
    """Labels of queries and of references as integers, the same number for the same label.

    Args:
        labels: n of them: a tensor, an array, a Series or a list, of integers or of strings.
        n: how many are expected.
        reference: the same of the references; None takes ``labels`` themselves.
        n_reference: how many are expected.

    Raises:
        TypeError: no row of labels.
        ValueError: neither integers nor strings, one label missing, or another number of them.
    """
    if reference is None:
        codes = _codes([(labels, n, "labels")])
        return codes[0], codes[0]
    first, second = _codes([(labels, n, "labels"), (reference, n_reference, "reference_labels")])
    return first, second


def _codes(given: list[tuple[Any, int, str]]) -> list[Tensor]:
    if all(isinstance(labels, Tensor) for labels, *_ in given):
        return [check_labels(labels, n) for labels, n, _ in given]
    rows = []
    for labels, n, name in given:
        if isinstance(labels, str | bytes) or not hasattr(labels, "__len__"):
            raise TypeError(f"{name} must be a tensor, an array or a list of labels, got {type(labels).__name__}")
        row = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
        if row.dtype == object and all(isinstance(label, str) for label in row):
            row = row.astype(str)
        if row.shape != (n,) or row.dtype.kind not in "iuUST":
            raise ValueError(f"{name} must be {n} integers or strings, got {row.dtype} of shape {row.shape}")
        rows.append(row)
    if len({row.dtype.kind in "iu" for row in rows}) > 1:
        raise ValueError("labels and reference_labels must both be integers or both strings")
    _, codes = np.unique(np.concatenate(rows), return_inverse=True)
    return list(torch.from_numpy(codes.astype(np.int64)).split([len(row) for row in rows]))


def check_number(
    value: Any, name: str, *, above: float = -math.inf, at_least: float = -math.inf, at_most: float = math.inf
) -> float:
    """A finite number within the bounds, as float.

    Raises:
        ValueError: anything else.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and above < value and at_least <= value <= at_most:
        return float(value)
    bounds = {"above": above, "at least": at_least, "at most": at_most}
    stated = " and ".join(f"{words} {bound:g}" for words, bound in bounds.items() if math.isfinite(bound))
    raise ValueError(f"{name} must be a finite number {stated}".rstrip() + f", got {value!r}")


def check_rank(value: Any, name: str, most: int, what: str) -> int:
    """An integer from 1 to ``most``, which is the ``what`` of the message.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= most:
        return int(value)
    raise ValueError(f"{name} must be an integer from 1 to {most}, the {what}, got {value!r}")


def check_choice(value: Any, name: str, choices: Collection[str]) -> str:
    """One of the choices.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value


def check_flag(value: Any, name: str) -> bool:
    """True or False.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, bool):
        return value
    raise ValueError(f"{name} must be True or False, got {value!r}")
