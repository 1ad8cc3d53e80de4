"""Distances between the surfaces of two masks, in mm.

A surface is the set of border voxels: those of the mask with at least one of their six neighbours outside
it, or at the array's edge. Distances run between voxel centres and each border voxel counts once, as in
MetricsReloaded (Maier-Hein et al., Nature Methods 2024, 21:195) and MONAI; DeepMind's surface-distance
weighs by area instead, which differs where the spacing is unequal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Distances = tuple[NDArray[np.float64], NDArray[np.float64]]

# Spacings come from float32 affines, where 2 mm may read 2.0000002: a distance of exactly the tolerance
# must not fall on either side of it by chance.
_SLACK_MM = 1e-4


def border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels of a mask, shape (X, Y, Z), that touch its outside by a face."""
    inside: NDArray[np.bool_] = ndimage.binary_erosion(mask)
    return mask & ~inside


def surface_distances(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing: Sequence[float]) -> Distances:
    """Return each border voxel's distance to the other mask's border.

    Parameters
    ----------
    a, b : ndarray of bool, shape (X, Y, Z)
        Masks with at least one voxel each. Memory is about 26 bytes a voxel of this box, so crop both to
        the box that holds them: the result stays the same.
    spacing : sequence of 3 float
        Distance between neighbouring voxel centres along each axis, mm.

    Returns
    -------
    tuple of ndarray, float64
        From `a`'s border to `b`'s, shape (border voxels of a,), and the reverse; mm.
    """
    border_a, border_b = border(a), border(b)
    return _to_nearest(border_a, border_b, spacing), _to_nearest(border_b, border_a, spacing)


def normalised_surface_distance(distances: Distances, tolerance_mm: float) -> float:
    """Return the share of both surfaces that lies within `tolerance_mm` of the other, 0 to 1.

    Nikolov et al., J Med Internet Res 2021, 23(7):e26151, the "surface Dice", with voxels counted.
    """
    within = sum(int(np.count_nonzero(d <= tolerance_mm + _SLACK_MM)) for d in distances)
    return within / sum(d.size for d in distances)


def hausdorff(distances: Distances, percentile: float = 95.0) -> float:
    """Return the Hausdorff distance at a percentile, mm.

    The percentile is taken in each direction and the larger one counts, as in MetricsReloaded
    (``measured_hausdorff_distance_perc``) and MONAI (``HausdorffDistanceMetric``); pooling both directions
    first, as some tools do, gives smaller numbers.
    """
    return max(float(np.percentile(d, percentile)) for d in distances)


def _to_nearest(
    start: NDArray[np.bool_], goal: NDArray[np.bool_], spacing: Sequence[float]
) -> NDArray[np.float64]:
    # The nearest voxel's index instead of the distance halves scipy's memory: it would otherwise make
    # three float64 maps of the box, where a distance is needed at border voxels only.
    nearest: NDArray[Any] = ndimage.distance_transform_edt(
        ~goal, sampling=tuple(spacing), return_distances=False, return_indices=True
    )
    steps = np.argwhere(start) - nearest[:, start].T
    result: NDArray[np.float64] = np.linalg.norm(steps * np.asarray(spacing), axis=1)
    return result
