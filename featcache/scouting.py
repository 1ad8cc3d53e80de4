"""What a scan shows before it is encoded: its grid and, where voxels are read, how much there is in it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from featcache.card import EncoderCard
from featcache.errors import FeatcacheError, GeometryError, ScanReadError
from featcache.extraction import ExtractOptions
from featcache.geometry import Grid
from featcache.job import load
from featcache.prepare import PreparedVolume, uncropped_grid
from featcache.scans import ScanSource, read_header
from featcache.sizes import Content, contents
from featcache.trial import Sample, typical_window
from featcache.windows import plan_windows

_A_FEW = 5


@dataclass(frozen=True)
class Seen:
    """What is known of a scan before it is encoded; `contents` where its voxels were read."""

    source: ScanSource
    native: Grid
    prepared: Grid
    contents: dict[str, Content] | None = None
    seconds: float = 0.0

    def window_voxels(self, card: EncoderCard) -> int:
        """Return the voxels of its windows."""
        return math.prod(plan_windows(self.prepared.shape, card).size)


class Scout:
    """Looks at scans: at their headers, or at their voxels as the encoder will see them."""

    def __init__(self, card: EncoderCard, options: ExtractOptions, *, voxels: bool) -> None:
        self._card, self._options, self._voxels = card, options, voxels

    def look(self, source: ScanSource) -> Seen | str:
        """Return what a scan shows, or why it would fail."""
        try:
            if self._voxels:
                return self.read(source)[0]
            native = read_header(source)
        except (ScanReadError, GeometryError) as error:
            return str(error)
        return Seen(source, native, uncropped_grid(native, self._card.preparation, self._options.spacing))

    def read(self, source: ScanSource) -> tuple[Seen, PreparedVolume]:
        """Return what the voxels of a scan show, and the prepared voxels.

        Raises
        ------
        ScanReadError, GeometryError
            As the run would.
        """
        begun = time.perf_counter()
        loaded = load(source, self._card, self._options)
        seconds, volume = time.perf_counter() - begun, loaded.volume
        found = contents(volume.voxels[0], self._card)
        return Seen(source, loaded.native, volume.grid, found, seconds), volume

    def a_few(self, seen: Sequence[Seen]) -> list[Seen]:
        """Return a few scans, evenly spread over small and large ones, with their voxels looked at.

        Raises
        ------
        ScanReadError, GeometryError
            Of the last one, if none can be read.
        """
        order = sorted(seen, key=self._size, reverse=True)
        step = -(-len(order) // _A_FEW)
        found: list[Seen] = []
        for number, choice in enumerate([*order[::step], *order]):
            if found and number >= len(order[::step]):
                break
            try:
                found.append(self.read(choice.source)[0])
            except FeatcacheError as error:  # the run will tell
                last = error
        if not found:
            raise last
        return found

    def sample(self, read: Sequence[Seen]) -> Sample:
        """Return the typical window of the scan that is most typical of those with the largest window.

        Parameters
        ----------
        read : sequence of Seen
            With contents.

        Raises
        ------
        ScanReadError, GeometryError
            If it cannot be read any more.
        """
        share = _busy(*read)
        largest = max(self._size(s)[0] for s in read)
        fit = [s for s in read if self._size(s)[0] == largest]
        choice = min(fit, key=lambda s: abs(_busy(s) - share))
        return typical_window(choice.source.case, self.read(choice.source)[1], self._card)

    def _size(self, seen: Seen) -> tuple[int, int]:
        return seen.window_voxels(self._card), math.prod(seen.prepared.shape)


def _busy(*read: Seen) -> float:
    """Return which part of all features is busy."""
    return Content.together([c for seen in read for c in (seen.contents or {}).values()]).share
