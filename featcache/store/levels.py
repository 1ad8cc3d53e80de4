"""Slabs of features, in order along z, into shards that are each written once."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import GeometryError
from featcache.geometry import Grid
from featcache.head import LinearHead
from featcache.quantise import Calibration, Precision
from featcache.storable import check_storable
from featcache.store.documents import LevelInfo
from featcache.store.layout import DOCUMENT, multiscale_group
from featcache.store.manifest import Part, record
from featcache.store.seal import to_json
from featcache.stored_error import ErrorMeter


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
    precision : Precision
        How features are stored.
    calibration : Calibration, optional
        Of this level, for integers.
    head : LinearHead, optional
        The encoder's own head, where it reads this level: its decisions on stored features are compared.
    """

    def __init__(
        self,
        part: Part,
        case: str,
        *,
        name: str,
        grid: Grid,
        channels: int,
        precision: Precision,
        calibration: Calibration | None = None,
        head: LinearHead | None = None,
    ) -> None:
        from featcache.store import arrays

        group = multiscale_group(name, grid, "cxyz", {"affine": grid.affine.tolist()})
        record(part.folder, f"{part.prefix}/{DOCUMENT}", to_json(group), part.manifest)
        array_part = Part(part.folder, part.manifest, f"{part.prefix}/0")
        self._array = arrays.create_features(array_part, channels, grid.shape, precision.dtype)
        if calibration is not None:
            for what, values in (("scale", calibration.scale), ("offset", calibration.offset)):
                place = Part(part.folder, part.manifest, f"{part.prefix}/{what}")
                arrays.create_channel_values(place, values)
        assert self._array.shards is not None
        self._shard = self._array.shards
        self._case, self._name, self._grid = case, name, grid
        self._precision, self._calibration, self._head = precision, calibration, head
        self._row: NDArray[Any] = np.empty((channels, *grid.shape[:2], self._shard[3]), precision.dtype)
        self._next = 0  # the next slice along z
        self._meter = ErrorMeter(channels)

    def append(self, slab: NDArray[np.float32]) -> None:
        """Take the next slices.

        Parameters
        ----------
        slab : ndarray, shape (C, X, Y, z), float32
            Finished features on the level's grid, any thickness z; not changed, not kept.

        Raises
        ------
        EncoderError
            If a value is NaN or infinite, or beyond what the precision can hold.
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
        slices = f"slices {self._next} to {self._next + slab.shape[3] - 1}"
        where = f"level {self._name}, {slices}"
        check_storable(slab, self._precision, case=self._case, where=where)
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
        error = self._meter.result(full=not self._precision.plain)
        return LevelInfo(self._grid, self._row.shape[0], self._precision, error)

    def _store(self, part: NDArray[np.float32], at: int) -> None:
        """Encode slices into the row, channel by channel so that temporaries stay small."""
        row = self._row[..., at : at + part.shape[3]]
        precision = self._precision
        for channel in range(len(part)):
            computed = part[channel : channel + 1]
            one = None if self._calibration is None else self._calibration.channel(channel)
            stored, clipped = precision.encode(computed, one)
            row[channel : channel + 1] = stored
            if precision.dtype != "float32":
                self._meter.add(computed, precision.decode(stored, one))
            if not precision.plain:
                self._meter.add_channel(channel, computed, clipped)
        if self._head is not None:
            self._compare_decisions(self._head, part, row)

    def _compare_decisions(self, head: LinearHead, part: NDArray[np.float32], row: NDArray[Any]) -> None:
        """Compare what the encoder's own head makes of computed and of stored features, slice by slice."""
        for z in range(part.shape[3]):
            computed = part[..., z].reshape(len(part), -1)
            stored = self._precision.decode(row[..., z], self._calibration).reshape(len(part), -1)
            self._meter.add_decisions(head.decide(computed), head.decide(stored))

    def _flush(self) -> None:
        """Write the row, one shard at a time."""
        depth = (self._next - 1) % self._shard[3] + 1
        z = slice(self._next - depth, self._next)
        steps = (range(0, n, s) for n, s in zip(self._grid.shape[:2], self._shard[1:3], strict=True))
        for x0, y0 in itertools.product(*steps):
            x, y = slice(x0, x0 + self._shard[1]), slice(y0, y0 + self._shard[2])
            self._array[:, x, y, z] = self._row[:, x, y, :depth]
