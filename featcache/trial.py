"""One window really encoded, timed and stored: what a whole run will cost follows from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache import geometry
from featcache.card import EncoderCard, Output
from featcache.encode import Encoder, cut, encode, level_grid, storage_axes
from featcache.geometry import Grid, Triple
from featcache.machine import peak_bytes, reset_peak, resident_bytes
from featcache.prepare import PreparedVolume
from featcache.quantise import Precision
from featcache.sizes import Rate, busy_features, fit_rate, not_constant, raw_bytes
from featcache.store.layout import chunk_edge
from featcache.store.measure import Measured, block_bytes, measure
from featcache.windows import plan_windows

_FEW_CHUNKS, _BLOCKS = 8, 3  # along each axis, in place of fewer chunks
_Values = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Sample:
    """A window of a scan.

    Parameters
    ----------
    case : str
        The scan's.
    voxels : ndarray, shape (1, X, Y, Z), float32
        Network input.
    grid : Grid
        Where they lie.
    """

    case: str
    voxels: NDArray[np.float32]
    grid: Grid


@dataclass(frozen=True)
class Trial:
    """What a window costs.

    Parameters
    ----------
    window : tuple of 3 int
        Voxels of the window.
    start_seconds : float
        Until the encoder was ready, and what its first window took longer than its second.
    window_seconds : float
        Encoding of one window, the second of this size.
    keep_seconds : float
        Stitching, rounding, compressing and writing, seconds a byte before compression.
    rates : dict of str to Rate
        Bytes on the disk a feature vector, by level.
    before, first, later : int or None
        Memory of the process, bytes: before the first window, at the peak of the first, and of the second
        while the first one's features were still held, as they are in a run. None where the system does not tell.
    """

    window: Triple
    start_seconds: float
    window_seconds: float
    keep_seconds: float
    rates: dict[str, Rate]
    before: int | None
    first: int | None
    later: int | None


def typical_window(case: str, volume: PreparedVolume, card: EncoderCard) -> Sample:
    """Return the window, of the run's and the one in the very middle, that is about as busy as the whole volume.

    A window of air, or one without any, would say little of how well the others compress.
    """
    plan = plan_windows(volume.grid.shape, card)
    busy = not_constant(volume.voxels[0])
    share = float(busy.mean())

    def off(start: Triple) -> float:
        inside = busy[tuple(slice(a, a + n) for a, n in zip(start, plan.size, strict=True))]
        return abs(float(inside.mean()) - share)

    starts = [_middle(volume.grid.shape, plan.size, card.window_step)]
    starts += [window.start for layer in plan.layers() for window in layer]
    start = min(starts, key=off)
    voxels = cut(volume.voxels, start, plan.size, card.preparation.pad_value)
    return Sample(case, voxels, geometry.crop(volume.grid, start, plan.size))


def _middle(shape: Triple, size: Triple, step: Triple) -> Triple:
    x, y, z = (max(n - k, 0) // 2 // s * s for n, k, s in zip(shape, size, step, strict=True))
    return x, y, z


def run_trial(sample: Sample, card: EncoderCard, precision: Precision, load: Callable[[], Encoder]) -> Trial:
    """Load the encoder and encode one window twice: to warm up, and to measure.

    Raises
    ------
    EncoderError
        If the encoder cannot be loaded, fails, or yields features that cannot be stored.
    """
    begun = time.perf_counter()
    encoder = load()
    loaded, before = time.perf_counter() - begun, resident_bytes()
    values, warm_up, first = _encoded(encoder, sample)
    held = values
    values, seconds, later = _encoded(encoder, sample)
    del held
    rates, keep_seconds = _keep(sample, values, card, precision)
    return Trial(
        sample.grid.shape,
        loaded + max(warm_up - seconds, 0.0),
        seconds,
        keep_seconds,
        rates,
        before,
        first,
        later,
    )


def _encoded(encoder: Encoder, sample: Sample) -> tuple[_Values, float, int | None]:
    """Return a window's outputs, the time and the peak of memory that they took."""
    reset_peak()
    begun = time.perf_counter()
    values = encoder(sample.voxels)
    return values, time.perf_counter() - begun, peak_bytes()


class _Replay:
    """An encoder of one window that has been encoded already."""

    def __init__(self, card: EncoderCard, values: _Values) -> None:
        self.card, self._values = card, values

    def __call__(self, window: NDArray[np.float32], /) -> _Values:
        return self._values


def _keep(
    sample: Sample, values: _Values, card: EncoderCard, precision: Precision
) -> tuple[dict[str, Rate], float]:
    """Return the bytes a feature vector takes, by level, and the seconds to keep a byte before compression."""
    volume = PreparedVolume(sample.voxels, sample.grid, geometry.whole(sample.grid), ())
    levels = {o.name: (level_grid(sample.grid, card, o.name), o.channels) for o in card.outputs}
    found = measure(sample.case, levels, precision, lambda: encode(volume, _Replay(card, values)))
    rates = {o.name: _rate(sample, values[o.name], o, card, (found, precision)) for o in card.outputs}
    return rates, found.seconds / raw_bytes(sample.grid, card, precision.dtype)


def _rate(
    sample: Sample,
    features: NDArray[np.float32],
    output: Output,
    card: EncoderCard,
    stored: tuple[Measured, Precision],
) -> Rate:
    """Return a level's rates from the chunks that were stored, or from smaller blocks where they are few."""
    found, precision = stored
    chunks = found.chunks[output.name]
    x, y, z = storage_axes(card)
    maps = [busy.transpose(x, y, z) for busy in busy_features(sample.voxels[0], output)]
    edge, blocks = chunk_edge(output.channels, precision.dtype), chunks
    if chunks.size < _FEW_CHUNKS:
        edge = max(1, min(maps[0].shape) // _BLOCKS)
        numbers, _ = precision.encode(features, found.calibrations.get(output.name))
        blocks = block_bytes(numbers.transpose(0, 1 + x, 1 + y, 1 + z), edge)
    return fit_rate(maps, blocks, edge, int(chunks.sum()))
