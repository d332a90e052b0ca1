"""A network whose last layer gives relaxed codes: numbers in (-1, 1) that become bits by their sign."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from snrlib.backbones import Embedder, embedder
from snrlib.utils.checks import check_choice

__all__ = ["RelaxedHead", "hasher"]


class RelaxedHead(nn.Linear):
    """``tanh(W x + b)``: the sign of a linear layer, made smooth.

    Shape: (n, in_features) -> (n, bits), in (-1, 1).
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x))


def hasher(
    name: str,
    bits: int,
    relax: str = "tanh",
    weights: str | Path | None = None,
    *,
    channels: int | None = None,
) -> Embedder:
    """An embedder with one output per bit; `snrlib.hashing.pack` makes codes of its embeddings.

    Args:
        name: of the network, see `snrlib.backbones.embedder`.
        bits: of a code, at least 2.
        relax: "tanh", or "none": a linear last layer, whose outputs only the loss keeps near -1 and +1, as DSH and DTSH
            were published.
        weights: as `snrlib.backbones.embedder`.
        channels: of the images.

    Raises:
        ValueError: fewer than 2 bits, an unknown relaxation, or as `snrlib.backbones.embedder`.

    >>> hasher("conv4", 32)(torch.zeros(1, 1, 16, 16)).abs().max() < 1
    tensor(True)
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or bits < 2:
        raise ValueError(f"bits must be an integer of at least 2, got {bits!r}")
    check_choice(relax, "relax", ("tanh", "none"))
    model = embedder(name, bits, weights, channels=channels)
    if relax == "tanh":
        head = RelaxedHead(model.head.in_features, bits)  # type: ignore[arg-type]
        head.load_state_dict(model.head.state_dict())
        model.head = head
    return model
