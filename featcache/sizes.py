"""How much room features take: on the disk before and after compression, and in memory while they are made.

What a level compresses to hangs on its input. Far enough from where the input changes, in clipped air or
padding, features are constant and take next to nothing; elsewhere their last bits are noise. So a level has
two rates, bytes a feature vector, and a reach, within which a feature sees that its input changes: fitted on
one window, and each case is counted at both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.card import EncoderCard, Output
from featcache.encode import level_grid, storage_axes
from featcache.geometry import Grid
from featcache.stitch import buffer_shape
from featcache.store.layout import shard_shape
from featcache.windows import plan_windows

REACHES = (0, 1, 2, 4)
"""How many features beyond a busy one may see it too: the fit takes one of these."""
_FEW = 0.01  # of the features


@dataclass(frozen=True)
class Rate:
    """Bytes that one feature vector of a level takes on the disk.

    Parameters
    ----------
    busy, quiet : float
        Within reach of an input that changes, and beyond.
    reach : int
        Place in `REACHES`.
    """

    busy: float
    quiet: float
    reach: int = 0


@dataclass(frozen=True)
class Content:
    """How many feature vectors a level has, and how many of them are busy, by reach (as in `REACHES`)."""

    features: int
    busy: tuple[int, ...]

    @classmethod
    def together(cls, parts: Sequence[Content]) -> Content:
        """Return the sum of several levels, of one scan or of many."""
        busy = [sum(counts) for counts in zip(*(part.busy for part in parts), strict=True)]
        return cls(sum(part.features for part in parts), tuple(busy))

    @property
    def share(self) -> float:
        """Which part is busy, 0 to 1, at reach 0."""
        return self.busy[0] / self.features

    def scaled(self, features: int) -> Content:
        """Return a level of `features` that is as busy."""
        return Content(features, tuple(round(count * features / self.features) for count in self.busy))

    def expected_bytes(self, rate: Rate) -> int:
        """Return what the level takes on the disk."""
        busy = self.busy[rate.reach]
        return round(rate.busy * busy + rate.quiet * (self.features - busy))


def raw_bytes(prepared: Grid, card: EncoderCard, dtype: str) -> int:
    """Return the bytes of all levels over a prepared grid before compression.

    Parameters
    ----------
    prepared : Grid
        What the encoder sees.
    card : EncoderCard
    dtype : {"float16", "float32", "uint8"}
        What is stored.
    """
    return sum(
        output.channels * math.prod(level_grid(prepared, card, output.name).shape) for output in card.outputs
    ) * int(np.dtype(dtype).itemsize)


def busy_features(voxels: NDArray[np.float32], output: Output) -> list[NDArray[np.bool_]]:
    """Return which features of a level see an input that changes, for each of `REACHES`.

    Parameters
    ----------
    voxels : ndarray, shape (X, Y, Z), float32
        Network input.
    output : Output
        The level.

    Returns
    -------
    list of ndarray of bool, shape (ceil(X / stride), ...)
        In the order of the input's axes.
    """
    busy = not_constant(voxels)
    for axis, stride in enumerate(output.stride):
        busy = np.logical_or.reduceat(busy, np.arange(0, busy.shape[axis], stride), axis=axis)
    maps = [busy]
    for before, reach in itertools.pairwise(REACHES):
        maps.append(_widened(maps[-1], reach - before))
    return maps


def contents(voxels: NDArray[np.float32], card: EncoderCard) -> dict[str, Content]:
    """Return the content of every level of a prepared volume, (X, Y, Z)."""
    found = {}
    for output in card.outputs:
        maps = busy_features(voxels, output)
        found[output.name] = Content(maps[0].size, tuple(int(busy.sum()) for busy in maps))
    return found


def fit_rate(maps: Sequence[NDArray[np.bool_]], blocks: NDArray[np.int64], edge: int, total: int) -> Rate:
    """Return the rates of a level, and the reach that explains best what the blocks of a part of it take.

    Parameters
    ----------
    maps : sequence of ndarray of bool, shape (X, Y, Z)
        From `busy_features`, in the order in which features are stored.
    blocks : ndarray of int64, shape (ceil(X / edge), ...)
        Bytes of each block.
    edge : int
        Features along each edge of a block.
    total : int
        Bytes of all blocks as they are stored: the rates are scaled to it.
    """
    fits = [_fit(busy, blocks * (total / blocks.sum()), edge, reach) for reach, busy in enumerate(maps)]
    return min(fits, key=lambda fit: fit[0])[1]


def _fit(busy: NDArray[np.bool_], sizes: NDArray[np.float64], edge: int, reach: int) -> tuple[float, Rate]:
    """Return the error of the best rates at a reach, and these."""
    counts = _per_block(busy.astype(np.int64), edge).ravel()
    every = _per_block(np.ones(busy.shape, np.int64), edge).ravel()
    total, flat = float(sizes.sum()), sizes.ravel()
    if not _FEW < counts.sum() / busy.size < 1 - _FEW:  # then two rates cannot be told apart
        mean = total / busy.size
        return float(np.square(mean * every - flat).sum()), Rate(mean, mean, reach)
    design = np.column_stack([counts, every - counts]).astype(np.float64)
    rates = np.maximum(np.linalg.lstsq(design, flat, rcond=None)[0], 0.0)
    rates *= total / float((design @ rates).sum())
    return float(np.square(design @ rates - flat).sum()), Rate(float(rates[0]), float(rates[1]), reach)


def stitching_bytes(prepared: Grid, card: EncoderCard, dtype: str) -> int:
    """Return the memory in which windows become slabs and slabs become shards, bytes.

    The buffers of all levels, their rows of shards, and for one level at a time the slab that is handed
    over and a shard while it is compressed.
    """
    plan, axes, itemsize = plan_windows(prepared.shape, card), storage_axes(card), np.dtype(dtype).itemsize
    held, passing = 0, 0
    for output in card.outputs:
        shape = level_grid(prepared, card, output.name).shape
        buffer = 4 * math.prod(buffer_shape(plan, output, shape, axes))
        shard = shard_shape(output.channels, shape, dtype)
        row = output.channels * shape[0] * shape[1] * shard[3] * itemsize
        held += buffer + row
        passing = max(passing, buffer + 2 * min(row, math.prod(shard) * itemsize))
    return held + passing


def not_constant(voxels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which voxels, (X, Y, Z), differ from one of their six neighbours."""
    found = np.zeros(voxels.shape, np.bool_)
    for axis in range(3):
        low, high = _shifted(axis, 1)
        differs = voxels[low] != voxels[high]
        found[low] |= differs
        found[high] |= differs
    return found


def _widened(busy: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Return what lies within a box of `reach` voxels around each."""
    for axis in range(3):
        wide = busy.copy()
        for step in range(1, min(reach + 1, busy.shape[axis])):
            low, high = _shifted(axis, step)
            wide[low] |= busy[high]
            wide[high] |= busy[low]
        busy = wide
    return busy


def _shifted(axis: int, step: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    whole = [slice(None)] * 3
    low, high = [*whole], [*whole]
    low[axis], high[axis] = slice(None, -step), slice(step, None)
    return tuple(low), tuple(high)


def _per_block(values: NDArray[np.int64], edge: int) -> NDArray[np.int64]:
    for axis in range(3):
        values = np.add.reduceat(values, np.arange(0, values.shape[axis], edge), axis=axis)
    return values
