"""Where the windows lie, and how much each one weighs in the blended volume.

Windows are the product of three axes, and so are their weights: the weight of a voxel in a window is the
product of one number an axis. Dividing by the sum over windows axis by axis therefore normalises the whole
volume, without a volume of weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.card import Blending, EncoderCard, Output
from featcache.geometry import Triple

_GAUSSIAN_SIGMA = 0.125  # of the window: MONAI's and FSEFT's
_SMALLEST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Window:
    """One window: its position along each axis' list of windows, and its first voxel."""

    index: Triple
    start: Triple


@dataclass(frozen=True)
class AxisWindows:
    """Windows along one axis, in prepared voxels.

    Parameters
    ----------
    size : int
        Voxels of a window.
    padded : int
        Voxels that the windows cover, at least the volume's.
    starts : tuple of int
        First voxel of each window, multiples of the step.
    cores : tuple of (int, int)
        Part of the volume that each window alone answers for under ``halo``.
    """

    size: int
    padded: int
    starts: tuple[int, ...]
    cores: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Span:
    """What one window adds to one level along one axis.

    Parameters
    ----------
    start : int
        First feature of the level's volume that it adds to.
    skip : int
        Features of the window's output before that.
    weights : ndarray, shape (n,), float32
        Normalised: over all windows they sum to one at each feature.
    """

    start: int
    skip: int
    weights: NDArray[np.float32]

    @property
    def stop(self) -> int:
        """One past the last feature that the window adds to."""
        return self.start + len(self.weights)


@dataclass(frozen=True)
class WindowPlan:
    """All windows of one volume."""

    axes: tuple[AxisWindows, AxisWindows, AxisWindows]
    blending: Blending

    @property
    def size(self) -> Triple:
        """Voxels of every window."""
        return self.axes[0].size, self.axes[1].size, self.axes[2].size

    @property
    def count(self) -> int:
        """Number of windows."""
        x, y, z = (len(axis.starts) for axis in self.axes)
        return x * y * z

    def layers(self, axis: int = 2) -> Iterator[list[Window]]:
        """Yield the windows of each layer along `axis`, from the first slice on."""
        starts = [plan.starts for plan in self.axes]
        for layer in range(len(starts[axis])):
            steps = [[layer] if a == axis else range(len(starts[a])) for a in range(3)]
            yield [
                Window((i, j, k), (starts[0][i], starts[1][j], starts[2][k]))
                for i, j, k in itertools.product(*steps)
            ]

    def spans(self, output: Output, axis: int) -> tuple[Span, ...]:
        """Return what each window along `axis` adds to the level `output`."""
        plan, stride = self.axes[axis], output.stride[axis]
        if self.blending.kind == "halo":
            return tuple(
                Span(lo // stride, (lo - start) // stride, np.ones((hi - lo) // stride, np.float32))
                for start, (lo, hi) in zip(plan.starts, plan.cores, strict=True)
            )
        n = plan.size // stride
        # Distance of each feature from the window's centre, in input voxels.
        position = np.arange(n) * stride + output.offset[axis] - (plan.size - 1) / 2
        weight = np.exp(-0.5 * np.square(position / (_GAUSSIAN_SIGMA * plan.size)))
        weight = np.maximum(weight, _SMALLEST_WEIGHT)
        total = np.zeros(plan.padded // stride)
        for start in plan.starts:
            total[start // stride :][:n] += weight
        return tuple(
            Span(start // stride, 0, (weight / total[start // stride :][:n]).astype(np.float32))
            for start in plan.starts
        )


def plan_windows(shape: Triple, card: EncoderCard) -> WindowPlan:
    """Return the windows over a prepared volume of `shape` voxels.

    They depend on the shape and the card alone, never on the memory at hand, so that training and test
    scans are cut alike. Starts are multiples of the levels' common stride; the last window is moved back
    to end with the volume, which is padded at its end to that stride (and to one window where the input
    is not dynamic).
    """
    blending, step = card.blending, card.window_step
    x, y, z = (_plan_axis(shape[a], a, card, blending, step[a]) for a in range(3))
    return WindowPlan((x, y, z), blending)


def _plan_axis(n: int, axis: int, card: EncoderCard, blending: Blending, step: int) -> AxisWindows:
    window = card.input.window[axis]
    padded = -(-n // step) * step
    if card.input.dynamic:
        window = min(window, padded)
    padded = max(padded, window)
    halo = -(-blending.halo[axis] // step) * step
    if blending.kind == "halo":
        advance = window - 2 * halo  # at least a step, if there is more than one window: the card is checked
    else:
        # 160 * (1 - .8) is 31.999...: rounded first, or the overlap would grow by a whole step.
        advance = max(int(round(window * (1 - blending.overlap), 6)) // step * step, step)
    starts = [0]
    while starts[-1] + window < padded:
        starts.append(min(starts[-1] + advance, padded - window))
    # Between two windows, the border lies in the middle of what they share.
    borders = [0]
    for left, right in itertools.pairwise(starts):
        borders.append(right + (left + window - right) // 2 // step * step)
    borders.append(padded)
    return AxisWindows(window, padded, tuple(starts), tuple(itertools.pairwise(borders)))
