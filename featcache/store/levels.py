"""Slabs of features, in order along z, into shards that are each written once."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import EncoderError, GeometryError
from featcache.geometry import Grid
from featcache.store.documents import LevelInfo
from featcache.store.layout import DOCUMENT, multiscale_group
from featcache.store.manifest import Part, record
from featcache.store.seal import to_json

FLOAT16_MAX = 65504.0


class LevelWriter:
    """Writes one level of a case; made by `CaseWriter.level`.

    Holds one row of shards in the stored dtype: channels x X x Y x e values.

    Parameters
    ----------
    part : Part
        The level's part of a case in staging; its manifest is filled.
    case, name : str
        For messages and viewers.
    grid : Grid
        The level's grid.
    channels : int
        Channels.
    dtype : {"float16", "float32"}
        What is stored.
    """

    def __init__(self, part: Part, case: str, *, name: str, grid: Grid, channels: int, dtype: str) -> None:
        from featcache.store import arrays

        group = multiscale_group(name, grid, "cxyz", {"affine": grid.affine.tolist()})
        record(part.folder, f"{part.prefix}/{DOCUMENT}", to_json(group), part.manifest)
        array_part = Part(part.folder, part.manifest, f"{part.prefix}/0")
        self._array = arrays.create_features(array_part, channels, grid.shape, dtype)
        assert self._array.shards is not None
        self._shard = self._array.shards
        self._case, self._name, self._grid, self._dtype = case, name, grid, dtype
        self._row: NDArray[Any] = np.empty((channels, *grid.shape[:2], self._shard[3]), dtype)
        self._next = 0  # the next slice along z
        self._squares = 0.0  # sum over all values of computed ** 2
        self._errors = 0.0  # sum of (stored - computed) ** 2
        self._max_abs = 0.0

    def append(self, slab: NDArray[np.float32]) -> None:
        """Take the next slices.

        Parameters
        ----------
        slab : ndarray, shape (C, X, Y, z), float32
            Finished features on the level's grid, any thickness z; not changed, not kept.

        Raises
        ------
        EncoderError
            If a value is NaN or infinite, or beyond what float16 can hold.
        GeometryError
            If the shape does not fit the level.
        StoreError
            If the disk is full.
        """
        depth = self._grid.shape[2]
        if slab.ndim != 4 or slab.shape[:3] != self._row.shape[:3] or self._next + slab.shape[3] > depth:
            raise GeometryError(
                f"case {self._case}, level {self._name}: a slab of shape {slab.shape} after {self._next} "
                f"slices does not fit; expected {self._row.shape[:3]} and at most {depth - self._next} slices",
                case=self._case,
            )
        self._check(slab)
        edge = self._shard[3]
        while slab.shape[3]:
            at = self._next % edge
            part, slab = np.split(slab, [edge - at], axis=3)
            self._store(part, at)
            self._next += part.shape[3]
            if self._next % edge == 0 or self._next == depth:
                self._flush()

    def close(self) -> LevelInfo:
        """Return the level's description.

        Raises
        ------
        GeometryError
            If slices are missing.
        """
        depth = self._grid.shape[2]
        if self._next != depth:
            raise GeometryError(
                f"case {self._case}, level {self._name}: {self._next} of {depth} slices came",
                case=self._case,
            )
        relative = math.sqrt(self._errors / self._squares) if self._squares else 0.0
        return LevelInfo(self._grid, self._row.shape[0], self._dtype, relative, self._max_abs)

    def _check(self, slab: NDArray[np.float32]) -> None:
        limit = FLOAT16_MAX if self._dtype == "float16" else float(np.finfo(np.float32).max)
        # min and max let NaN through and need no temporary of the slab's size.
        if all(-limit <= channel.min() and channel.max() <= limit for channel in slab if channel.size):
            return
        size = np.abs(slab)
        finite = np.isfinite(slab)
        largest = float(size.max(where=finite, initial=0.0))
        n_nan = int(np.isnan(slab).sum())
        n_infinite = slab.size - int(finite.sum()) - n_nan
        n_beyond = int((size > limit).sum()) - n_infinite
        slices = f"slices {self._next} to {self._next + slab.shape[3] - 1}"
        where = f"case {self._case}, level {self._name}, {slices}"
        if n_nan or n_infinite:
            raise EncoderError(
                f"{where}: {n_nan} NaN and {n_infinite} infinite of {slab.size} features (largest finite "
                f"magnitude {largest:g}); expected finite ones. Check the scan for such voxels and the "
                "encoder for an overflow",
                case=self._case,
            )
        raise EncoderError(
            f"{where}: {n_beyond} of {slab.size} features lie beyond float16's ±65504 (largest magnitude "
            f"{largest:g}); run again with --store-precision float32",
            case=self._case,
        )

    def _store(self, part: NDArray[np.float32], at: int) -> None:
        """Cast slices into the row, channel by channel so that temporaries stay small."""
        for channel, computed in enumerate(part):
            stored = self._row[channel, :, :, at : at + part.shape[3]]
            stored[...] = computed
            if stored.dtype != np.float32:
                error = (stored.astype(np.float32) - computed).ravel()
                flat = computed.ravel()
                self._errors += float(np.dot(error, error))
                self._squares += float(np.dot(flat, flat))
                self._max_abs = max(self._max_abs, float(error.max()), -float(error.min()))

    def _flush(self) -> None:
        """Write the row, one shard at a time."""
        depth = (self._next - 1) % self._shard[3] + 1
        z = slice(self._next - depth, self._next)
        steps = (range(0, n, s) for n, s in zip(self._grid.shape[:2], self._shard[1:3], strict=True))
        for x0, y0 in itertools.product(*steps):
            x, y = slice(x0, x0 + self._shard[1]), slice(y0, y0 + self._shard[2])
            self._array[:, x, y, z] = self._row[:, x, y, :depth]
