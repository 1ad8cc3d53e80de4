"""PreparedVolume -> finished slabs of every level, window by window. No store, no files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featcache import geometry
from featcache.card import EncoderCard
from featcache.geometry import Grid, Triple
from featcache.head import HeadSampler
from featcache.prepare import PreparedVolume
from featcache.stitch import Stitcher
from featcache.windows import plan_windows


class Encoder(Protocol):
    """What `encode` needs of a runtime."""

    @property
    def card(self) -> EncoderCard:
        """The encoder's card."""

    def __call__(self, window: NDArray[np.float32], /) -> dict[str, NDArray[np.float32]]:
        """Return every output, (C, x, y, z) float32, of one window (1, X, Y, Z)."""


def storage_axes(card: EncoderCard) -> Triple:
    """Return the order in which the prepared axes are stored: the one along the patient's length last.

    Features are finished and written in slabs along the last axis, so that a longer scan has more slabs,
    not larger ones. For RAS nothing changes; an LIA encoder's features are stored as (L, A, I).
    """
    length = next(axis for axis, code in enumerate(card.preparation.orientation) if code in "IS")
    x, y = (axis for axis in range(3) if axis != length)
    return x, y, length


def level_grid(prepared: Grid, card: EncoderCard, level: str) -> Grid:
    """Return the grid of the features that are kept of one level: all that lie over the volume.

    Its axes are in the order of `storage_axes`; the affine carries it.
    """
    output = card.output(level)
    grid = geometry.feature_grid(prepared, output.stride, output.offset)
    return geometry.permute(grid, storage_axes(card))


def encode(
    volume: PreparedVolume,
    encoder: Encoder,
    *,
    sampler: HeadSampler | None = None,
    on_window: Callable[[], None] | None = None,
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield (level, slab) as slabs become final; slabs of one level come in order along the last axis.

    Parameters
    ----------
    volume : PreparedVolume
        Network input.
    encoder : Encoder
        The runtime.
    sampler : HeadSampler, optional
        Sees every window's outputs, for the head.
    on_window : callable, optional
        Called after each window.

    Yields
    ------
    tuple of (str, ndarray)
        Level name and features, shape (C, X, Y, z), float32, on `level_grid`.
    """
    card = encoder.card
    plan, axes = plan_windows(volume.grid.shape, card), storage_axes(card)
    stitchers = {
        output.name: Stitcher(plan, output, level_grid(volume.grid, card, output.name).shape, axes)
        for output in card.outputs
    }
    for layer, windows in enumerate(plan.layers(axes[2])):
        for window in windows:
            values = encoder(cut(volume.voxels, window.start, plan.size, card.preparation.pad_value))
            if sampler is not None:
                sampler.add(values)
            for name, stitcher in stitchers.items():
                stitcher.add(window, values[name])
            if on_window is not None:
                on_window()
        for name, stitcher in stitchers.items():
            for slab in stitcher.finish_layer(layer):
                yield name, slab


def count_windows(shape: Triple, card: EncoderCard) -> int:
    """Return how many windows a prepared volume of `shape` takes."""
    return plan_windows(shape, card).count


def cut(voxels: NDArray[np.float32], start: Triple, size: Triple, pad_value: float) -> NDArray[np.float32]:
    """Return the window of `size` voxels at `start`; what lies beyond the volume is `pad_value`."""
    part = voxels[(slice(None), *(slice(a, a + n) for a, n in zip(start, size, strict=True)))]
    if part.shape[1:] == size:
        return np.ascontiguousarray(part)
    window = np.full((voxels.shape[0], *size), pad_value, np.float32)
    window[(slice(None), *(slice(n) for n in part.shape[1:]))] = part
    return window
