"""Lightweight segmentation adapters, trained from cached features alone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.inference import Segmentation
    from adapters.segmenter import FewShotSegmenter, FittedSegmenter

_HOMES = {
    "FewShotSegmenter": "adapters.segmenter",
    "FittedSegmenter": "adapters.segmenter",
    "Segmentation": "adapters.inference",
}

__all__ = ["FewShotSegmenter", "FittedSegmenter", "Segmentation"]


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that `adapters --help` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'adapters' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
