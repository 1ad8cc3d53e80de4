"""What stored integers stand for, decided once a store: on the first case, by its range."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.quantise import Calibration, Features

_HEADROOM = 0.375
"""Room beyond the calibration case's minimum and maximum, each in widths of its range: other scans reach farther."""

_BINS = 4096

RECIPE = {
    "case": "first",
    "range": f"minimum to maximum, {_HEADROOM:g} of that width more on both sides",
    "exact": "the most common value",
}
"""How a store is calibrated, as it stands in its recipe. "First" is by id, among those that can be encoded."""


@dataclass(frozen=True)
class StoreCalibration:
    """The calibration of every level of a store, and the case that it was taken from.

    Parameters
    ----------
    case : str
        The case's id.
    levels : mapping of str to Calibration
    """

    case: str
    levels: Mapping[str, Calibration]

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as it stands in the store's root document."""
        return {"case": self.case, "levels": {name: level.to_json() for name, level in self.levels.items()}}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> StoreCalibration:
        """Return the calibration written by `to_json`."""
        levels = {name: Calibration.from_json(level) for name, level in document["levels"].items()}
        return cls(str(document["case"]), levels)


def calibrate(case: str, slabs: Iterable[tuple[str, Features]], bits: int) -> StoreCalibration:
    """Return the calibration that a case's features give, by the rule of `RECIPE`.

    Parameters
    ----------
    case : str
        The case's id.
    slabs : iterable of (str, ndarray)
        Level name and features (C, X, Y, z), float32, finite; all of the case. Gone through twice.
    bits : int
        Of an integer.
    """
    levels: dict[str, _Level] = {}
    for name, slab in slabs:
        levels.setdefault(name, _Level(len(slab))).widen(_as_float16(slab))
    for name, slab in slabs:
        levels[name].count(_as_float16(slab))
    return StoreCalibration(case, {name: level.calibration(bits) for name, level in levels.items()})


def _as_float16(slab: Features) -> NDArray[np.float16]:
    """Return features as a float16 store has them, so that both give one calibration; what is larger is clipped."""
    limit = np.finfo(np.float16).max
    return np.clip(slab, -limit, limit).astype(np.float16)


class _Level:
    """The range of each channel of a level, and then its histogram."""

    def __init__(self, channels: int) -> None:
        self._low = np.full(channels, np.inf)
        self._high = np.full(channels, -np.inf)
        self._counts = np.zeros((channels, _BINS), np.int64)

    def widen(self, slab: NDArray[np.float16]) -> None:
        """Take features for the range."""
        self._low = np.minimum(self._low, slab.min(axis=(1, 2, 3)))
        self._high = np.maximum(self._high, slab.max(axis=(1, 2, 3)))

    def count(self, slab: NDArray[np.float16]) -> None:
        """Take features for the histogram; the range is known."""
        width = self._high - self._low
        for channel in np.flatnonzero(width > 0):
            place = (slab[channel].astype(np.float64) - self._low[channel]) * (_BINS / width[channel])
            inside = np.minimum(place.astype(np.int64), _BINS - 1)
            self._counts[channel] += np.bincount(inside.ravel(), minlength=_BINS)

    def calibration(self, bits: int) -> Calibration:
        """Return scale and offset of each channel.

        Most of a scan is air or fat, whose features lie close together somewhere near the floor of a channel.
        That value is one of the numbers, or all that surrounds the body would be off by a part of a step. A
        channel that is constant here gets the median step of the others: it need not be constant elsewhere.
        """
        highest, width = 2**bits - 1, self._high - self._low
        step = (1 + 2 * _HEADROOM) * width / highest
        varies = step >= np.finfo(np.float32).tiny
        usual = float(np.median(step[varies])) if varies.any() else 1.0
        step[~varies] = usual
        above = np.where(varies, (self._counts.argmax(axis=1) + 0.5) * (width / _BINS), 0.0)
        below = highest * _HEADROOM / (1 + 2 * _HEADROOM)
        number = np.round(below) + np.round(above / step)  # that stands for the most common value
        scale, common = step.astype(np.float32), (self._low + above).astype(np.float32)
        # In float32, as the reader multiplies: the most common value comes back.
        return Calibration(bits, scale, common - number.astype(np.float32) * scale)
