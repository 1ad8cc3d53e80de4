"""Linear interpolation between grids that share their axes, one axis at a time, with torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from featcache.geometry import AxisMap


def interpolate(values: torch.Tensor, positions: Sequence[NDArray[np.float64]]) -> torch.Tensor:
    """Return `values` at the product of `positions`, linearly; beyond the border it repeats.

    Parameters
    ----------
    values : Tensor, shape (C, X, Y, Z)
    positions : three ndarrays, shape (n,), float64
        Indices into `values` along X, Y and Z.

    Returns
    -------
    Tensor, shape (C, n_x, n_y, n_z)
    """
    # The axis that shrinks most goes first: less to do for the others.
    growth = [len(p) / n for p, n in zip(positions, values.shape[1:], strict=True)]
    for axis in sorted(range(3), key=growth.__getitem__):
        values = _along(values, axis + 1, positions[axis])
    return values


def _along(values: torch.Tensor, axis: int, position: NDArray[np.float64]) -> torch.Tensor:
    size = values.shape[axis]
    if len(position) == size and np.array_equal(position, np.arange(size)):
        return values
    inside = np.clip(position, 0, size - 1)
    low = np.minimum(np.floor(inside).astype(np.int64), max(size - 2, 0))
    high = np.minimum(low + 1, size - 1)
    shape = [1] * values.ndim
    shape[axis] = -1
    weight = torch.from_numpy((inside - low).astype(np.float32)).to(values).view(shape)
    device = values.device
    first = values.index_select(axis, torch.from_numpy(low).to(device))
    second = values.index_select(axis, torch.from_numpy(high).to(device))
    return torch.lerp(first, second, weight)


def source_positions(
    step: AxisMap, start: Sequence[int], size: Sequence[int]
) -> tuple[list[NDArray[np.float64]], tuple[int, int, int]]:
    """Return source indices for a box of target voxels, and which source axis each target axis follows.

    Parameters
    ----------
    step : AxisMap
        Target index -> source index.
    start, size : sequences of 3 int
        The box in the target.

    Returns
    -------
    positions : list of 3 ndarrays
        Per SOURCE axis, the source indices of the box' voxels along the target axis that follows it.
    axes : tuple of 3 int
        ``axes[t]`` is the source axis that target axis t follows.
    """
    positions: list[NDArray[np.float64]] = [np.zeros(0)] * 3
    for t, source in enumerate(step.axes):
        index = np.arange(start[t], start[t] + size[t], dtype=np.float64)
        positions[source] = index * step.scale[t] + step.offset[t]
    return positions, step.axes
