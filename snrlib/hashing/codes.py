"""Binary codes: the sign of every component, eight to a byte, and the Hamming distance between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snrlib.utils.checks import check_embeddings

__all__ = ["check_codes", "hamming", "pack", "unpack"]

_PLACES = (128, 64, 32, 16, 8, 4, 2, 1)  # the first bit is the highest of its byte, as in numpy.packbits


def pack(relaxed: Tensor) -> Tensor:
    """The codes of relaxed ones: a bit is 1 where the component is above 0, else 0 and stands for -1.

    A component of exactly 0 counts as -1, so that a code has no third value. Bits are stored as `numpy.packbits` and
    faiss store them; the last byte is filled up with zeros, which are the same in all codes and change no distance.

    Args:
        relaxed: (n, bits), floating point.

    Returns:
        (n, bits / 8 rounded up), uint8.

    Raises:
        TypeError, ValueError: as `snrlib.utils.checks.check_embeddings`.

    >>> pack(torch.tensor([[0.9, -0.2, 0.1, 0.0, -1.0, 1.0, -1.0, -1.0, 2.0]]))
    tensor([[164, 128]], dtype=torch.uint8)
    """
    positive = check_embeddings(relaxed, "relaxed codes") > 0
    bits = torch.nn.functional.pad(positive, (0, -positive.shape[1] % 8)).view(len(positive), -1, 8)
    return (bits * positive.new_tensor(_PLACES, dtype=torch.uint8)).sum(dim=2, dtype=torch.uint8)


def unpack(codes: Tensor, bits: int | None = None) -> Tensor:
    """Codes of -1 and +1, as they enter the formulas.

    Args:
        codes: (n, bytes), uint8, of `pack`.
        bits: how many there are; None is eight per byte, where what fills the last byte up is -1 in all codes.

    Returns:
        (n, bits), float32.

    Raises:
        TypeError, ValueError: no codes, or more bits than they have, or fewer than their last byte begins with.

    >>> unpack(torch.tensor([[164, 128]], dtype=torch.uint8), 9)
    tensor([[ 1., -1.,  1., -1., -1.,  1., -1., -1.,  1.]])
    """
    held = 8 * check_codes(codes, "codes").shape[1]
    bits = held if bits is None else bits
    if not held - 8 < bits <= held:
        raise ValueError(f"bits of codes of {held // 8} bytes must be from {held - 7} to {held}, got {bits!r}")
    places = torch.tensor(_PLACES, dtype=torch.uint8, device=codes.device)
    return ((codes[:, :, None] & places) > 0).flatten(1)[:, :bits].float().mul_(2).sub_(1)


def hamming(query: Tensor, database: Tensor) -> Tensor:
    """How many bits differ: ``H = (bits - a'b) / 2`` for codes of -1 and +1, since ``a'b`` = equal - different bits.

    One matrix product, exact in float32, three times as fast here as counting the bits of ``a xor b``. The whole
    matrix is returned: `snrlib.hashing.search` and `snrlib.hashing.scores` go through the queries in blocks.

    Args:
        query: (n_query, bytes), uint8, of `pack`.
        database: (n_database, bytes), uint8.

    Returns:
        (n_query, n_database), int16.

    Raises:
        TypeError, ValueError: no codes, or codes of different length.

    >>> hamming(pack(torch.tensor([[1.0, -1.0, 1.0]])), pack(torch.tensor([[1.0, 1.0, -1.0], [1.0, -1.0, 1.0]])))
    tensor([[2, 0]], dtype=torch.int16)
    """
    a, b = unpack(check_codes(query, "query")), unpack(check_codes(database, "database"))
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"query and database must have codes of one length, got {query.shape[1]} and {b.shape[1] // 8}"
        )
    # H = (bits - a'b) / 2
    return a.mm(b.T).sub_(a.shape[1]).mul_(-0.5).to(torch.int16)


def check_codes(codes: Any, name: str) -> Tensor:
    """Refuse anything but packed codes (n, bytes) with at least one row and one byte."""
    if not isinstance(codes, Tensor) or codes.dtype != torch.uint8:
        got = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
        raise TypeError(f"{name} must be packed codes, a uint8 tensor of shape (n, bytes), got {got}; see pack")
    if codes.ndim != 2 or codes.numel() == 0:
        raise ValueError(f"{name} must be packed codes of shape (n, bytes), not empty, got shape {tuple(codes.shape)}")
    return codes
