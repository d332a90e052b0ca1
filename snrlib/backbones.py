"""Networks that map an image to an embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BACKBONES", "embed", "embedder"]

BACKBONES: tuple[str, ...] = ("conv4",)


def embedder(name: str, embedding_size: int = 128, weights: str | None = None, *, channels: int = 1) -> nn.Module:
    """A network with a linear embedding as its last layer.

    ``conv4``: four blocks of 3 x 3 convolution (64 filters), batch norm, ReLU and 2 x 2 max pooling (as Vinyals
    et al. 2016), pooled to 2 x 2 cells; any image from 16 x 16 up.

    Args:
        name: one of `BACKBONES`.
        embedding_size: number of components M.
        weights: a file written by ``torch.save(model.state_dict(), file)``, loaded strictly; None starts at random.
        channels: of the images.

    Shape: (n, channels, height, width) -> (n, embedding_size).

    Raises:
        ValueError: unknown name, or a size below 1.
        FileNotFoundError, RuntimeError: the weights do not exist, or belong to another network.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; choose from {', '.join(BACKBONES)}")
    if embedding_size < 1 or channels < 1:
        raise ValueError(f"embedding_size and channels must be positive, got {embedding_size} and {channels}")
    layers: list[nn.Module] = []
    for inputs in (channels, 64, 64, 64):
        # Pooling before the ReLU gives the same function, as both keep the order, and less to compute.
        layers += [nn.Conv2d(inputs, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.MaxPool2d(2), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * 64, embedding_size))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the fast layout for convolutions
    if weights is not None:
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=True)
    return model


@torch.no_grad()
def embed(model: nn.Module, images: Tensor, batch_size: int = 512) -> Tensor:
    """Embeddings of all images in evaluation mode, batch by batch: (n, C, H, W) -> (n, M), float32 on the CPU.

    The model is left in the mode it was in.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        return torch.cat([model(batch.to(device)).float().cpu() for batch in images.split(batch_size)])
    finally:
        model.train(was_training)
