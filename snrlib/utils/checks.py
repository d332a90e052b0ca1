"""Checks made once at the public edge; their errors name what was given and what was expected."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Real
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_choice", "check_embeddings", "check_labels", "check_number"]


def check_embeddings(x: Any, name: str = "embeddings") -> Tensor:
    """Refuse anything but a finite, non-empty floating-point tensor of shape (n, M); return it in compute precision.

    float64 stays float64; float32, bfloat16 and float16 are computed in float32.

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
    low, high = (bound.item() for bound in torch.aminmax(x.detach()))  # one pass; NaN comes through both
    largest = max(-low, high)
    limit = (torch.finfo(computed.dtype).max / (4 * x.shape[1])) ** 0.5  # (b - a)^2 is at most 4 M largest^2
    if largest <= limit:
        return computed
    bad = int((~torch.isfinite(x)).any(dim=1).sum())
    if bad:
        raise ValueError(f"{name} must be finite, got NaN or infinity in {bad} of {len(x)} rows")
    raise ValueError(f"{name} must be at most {limit:.1e} in size, or {computed.dtype} overflows; got {largest:.1e}")


def check_labels(labels: Any, n: int | None = None) -> Tensor:
    """Refuse anything but a row of integers, ``n`` of them if given.

    Raises:
        TypeError: not a tensor.
        ValueError: not 1-D, not integers, or of another length.
    """
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a torch.Tensor of integers, got {type(labels).__name__}")
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not whole or labels.ndim != 1 or (n is not None and len(labels) != n):
        wanted = "a row of integers" if n is None else f"{n} integers"
        raise ValueError(f"labels must be {wanted}, got {labels.dtype} of shape {tuple(labels.shape)}")
    return labels


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


def check_choice(value: Any, name: str, choices: Collection[str]) -> str:
    """One of the choices.

    Raises:
        ValueError: anything else.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value
