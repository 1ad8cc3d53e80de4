"""Features that can be stored: finite, and within what the precision holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from featcache.errors import EncoderError
from featcache.quantise import Features, Precision


def check_storable(slab: Features, precision: Precision, *, case: str, where: str) -> None:
    """Raise EncoderError, for the case and naming `where`, unless every value of a slab (C, ...) can be stored."""
    limit = precision.limit
    # min and max let NaN through and need no temporary of the slab's size.
    if all(-limit <= channel.min() and channel.max() <= limit for channel in slab if channel.size):
        return
    size = np.abs(slab)
    finite = np.isfinite(slab)
    largest = float(size.max(where=finite, initial=0.0))
    n_nan = int(np.isnan(slab).sum())
    n_infinite = slab.size - int(finite.sum()) - n_nan
    n_beyond = int((size > limit).sum()) - n_infinite
    if n_nan or n_infinite:
        raise EncoderError(
            f"case {case}, {where}: {n_nan} NaN and {n_infinite} infinite of {slab.size} features (largest finite "
            f"magnitude {largest:g}); expected finite ones. Check the scan for such voxels and the "
            "encoder for an overflow",
            case=case,
        )
    raise EncoderError(
        f"case {case}, {where}: {n_beyond} of {slab.size} features lie beyond {precision.name}'s ±{limit:g} (largest "
        f"magnitude {largest:g}); run again with --store-precision float32",
        case=case,
    )


def storable(
    case: str, slabs: Iterable[tuple[str, Features]], precision: Precision
) -> Iterator[tuple[str, Features]]:
    """Yield a case's slabs, (level, features), each once it is known that it can be stored.

    Raises
    ------
    EncoderError
        If a value cannot.
    """
    for name, slab in slabs:
        check_storable(slab, precision, case=case, where=f"level {name}")
        yield name, slab
