"""Windows -> finished slabs of one level, in memory that does not grow with the scan's length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from featcache.card import Output
from featcache.geometry import Triple
from featcache.windows import Window, WindowPlan


def buffer_shape(
    plan: WindowPlan, output: Output, shape: Triple, axes: Triple = (0, 1, 2)
) -> tuple[int, int, int, int]:
    """Return what a `Stitcher` of these arguments holds: channels x X x Y x the depth of a window."""
    depth = max(span.stop - span.start for span in plan.spans(output, axes[2]))
    return output.channels, shape[0], shape[1], depth


class Stitcher:
    """Blends the windows of one level, layer by layer along the last axis.

    Add every window of a layer, then take the slabs that `finish_layer` yields: no later window reaches
    them. The buffer holds one layer of windows: channels x X x Y x the depth of a window.

    Parameters
    ----------
    plan : WindowPlan
        Windows of the prepared volume.
    output : Output
        The level.
    shape : tuple of 3 int
        Features to keep, the rest being padding.
    axes : tuple of 3 int
        Order in which the windows' axes are stored; `shape` and the slabs are in this order.
    """

    def __init__(self, plan: WindowPlan, output: Output, shape: Triple, axes: Triple = (0, 1, 2)) -> None:
        self._shape, self._axes = shape, axes
        self._spans = tuple(plan.spans(output, axis) for axis in axes)
        self._buffer = np.zeros(buffer_shape(plan, output, shape, axes), np.float32)
        self._done = 0  # slices handed out; the buffer's first slice

    def add(self, window: Window, features: NDArray[np.float32]) -> None:
        """Add one window's output, shape (C, x, y, z) in the windows' order."""
        features = features.transpose(0, *(1 + axis for axis in self._axes))
        target, source, weights = [], [], []
        for axis, spans in enumerate(self._spans):
            span = spans[window.index[self._axes[axis]]]
            keep = max(min(span.stop, self._shape[axis]) - span.start, 0)
            first = span.start - (self._done if axis == 2 else 0)
            target.append(slice(first, first + keep))
            source.append(slice(span.skip, span.skip + keep))
            weights.append(span.weights[:keep])
        part = features[:, source[0], source[1], source[2]]
        x, y, z = weights
        weight = x[:, None, None] * y[:, None] * z
        self._buffer[:, target[0], target[1], target[2]] += part * weight

    def finish_layer(self, layer: int) -> Iterator[NDArray[np.float32]]:
        """Yield what is final after layer number `layer`: at most one slab, (C, X, Y, z) float32."""
        spans = self._spans[2]
        last = layer == len(spans) - 1
        final = min(self._shape[2] if last else spans[layer + 1].start, self._shape[2])
        count = final - self._done
        if count <= 0:
            return
        yield self._buffer[..., :count].copy()
        rest = self._buffer.shape[3] - count
        self._buffer[..., :rest] = self._buffer[..., count:].copy()
        self._buffer[..., rest:] = 0
        self._done = final
