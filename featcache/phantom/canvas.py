"""A grid in the patient's axes on which tissues are painted one over the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import BSpline

from featcache.phantom import shapes
from featcache.phantom.shapes import Array, Points
from featcache.phantom.structures import STRUCTURES, TISSUE_VALUES

Region = tuple[slice, slice, slice]
MARGIN = 26.0
"""No point is displaced by more than this, mm: a shape's box is widened by it."""


def smooth_noise(
    axes: Sequence[NDArray[np.float64]], wavelength: float, random: np.random.Generator
) -> Array:
    """Smooth noise of deviation about 1 on a grid given by its axes (mm): a cubic B-spline of random knots."""
    matrices = []
    for axis in axes:
        knots = np.arange(axis.min() - 4 * wavelength, axis.max() + 5 * wavelength, wavelength)
        matrices.append(BSpline.design_matrix(axis, knots, 3).toarray().astype(np.float32))
    field = random.standard_normal([m.shape[1] for m in matrices]).astype(np.float32)
    for matrix in matrices:  # each turn moves the next axis to the front
        field = np.tensordot(field, matrix, axes=(0, 1))
    return np.ascontiguousarray(field * np.float32(3.0))


@dataclass
class Canvas:
    """What has been painted so far; `paint` changes it in place.

    Parameters
    ----------
    axes
        Three ascending vectors: world position of the voxels, mm, towards the patient's right, front and head.
    points
        Where each voxel lies in the reference body, mm (X, Y, Z): the world position, bent and displaced.
    rough
        Smooth noise of about 1 with which surfaces are roughened.
    tissue, label
        Values of TISSUE_VALUES and STRUCTURES, uint8 (X, Y, Z).
    under
        Tissue below the last painted one, and `share`, how much of a voxel the last one fills: partial volume.
    """

    axes: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    points: Points
    rough: Array
    scale: NDArray[np.float64]
    random: np.random.Generator

    def __post_init__(self) -> None:
        shape = self.rough.shape
        self.tissue = np.zeros(shape, np.uint8)
        self.label = np.zeros(shape, np.uint8)
        self.under = np.zeros(shape, np.uint8)
        self.share = np.ones(shape, np.float32)
        self._edge = float(np.clip(np.mean([axis[1] - axis[0] for axis in self.axes[:2]]), 0.8, 3.0))
        self._coarse = tuple(np.arange(0, n, 6) for n in shape)
        self._shift = tuple(  # by how much the body's points are displaced, mm of the world, on a coarse grid
            axis[self._coarse[n]].reshape([-1 if i == n else 1 for i in range(3)])
            - points[np.ix_(*self._coarse)] * self.scale[n]
            for n, (axis, points) in enumerate(zip(self.axes, self.points, strict=True))
        )

    @property
    def whole(self) -> Region:
        """The whole grid."""
        return (slice(None), slice(None), slice(None))

    def box(self, low: ArrayLike, high: ArrayLike) -> Region:
        """Voxels that may fall into a box of the reference body."""
        a, b = np.asarray(low, float) * self.scale, np.asarray(high, float) * self.scale
        middle = (a + b) / 2
        at = middle
        for _ in range(3):  # where the displaced middle lies
            node = tuple(
                int(np.searchsorted(axis[coarse], value).clip(0, len(coarse) - 1))
                for axis, coarse, value in zip(self.axes, self._coarse, at, strict=True)
            )
            at = middle + [shift[node] for shift in self._shift]
        margin = np.minimum(7 + 0.3 * float((b - a).max()) / 2, MARGIN)
        ends = zip(at - (b - a) / 2 - margin, at + (b - a) / 2 + margin, strict=True)
        return tuple(  # type: ignore[return-value]
            slice(*np.searchsorted(axis, end)) for axis, end in zip(self.axes, ends, strict=True)
        )

    def at(self, region: Region) -> Points:
        """The region's points."""
        x, y, z = (axis[region] for axis in self.points)
        return x, y, z

    def sparse(self, region: Region) -> Points:
        """Every few of the region's points, about 4 mm apart: enough for smooth, large shapes; see `dense`."""
        thinned = tuple(
            slice(part.start or 0, part.stop, step) for part, step in zip(region, self.steps, strict=True)
        )
        x, y, z = (axis[thinned] for axis in self.points)
        return x, y, z

    def dense(self, region: Region, values: Array) -> Array:
        """Values at `sparse` points, interpolated to all points of the region."""
        for axis, (part, size, step) in enumerate(zip(region, self.rough.shape, self.steps, strict=True)):
            length = len(range(*part.indices(size)))
            if step == 1 or values.shape[axis] == length:
                continue
            at = np.arange(length, dtype=np.float32) / step
            low = np.minimum(at.astype(int), values.shape[axis] - 1)
            high = np.minimum(low + 1, values.shape[axis] - 1)
            share = (at - low).reshape([-1 if i == axis else 1 for i in range(3)])
            below = values.take(low, axis)
            values = below + share * (values.take(high, axis) - below)
        return np.asarray(values, np.float32)

    @property
    def steps(self) -> list[int]:
        """Voxels from one sparse point to the next."""
        return [max(1, int(4.2 / (axis[1] - axis[0]))) for axis in self.axes]

    def roughness(self, region: Region, amount: float) -> Array:
        """Noise for a surface of the region, mm: another piece of it for every shape."""
        piece = []
        for wanted, size in zip(region, self.rough.shape, strict=True):
            length = len(range(*wanted.indices(size)))
            start = int(self.random.integers(0, size - length + 1))
            piece.append(slice(start, start + length))
        flip = tuple(slice(None, None, int(n)) for n in self.random.choice([-1, 1], 3))
        noise: Array = self.rough[tuple(piece)][flip] * np.float32(amount)
        return noise

    def paint(
        self,
        region: Region,
        distance: Array,
        tissue: str,
        label: str | None = None,
        over: NDArray[np.bool_] | None = None,
    ) -> None:
        """Cover the inside of a shape with a tissue.

        Parameters
        ----------
        distance
            Signed distance to the shape's surface in the region, mm.
        label
            Structure that the inside becomes; none: background, "keep": as it is.
        over
            Voxels of the region that may be covered; all if None.
        """
        near = distance < 0.5 * self._edge
        if over is not None:
            near &= over
        found = np.nonzero(near)
        corner = [part.start or 0 for part in region]
        flat = np.ravel_multi_index(
            [index + start for index, start in zip(found, corner, strict=True)], self.rough.shape
        )
        self.paint_at(flat, distance[found], tissue, label)

    def paint_at(
        self, flat: NDArray[np.int64], distance: Array, tissue: str, label: str | None = None
    ) -> None:
        """Paint as `paint` does where the distances belong to voxels given by their flat index."""
        share = np.clip(0.5 - distance / self._edge, 0, 1)
        inside, rim = share >= 0.5, (share > 0) & (share < 0.5)
        value = TISSUE_VALUES[tissue]
        target, below, part = self.tissue.reshape(-1), self.under.reshape(-1), self.share.reshape(-1)
        here = flat[inside]
        old = target[here]
        below[here] = np.where(old == value, below[here], old)
        part[here] = share[inside]
        target[here] = value
        if label != "keep":
            self.label.reshape(-1)[here] = STRUCTURES[label or "background"]
        here = flat[rim]
        below[here] = value
        part[here] = 1 - share[rim]

    def tube(
        self,
        knots: Sequence[Sequence[float]],
        tissue: str,
        label: str | None = None,
        *,
        steps: int = 6,
        rough: float = 0.0,
    ) -> None:
        """Paint a tube through knots (x, y, z, radius)."""
        found = self.tube_distance(shapes.curve(knots, steps))
        if found is None:
            return
        region, distance = found
        if rough:
            distance = distance + self.roughness(region, rough)
        self.paint(region, distance, tissue, label)

    def tube_distance(self, path: NDArray[np.float64]) -> tuple[Region, Array] | None:
        """Region of a tube along a path (n, 4) of positions and radii, and the distances; None outside the grid."""
        pieces = []
        for a, b in pairwise(path):
            reach = max(a[3], b[3]) + 4
            box = self.box(np.minimum(a[:3], b[:3]) - reach, np.maximum(a[:3], b[:3]) + reach)
            if all(side.start < side.stop for side in box):
                pieces.append((a, b, box))
        if not pieces:
            return None
        region = tuple(
            slice(min(p[2][i].start for p in pieces), max(p[2][i].stop for p in pieces)) for i in range(3)
        )
        distance = np.full([side.stop - side.start for side in region], 1e3, np.float32)
        for a, b, box in pieces:
            local = tuple(
                slice(p.start - r.start, p.stop - r.start) for p, r in zip(box, region, strict=True)
            )
            near = shapes.segment(self.at(box), a[:3], b[:3], (a[3], b[3]))
            np.minimum(distance[local], near, out=distance[local])
        return region, distance  # type: ignore[return-value]

    def blob(
        self,
        centre: ArrayLike,
        radii: ArrayLike,
        tissue: str,
        label: str | None = None,
        *,
        turn: NDArray[np.float64] | None = None,
        rough: float = 0.0,
    ) -> tuple[Region, Array]:
        """Paint a roughened ellipsoid; its region and distances come back."""
        region, distance = self.blob_distance(centre, radii, turn, rough)
        self.paint(region, distance, tissue, label)
        return region, distance

    def blob_distance(
        self, centre: ArrayLike, radii: ArrayLike, turn: NDArray[np.float64] | None = None, rough: float = 0.0
    ) -> tuple[Region, Array]:
        """Region of an ellipsoid, and the distances in it."""
        middle, extent = np.asarray(centre, float), np.asarray(radii, float)
        reach = (np.full(3, extent.max()) if turn is not None else extent) + 12
        region = self.box(middle - reach, middle + reach)
        distance = shapes.ellipsoid(self.at(region), middle, extent, turn)
        return region, distance + self.roughness(region, rough) if rough else distance
