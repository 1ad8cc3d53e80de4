"""Run a frozen 3D encoder once over each scan and keep its dense features in a chunked, verified store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featcache.events import ExtractResult
    from featcache.extraction import ExtractOptions, extract
    from featcache.labelling import add_labels
    from featcache.requantising import requantise
    from featcache.store import FeatureStore, verify

__version__ = "0.1.0"

_HOMES = {
    "ExtractOptions": "featcache.extraction",
    "ExtractResult": "featcache.events",
    "FeatureStore": "featcache.store",
    "add_labels": "featcache.labelling",
    "extract": "featcache.extraction",
    "requantise": "featcache.requantising",
    "verify": "featcache.store",
}

__all__ = [
    "ExtractOptions",
    "ExtractResult",
    "FeatureStore",
    "__version__",
    "add_labels",
    "extract",
    "requantise",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that `featcache --help` stays quick."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'featcache' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
