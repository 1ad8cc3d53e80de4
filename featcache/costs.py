"""From what one window took to what every scan will take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from featcache.card import EncoderCard
from featcache.encode import count_windows, level_grid
from featcache.scouting import Seen
from featcache.sizes import Content, raw_bytes, stitching_bytes
from featcache.trial import Trial

_READING = 8  # bytes a voxel of a scan while it is read and turned: its own, a copy for the resampling


class CaseCost(NamedTuple):
    """Windows, bytes on the disk, peak memory in bytes (None where unknown) and seconds of one scan."""

    windows: int
    bytes: int
    memory: int | None
    seconds: float


@dataclass(frozen=True)
class Cost:
    """What scans will take.

    Parameters
    ----------
    card : EncoderCard
    dtype : {"float16", "float32", "uint8"}
        What is stored.
    trial : Trial
        What a window of one of them took.
    read : sequence of Seen
        Scans whose voxels were read, at least one: the others are as busy as these.
    """

    card: EncoderCard
    dtype: str
    trial: Trial
    read: Sequence[Seen]

    def of(self, seen: Seen) -> CaseCost:
        """Return what a scan will take."""
        windows = count_windows(seen.prepared.shape, self.card)
        encoding = windows * self.trial.window_seconds * self._window_share(seen)
        keeping = self.trial.keep_seconds * raw_bytes(seen.prepared, self.card, self.dtype)
        seconds = self._reading(seen) + encoding + keeping
        return CaseCost(windows, self._bytes(seen), self._memory(seen, windows), seconds)

    def _window_share(self, seen: Seen) -> float:
        return seen.window_voxels(self.card) / math.prod(self.trial.window)

    def _reading(self, seen: Seen) -> float:
        if seen.contents is not None:
            return seen.seconds
        voxels = sum(math.prod(s.native.shape) for s in self.read)
        return sum(s.seconds for s in self.read) * math.prod(seen.native.shape) / voxels

    def _bytes(self, seen: Seen) -> int:
        return sum(self._content(seen, name).expected_bytes(rate) for name, rate in self.trial.rates.items())

    def _content(self, seen: Seen, level: str) -> Content:
        if seen.contents is not None:
            return seen.contents[level]
        features = math.prod(level_grid(seen.prepared, self.card, level).shape)
        known = [s.contents[level] for s in self.read if s.contents is not None]
        return Content.together(known).scaled(features)

    def _memory(self, seen: Seen, windows: int) -> int | None:
        """Return the peak while a scan is encoded, or read, whichever is higher."""
        before, peak = self.trial.before, self.trial.first if windows == 1 else self.trial.later
        if peak is None or before is None:
            return None
        volume = 4 * math.prod(seen.prepared.shape)
        window = before + (peak - before) * self._window_share(seen)
        encoding = window + volume + stitching_bytes(seen.prepared, self.card, self.dtype)
        reading = before + 2 * volume + _READING * math.prod(seen.native.shape)
        return round(max(encoding, reading))
