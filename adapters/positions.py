"""Where a voxel lies in its scan: three channels, for adapters that must tell left from right or chest from belly."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def positions(shape: Sequence[int], start: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """Return the position of each voxel of a box, from -1 to 1 along each axis of the whole feature grid.

    Where the card crops scans to the foreground, the grid is the body's bounding box, so that a position means the
    same place in bodies of different size; along the patient's length it means the same only where scans cover
    the same part of the body.

    Parameters
    ----------
    shape : sequence of 3 int
        Of the feature grid.
    start, size : sequence of 3 int
        A box in it.

    Returns
    -------
    Tensor, shape (3, x, y, z), float32
    """
    axes = [
        (torch.arange(a, a + n, dtype=torch.float32) + 0.5) / whole * 2 - 1
        for whole, a, n in zip(shape, start, size, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))
