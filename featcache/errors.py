"""Every error that featcache and adapters raise on purpose.

::

    FeatcacheError                 base: catch this to catch them all
    ├── GeometryError              grids, affines and orientations that do not fit together
    ├── ScanReadError              a scan, label or list of cases that cannot be read or used
    ├── CardError                  a missing, malformed or contradicted encoder card
    ├── EncoderError               the ONNX model or its runtime: cannot load, wrong device, NaN output
    ├── StoreError                 the feature store cannot be opened, written or extended
    │   ├── FeaturesNotFound       a case, level or label set that the store does not hold
    │   ├── CorruptStore           bytes that are lost, truncated or differ from the manifest
    │   └── StaleFeatures          features whose source or recipe has changed since
    ├── TaskError                  classes, labels, shots or support that make no task
    ├── AdapterMismatchError       an adapter used with another encoder's features
    └── ShareError                 packing, signing and verifying releases

A message says what was found, what was expected and what to do. The message is the only positional
argument, so an error survives the way back from a worker process; context travels as keyword-only
attributes.
"""

from __future__ import annotations

from pathlib import Path


class FeatcacheError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    message : str
        What was found, what was expected, what to do.
    path : Path or str, optional
        The file or folder concerned.
    case : str, optional
        The case concerned.
    """

    path: Path | None
    case: str | None

    def __init__(self, message: str, *, path: Path | str | None = None, case: str | None = None) -> None:
        super().__init__(message)
        self.path = None if path is None else Path(path)
        self.case = case


class GeometryError(FeatcacheError):
    """Grids, affines or orientations that do not fit together."""


class ScanReadError(FeatcacheError):
    """A scan, label or list of cases that cannot be read or used."""


class CardError(FeatcacheError):
    """An encoder card that is missing, malformed or contradicted by the model."""


class EncoderError(FeatcacheError):
    """The ONNX model or its runtime cannot do what was asked."""


class StoreError(FeatcacheError):
    """A feature store that cannot be opened, written or extended."""


class FeaturesNotFound(StoreError):
    """A case, level or label set that the store does not hold."""


class CorruptStore(StoreError):
    """Stored bytes that are lost, truncated or differ from the manifest."""


class StaleFeatures(StoreError):
    """Features whose source or recipe has changed since they were made."""


class TaskError(FeatcacheError):
    """Classes, labels, shots or support cases that make no task."""


class AdapterMismatchError(FeatcacheError):
    """An adapter used with features of another encoder, level or width."""


class ShareError(FeatcacheError):
    """A release that cannot be packed, signed or verified."""
