"""Store -> logits -> label map on the scan's own grid, in memory that does not grow with classes x length."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adapters.features import FeatureVolume, check_levels
from adapters.interpolate import interpolate, source_positions
from adapters.model import Adapter
from adapters.positions import positions
from adapters.training import bfloat16_if_fast
from featcache.geometry import Box, Grid, Triple, axis_map
from featcache.store import Case

_TILE = 64  # feature voxels of a tile along X and Y, and of a slab along Z
_SLAB = 32  # native slices decided at a time

OnProbabilities = Callable[[tuple[slice, ...], NDArray[np.float32]], None]
"""Called with a box of the scan's grid and its probabilities, shape (x, y, z, K), float32, 0 to 1."""


@dataclass(frozen=True)
class Segmentation:
    """A label map on a scan's own grid.

    Parameters
    ----------
    values : ndarray, shape (X, Y, Z), uint8 or uint16
        0 is background, 1..K the task's classes.
    grid : Grid
        The scan's grid, equal to it.
    codes : tuple of (int, int)
        sform and qform codes of the scan.
    classes : dict of str to int
        Names and values, without background.
    """

    values: NDArray[Any]
    grid: Grid
    codes: tuple[int, int]
    classes: dict[str, int]


def segment(
    adapter: Adapter, case: Case, *, device: str = "cpu", on_probabilities: OnProbabilities | None = None
) -> Segmentation:
    """Return the label map of one case.

    Features are read in tiles with a border of the adapter's radius, so that tiles leave no seams. Logits
    are brought to the scan's voxels linearly, slab by slab, then decided: the largest for several classes,
    above zero (a probability of one half) for a binary task. Outside the foreground crop is background.

    Parameters
    ----------
    adapter : Adapter
    case : featcache.store.Case
    device : str
        "cpu" or a CUDA device.
    on_probabilities : callable, optional
        Told, slab by slab, the softmax over background and classes (background left out), or the sigmoid of a
        binary task, of the very logits that decide. Boxes do not overlap; outside of them, which is outside
        the foreground crop, probabilities are 0.

    Raises
    ------
    AdapterMismatchError
        If the case lacks a level.
    """
    check_levels(case, list(adapter.channels))
    volume = FeatureVolume(case, list(adapter.channels), device)
    native = case.info.native
    adapter.to(device).eval()
    kind = np.uint8 if len(adapter.task.classes) < 256 else np.uint16
    values = np.zeros(native.shape, kind)
    logits_of = _Slabs(adapter, volume, native, case.info.foreground)
    for box, logits in logits_of.slabs():
        values[box] = _decide(logits)
        if on_probabilities is not None:
            on_probabilities(box, _probabilities(logits))
    adapter.to("cpu")
    return Segmentation(values, native, case.info.codes, adapter.task.values)


class _Slabs:
    """Yields logits in slabs of the scan's grid, along the native axis that the features' Z follows."""

    def __init__(self, adapter: Adapter, volume: FeatureVolume, native: Grid, inside: Box) -> None:
        self._adapter, self._volume, self._inside = adapter, volume, inside
        self._step = axis_map(volume.grid, native)
        # _step.axes[t] is the feature axis of native axis t; this is the native axis of feature axis Z.
        self._long = self._step.axes.index(2)
        self._cache: dict[int, torch.Tensor] = {}

    def slabs(self) -> Iterator[tuple[tuple[slice, ...], torch.Tensor]]:
        start, stop = self._inside[self._long]
        for first in range(start, stop, _SLAB):
            bounds = list(self._inside)
            bounds[self._long] = (first, min(first + _SLAB, stop))
            low = [a for a, _ in bounds]
            size = [b - a for a, b in bounds]
            yield tuple(slice(a, b) for a, b in bounds), self._logits(low, size)

    def _logits(self, low: Sequence[int], size: Sequence[int]) -> torch.Tensor:
        """Return task logits at a box of native voxels, (K', x, y, z)."""
        positions, axes = source_positions(self._step, low, size)
        depth = self._volume.grid.shape[2]
        z = np.clip(positions[2], 0, depth - 1)
        first, last = int(np.floor(z.min())), min(int(np.ceil(z.max())), depth - 1)
        values = self._slices(first, last + 1)
        inside = [np.round(positions[0], 6), np.round(positions[1], 6), np.round(z - first, 6)]
        mapped = interpolate(values, inside)
        return mapped.permute(0, *(1 + a for a in axes))

    def _slices(self, first: int, stop: int) -> torch.Tensor:
        """Return feature-grid logits of slices first..stop, from slabs that are computed once."""
        wanted = range(first // _TILE, (stop - 1) // _TILE + 1)
        self._cache = {n: slab for n, slab in self._cache.items() if n in wanted}
        for number in wanted:
            if number not in self._cache:
                self._cache[number] = self._slab(number)
        joined = torch.cat([self._cache[n] for n in wanted], dim=3)
        origin = wanted[0] * _TILE
        return joined[..., first - origin : stop - origin]

    def _slab(self, number: int) -> torch.Tensor:
        shape = self._volume.grid.shape
        z0, z1 = number * _TILE, min((number + 1) * _TILE, shape[2])
        slab = torch.empty(self._adapter.task.channels, shape[0], shape[1], z1 - z0, dtype=torch.float16)
        slab = slab.to(self._volume.device)
        for x0, y0 in itertools.product(*(range(0, n, _TILE) for n in shape[:2])):
            x1, y1 = min(x0 + _TILE, shape[0]), min(y0 + _TILE, shape[1])
            logits = tile_logits(self._adapter, self._volume, (x0, y0, z0), (x1, y1, z1))
            slab[:, x0:x1, y0:y1] = _within_float16(logits)
        return slab.float()


def _decide(logits: torch.Tensor) -> NDArray[Any]:
    if len(logits) == 1:
        return (logits[0] > 0).cpu().numpy().astype(np.uint8)
    return logits.argmax(0).to(torch.int16).cpu().numpy()


def _probabilities(logits: torch.Tensor) -> NDArray[np.float32]:
    """Return probabilities (x, y, z, K) of logits (K', x, y, z), background left out."""
    values = logits.sigmoid() if len(logits) == 1 else logits.softmax(0)[1:]
    return values.permute(1, 2, 3, 0).cpu().numpy()


def _within_float16(logits: torch.Tensor) -> torch.Tensor:
    """Return logits that decide alike and that float16 can hold, best where classes are close.

    What is subtracted from all classes of a voxel leaves their differences, interpolated ones too, as they are.
    """
    if len(logits) > 1:
        logits = logits - logits.amax(0)
    return logits.clamp(-60_000, 60_000)


@torch.no_grad()
def tile_logits(adapter: Adapter, volume: FeatureVolume, start: Triple, stop: Triple) -> torch.Tensor:
    """Return task logits (K', x, y, z) of a box of feature voxels, seen with the adapter's border."""
    shape, radius = volume.grid.shape, adapter.radius
    low = [max(a - radius, 0) for a in start]
    high = [min(b + radius, n) for b, n in zip(stop, shape, strict=True)]
    size = [b - a for a, b in zip(low, high, strict=True)]
    if adapter.residual is None:
        rows = volume.read(low, size, [adapter.linear_map()])
        return adapter.from_rows(rows[None])[0]
    values = volume.read(low, size, adapter.maps)
    if adapter.positions:
        values = torch.cat([values, positions(shape, low, size).to(volume.device)])
    with torch.autocast(volume.device.split(":")[0], torch.bfloat16, enabled=bfloat16_if_fast(volume.device)):
        logits = adapter(values[None])[0].float()
    x, y, z = (slice(a - b, a - b + c - a) for a, b, c in zip(start, low, stop, strict=True))
    inner: torch.Tensor = logits[:, x, y, z]
    return inner
