"""Whether an exported graph computes what the torch adapter computes, on one window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from adapters.export.adapter_graph import LOGITS
from adapters.features import FeatureVolume
from adapters.model import Adapter
from adapters.positions import positions
from featcache.errors import EncoderError
from featcache.geometry import Grid, Triple
from featcache.runtime.onnxruntime import create_session, runtime_errors
from featcache.store import Case

TOLERANCE = 1e-3
"""Largest difference of logits accepted, relative to the largest of them (to 1 where they are smaller)."""


@dataclass(frozen=True)
class _WindowLevel:
    grid: Grid
    values: NDArray[np.float32]
    chunk: int = 8

    @property
    def channels(self) -> int:
        return len(self.values)

    def read(self, start: Sequence[int], size: Sequence[int]) -> NDArray[np.float32]:
        x, y, z = (slice(a, a + n) for a, n in zip(start, size, strict=True))
        return np.ascontiguousarray(self.values[:, x, y, z])


@dataclass(frozen=True)
class WindowCase:
    """One window's features, read by `FeatureVolume` as if they were stored.

    Parameters
    ----------
    levels : mapping of str to (Grid, ndarray of shape (C, X, Y, Z), float32)
        In stored order of the axes.
    """

    levels: Mapping[str, tuple[Grid, NDArray[np.float32]]]

    def level(self, name: str) -> _WindowLevel:
        """Return a level."""
        return _WindowLevel(*self.levels[name])


@dataclass(frozen=True)
class Place:
    """Which part of a scan a window is, in features of the finest level and in stored order."""

    start: Triple
    whole: Triple


@torch.no_grad()
def torch_logits(adapter: Adapter, case: WindowCase, place: Place | None = None) -> NDArray[np.float32]:
    """Return the adapter's own logits of a window, (1, K', X, Y, Z) in stored order; no half precision.

    Parameters
    ----------
    adapter : Adapter
        On the CPU, in evaluation.
    case : WindowCase
    place : Place, optional
        For an adapter with positions.
    """
    volume = FeatureVolume(cast(Case, case), list(adapter.channels))
    size = volume.grid.shape
    if adapter.residual is None:
        logits = adapter.from_rows(volume.read((0, 0, 0), size, [adapter.linear_map()])[None])
    else:
        values = volume.read((0, 0, 0), size, adapter.maps)
        if adapter.positions:
            assert place is not None
            values = torch.cat([values, positions(place.whole, place.start, size)])
        logits = adapter(values[None])
    found: NDArray[np.float32] = logits.float().numpy()
    return found


def difference(path: Path, inputs: Mapping[str, NDArray[Any]], expected: NDArray[np.float32]) -> float:
    """Return how far the graph's logits are from `expected`, relative to `TOLERANCE`'s scale.

    Raises
    ------
    EncoderError
        If ONNX Runtime cannot run the graph, or the difference is more than `TOLERANCE`.
    """
    session, _ = create_session(path, "cpu")
    try:
        found = session.run([LOGITS], dict(inputs))[0]
    except runtime_errors() as error:
        raise EncoderError(f"the exported graph cannot be run: {error}; nothing was written") from error
    if found.shape != expected.shape:
        raise EncoderError(
            f"the exported graph yields logits of shape {found.shape}, the adapter {expected.shape}; expected the "
            "same. Nothing was written"
        )
    largest = float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))
    if not largest <= TOLERANCE:
        raise EncoderError(
            f"logits of the exported graph differ from the adapter's by {largest:.3g} of their range on a random "
            f"window; expected at most {TOLERANCE:g}. Nothing was written: please report this adapter's method"
        )
    return largest
