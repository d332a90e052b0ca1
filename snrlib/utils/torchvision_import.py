"""torchvision, imported here and nowhere else.

torchvision's library is compiled against one build of torch (CUDA, from the registry). Beside another build (CPU) it
does not load, and the import fails with "operator torchvision::nms does not exist". Declaring the two operators that
torchvision describes at import cures that; models and transforms need neither. Calling one still fails, as it should.
"""

from __future__ import annotations

import ctypes
import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

__all__ = ["torchvision"]


def _library_loads() -> bool:
    spec = importlib.util.find_spec("torchvision")
    folders = (spec.submodule_search_locations if spec else None) or []
    for library in (Path(folder) / f"_C{suffix}" for folder in folders for suffix in EXTENSION_SUFFIXES):
        if library.exists():
            try:
                ctypes.CDLL(str(library))
            except OSError:
                return False
            return True
    return False


if not _library_loads():
    _operators = torch.library.Library("torchvision", "DEF")
    _operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import torchvision  # noqa: E402
