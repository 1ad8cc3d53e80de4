"""Is there room on the disk? Asked before anything is encoded, so from headers, and one scan at most.

`featcache plan` knows better, because it encodes a window. Here an extraction is refused only where the disk
cannot be expected to do: for what the features of the store's own cases take, or, in a new store, for half
of what features take before compression (measured in float16: between 0.3 and 0.83).
A disk that is full all the same ends the run between two cases, and the next run goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from featcache.card import EncoderCard
from featcache.errors import CorruptStore, GeometryError, ScanReadError, StoreError
from featcache.geometry import Grid
from featcache.machine import free_bytes
from featcache.prepare import foreground_share, uncropped_grid
from featcache.scans import ScanSource, read_header, read_scan
from featcache.sizes import raw_bytes
from featcache.store import FeatureStore
from featcache.text import size_text

if TYPE_CHECKING:
    from featcache.extraction import ExtractOptions

_T = TypeVar("_T")
COMPRESSED = 0.5
"""What features are taken to compress to in a store that has no case yet."""
_LOOKED_AT = 50  # headers, and cases of the store: the others are like them


def check_room(
    out: Path,
    sources: Sequence[ScanSource],
    card: EncoderCard,
    options: ExtractOptions,
    store: FeatureStore | None = None,
) -> None:
    """Refuse to begin where the disk of `out` cannot hold the features of `sources`.

    Voxels of one scan are read, and only where the disk would not hold features without compression.

    Parameters
    ----------
    out : Path
        The store, made or not.
    sources : sequence of ScanSource
        Scans that are still to be encoded.
    card : EncoderCard
    options : ExtractOptions
    store : FeatureStore, optional
        The store with its complete cases, where there are some.

    Raises
    ------
    StoreError
        With what is needed and what is free.
    """
    raw, free = _raw_bytes(sources, card, options), free_bytes(out)
    if raw <= free:
        return
    share = None if store is None else _stored_share(store, card, options)
    if share is None:
        share, why = COMPRESSED * _kept_share(sources, card, options), "compressed to half"
    else:
        why = "as its cases do"
    needed = raw * share
    if needed > free:
        raise StoreError(
            f"{out}: the disk has {size_text(free)} free; the features of {len(sources)} scans need about "
            f"{size_text(needed)} ({card.name}, {options.store_precision}, {why}). Free some space, choose "
            "an --out on another disk, give fewer scans or a coarser --spacing; `featcache plan` tells what each "
            "scan takes",
            path=out,
        )


def _raw_bytes(sources: Sequence[ScanSource], card: EncoderCard, options: ExtractOptions) -> float:
    """Return the bytes of all scans' features, before any crop and compression."""
    grids = [grid for source in _some(sources) if (grid := _grid(source)) is not None]
    if not grids:
        return 0.0
    return sum(_uncropped(grid, card, options) for grid in grids) / len(grids) * len(sources)


def _grid(source: ScanSource) -> Grid | None:
    try:
        return read_header(source)
    except ScanReadError:
        return None  # told when its turn comes


def _uncropped(native: Grid, card: EncoderCard, options: ExtractOptions) -> int:
    prepared = uncropped_grid(native, card.preparation, options.spacing)
    return raw_bytes(prepared, card, options.precision.dtype)


def _stored_share(store: FeatureStore, card: EncoderCard, options: ExtractOptions) -> float | None:
    """Return what the store's cases take of their uncropped, uncompressed bytes; None if it has none."""
    stored, raw = 0, 0
    for name in _some(store.cases()):
        try:
            document = store.case(name).document
        except CorruptStore:
            continue
        stored += sum(size for size, _ in document.manifest.values())
        raw += _uncropped(document.info.native, card, options)
    return stored / raw if raw else None


def _kept_share(sources: Sequence[ScanSource], card: EncoderCard, options: ExtractOptions) -> float:
    """Return which part of a scan the crop keeps, from the first scan that can be read."""
    if card.preparation.crop is None:
        return 1.0
    for source in sources:
        try:
            scan = read_scan(source, unit=card.unit, nan_to=options.nan_to)
            return foreground_share(scan, card.preparation)
        except (ScanReadError, GeometryError):
            continue
    return 1.0


def _some(items: Sequence[_T]) -> Sequence[_T]:
    """Return at most `_LOOKED_AT` of the items, evenly spread."""
    return items[:: -(-len(items) // _LOOKED_AT)] if items else items
