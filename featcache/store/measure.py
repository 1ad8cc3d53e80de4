"""What features take on the disk: written the way a store does, to a folder that goes again."""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.calibrate import calibrate
from featcache.geometry import Grid
from featcache.quantise import Calibration, Features, Precision
from featcache.store.layout import chunk_edge, level_prefix, shard_shape
from featcache.store.levels import LevelWriter
from featcache.store.manifest import Manifest, Part

_INDEX_ENTRY = 16  # offset and length of an inner chunk, uint64 each, and a CRC32C at the end of the index


@dataclass(frozen=True)
class Measured:
    """How a case's levels were stored.

    Parameters
    ----------
    chunks : dict of str to ndarray of int64, shape (x, y, z)
        Bytes of every inner chunk of a level with its entry in the index, in the order of the level's axes.
    seconds : float
        Time of all, the making of the slabs included.
    calibrations : mapping of str to Calibration
        Of every level, for integers.
    """

    chunks: dict[str, NDArray[np.int64]]
    seconds: float
    calibrations: Mapping[str, Calibration]


def measure(
    case: str,
    levels: dict[str, tuple[Grid, int]],
    precision: Precision,
    slabs: Callable[[], Iterable[tuple[str, Features]]],
) -> Measured:
    """Write slabs as a case's features, and return what they took.

    Parameters
    ----------
    case : str
        For messages.
    levels : dict of str to (Grid, int)
        Grid and channels of each level.
    precision : Precision
        How they are stored; integers are calibrated on these features.
    slabs : callable
        Returns (level, slab) in order; slabs of shape (C, X, Y, z), float32.

    Raises
    ------
    EncoderError
        If features cannot be stored.
    StoreError
        If the disk of temporary files is full.
    """
    import featcache.store.arrays  # noqa: F401 - the import of zarr is not to be timed

    calibrations: Mapping[str, Calibration] = {}
    if precision.calibrated:
        calibrations = calibrate(case, list(slabs()), precision.bits).levels
    manifest: Manifest = {}
    with tempfile.TemporaryDirectory(prefix="featcache-", ignore_cleanup_errors=True) as name:
        folder, begun = Path(name), time.perf_counter()
        writers = {
            level: LevelWriter(
                Part(folder, manifest, level_prefix(level)),
                case,
                name=level,
                grid=grid,
                channels=channels,
                precision=precision,
                calibration=calibrations.get(level),
            )
            for level, (grid, channels) in levels.items()
        }
        for level, slab in slabs():
            writers[level].append(slab)
        seconds = time.perf_counter() - begun
        chunks = {
            level: _chunks(folder / level_prefix(level) / "0", grid, channels, precision.dtype)
            for level, (grid, channels) in levels.items()
        }
    return Measured(chunks, seconds, calibrations)


def block_bytes(numbers: NDArray[Any], edge: int) -> NDArray[np.int64]:
    """Return the bytes of stored numbers, (C, X, Y, Z), in blocks of all channels x edge^3, each compressed alone.

    Blocks smaller than chunks compress a little worse, but tell apart where there is much and where little.
    """
    from featcache.store.arrays import compressed_bytes

    starts = [range(0, n, edge) for n in numbers.shape[1:]]
    sizes = [
        compressed_bytes(numbers[:, x : x + edge, y : y + edge, z : z + edge])
        for x, y, z in itertools.product(*starts)
    ]
    return np.array(sizes, np.int64).reshape([len(s) for s in starts])


def _chunks(array: Path, grid: Grid, channels: int, dtype: str) -> NDArray[np.int64]:
    """Return the bytes of every inner chunk, from the index at the end of each shard."""
    edge = chunk_edge(channels, dtype)
    shard = tuple(n // edge for n in shard_shape(channels, grid.shape, dtype)[1:])
    sizes = np.zeros([-(-n // edge) for n in grid.shape], np.int64)
    count = math.prod(shard)
    for path in (array / "c" / "0").glob("*/*/*"):
        index = path.read_bytes()[-(_INDEX_ENTRY * count + 4) : -4]
        lengths = np.frombuffer(index, "<u8").reshape(-1, 2)[:, 1].astype(np.int64).reshape(shard)
        at = [int(part) * n for part, n in zip(path.parts[-3:], shard, strict=True)]
        sizes[tuple(slice(a, a + n) for a, n in zip(at, shard, strict=True))] = lengths + _INDEX_ENTRY
    return sizes
