"""Where voxels lie: pure functions of a shape and an affine.

Index order is (X, Y, Z), voxel centres have integer indices, world coordinates are millimetres in RAS+
(nibabel's convention). docs/coordinates.md is the long form of this file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from featcache.errors import GeometryError

Triple = tuple[int, int, int]
FloatTriple = tuple[float, float, float]
SizeRule = Literal["ceil", "floor"]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First voxel and one past the last, along each axis of a grid."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid of voxel centres.

    Parameters
    ----------
    shape : tuple of 3 int
        Voxels along each axis.
    affine : ndarray, shape (4, 4), float64
        Index to world coordinates, mm, RAS+.

    Raises
    ------
    GeometryError
        If the shape is not three positive integers or the affine is not invertible.
    """

    shape: Triple
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"a grid needs three positive sizes, found {shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError(f"a grid needs a finite 4x4 affine, found {affine.tolist()}")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise GeometryError(f"the affine is singular: {affine.tolist()}")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grid):
            return NotImplemented
        return self.shape == other.shape and bool(np.array_equal(self.affine, other.affine))

    __hash__ = None  # type: ignore[assignment]

    def to_json(self) -> dict[str, Any]:
        """Return the grid as JSON values; float64 survives the round trip exactly."""
        return {"shape": list(self.shape), "affine": self.affine.tolist()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Grid:
        """Return the grid written by `to_json`."""
        try:
            return cls(document["shape"], np.asarray(document["affine"], dtype=np.float64))
        except (KeyError, TypeError, ValueError) as error:
            raise GeometryError(
                f"a grid needs 'shape' (3 int) and 'affine' (4x4), found {document!r}"
            ) from error


def whole(grid: Grid) -> Box:
    """Return the box of all voxels."""
    x, y, z = grid.shape
    return (0, x), (0, y), (0, z)


def spacing(grid: Grid) -> FloatTriple:
    """Return the distance between neighbouring voxel centres along each axis, mm."""
    x, y, z = np.linalg.norm(grid.affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def axis_codes(grid: Grid) -> str:
    """Return the direction in which each axis mostly points, such as ``"RAS"``."""
    return "".join(nib.orientations.aff2axcodes(grid.affine))


def world(grid: Grid, index: NDArray[Any]) -> NDArray[np.float64]:
    """Return world coordinates (mm, RAS+) of voxel indices, both shape (..., 3)."""
    return np.asarray(index, dtype=np.float64) @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def corners(grid: Grid) -> NDArray[np.float64]:
    """Return the world coordinates of the eight corner voxel centres, shape (8, 3), mm."""
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape], indexing="ij"))
    return world(grid, ends.reshape(3, 8).T)


def corner_distance(a: Grid, b: Grid) -> float:
    """Return the largest distance between equal corners, in voxels of the finer spacing.

    The shapes must be equal; compare them first.
    """
    distance = np.linalg.norm(corners(a) - corners(b), axis=1).max()
    return float(distance / min(*spacing(a), *spacing(b)))


@dataclass(frozen=True)
class Reorientation:
    """How to turn an array from one orientation to another: permute axes, then flip.

    ``new_axis[i] = old_axis[axes[i]]``, reversed where ``flips[i]``.
    """

    axes: Triple
    flips: tuple[bool, bool, bool]


def reorient(grid: Grid, codes: str) -> tuple[Grid, Reorientation]:
    """Return the same voxels in the orientation `codes`, and how to get there.

    Raises
    ------
    GeometryError
        If `codes` does not name each of the axes L/R, P/A and I/S once.
    """
    check_axis_codes(codes)
    have = nib.orientations.io_orientation(grid.affine)
    want = nib.orientations.axcodes2ornt(tuple(codes))
    axes = [int(np.flatnonzero(have[:, 0] == axis)[0]) for axis in want[:, 0]]
    flips = [bool(have[axes[i], 1] != want[i, 1]) for i in range(3)]
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1.0
    for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
        matrix[old, new] = -1.0 if flip else 1.0
        matrix[old, 3] = grid.shape[old] - 1 if flip else 0.0
    shape = (grid.shape[axes[0]], grid.shape[axes[1]], grid.shape[axes[2]])
    step = Reorientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))
    return Grid(shape, grid.affine @ matrix), step


def check_axis_codes(codes: str) -> None:
    """Raise GeometryError unless `codes` is one of the 48 orientations, such as "RAS" or "LIA"."""
    pairs = ("LR", "PA", "IS")
    named = sorted(i for c in codes for i, pair in enumerate(pairs) if c in pair)
    if len(codes) != 3 or named != [0, 1, 2]:
        raise GeometryError(
            f"orientation {codes!r}: expected three letters, one each of L/R, P/A and I/S, "
            "such as 'RAS' or 'LIA'"
        )


def apply_reorientation(array: NDArray[Any], step: Reorientation) -> NDArray[Any]:
    """Return a view of `array` (X, Y, Z) with axes permuted and flipped."""
    turned = array.transpose(step.axes)
    return turned[tuple(slice(None, None, -1 if flip else 1) for flip in step.flips)]


def permute(grid: Grid, axes: Triple) -> Grid:
    """Return the same voxels with axis i taken from axis ``axes[i]``."""
    affine = grid.affine.copy()
    affine[:3, :3] = affine[:3, list(axes)]
    return Grid((grid.shape[axes[0]], grid.shape[axes[1]], grid.shape[axes[2]]), affine)


def crop(grid: Grid, start: Sequence[int], size: Sequence[int]) -> Grid:
    """Return the sub-grid of `size` voxels that begins at voxel `start`.

    A negative start or a size beyond the end gives a padded grid: the affine only shifts.
    """
    affine = grid.affine.copy()
    affine[:3, 3] = world(grid, np.asarray(start))
    return Grid((int(size[0]), int(size[1]), int(size[2])), affine)


def respace(grid: Grid, target: Sequence[float]) -> Grid:
    """Return a grid of the spacing `target` (mm) over the same voxels.

    The first voxel centre stays; the last one is covered. An axis whose spacing already agrees within
    0.1 % is left exactly as it is, so that no interpolation happens on it.
    """
    have = spacing(grid)
    factor = np.ones(3)
    shape = list(grid.shape)
    for axis, (old, new) in enumerate(zip(have, target, strict=True)):
        if not new > 0:
            raise GeometryError(f"a spacing must be positive, found {tuple(target)} mm")
        if abs(new / old - 1.0) > 1e-3:
            factor[axis] = new / old
            shape[axis] = math.ceil((grid.shape[axis] - 1) * old / new - 1e-3) + 1
    affine = grid.affine.copy()
    affine[:3, :3] = affine[:3, :3] * factor
    return Grid((shape[0], shape[1], shape[2]), affine)


def feature_size(size: int, stride: int, rule: SizeRule) -> int:
    """Return how many features an axis of `size` voxels yields at `stride`."""
    return -(-size // stride) if rule == "ceil" else size // stride


def feature_grid(
    grid: Grid,
    stride: Sequence[int],
    offset: Sequence[float],
    rule: SizeRule = "ceil",
) -> Grid:
    """Return the grid of an encoder output: ``affine @ [diag(stride) | offset]``.

    Parameters
    ----------
    grid : Grid
        The prepared volume's grid.
    stride : sequence of 3 int
        Input voxels from one feature to the next, per axis.
    offset : sequence of 3 float
        Position of feature (0, 0, 0) in input voxels: 0 for padded odd-kernel strided convolutions,
        ``(stride - 1) / 2`` for patch embeddings and pooling.
    rule : {"ceil", "floor"}
        How a size that is no multiple of the stride is rounded.
    """
    matrix = np.diag([*(float(s) for s in stride), 1.0])
    matrix[:3, 3] = offset
    x, y, z = (feature_size(n, s, rule) for n, s in zip(grid.shape, stride, strict=True))
    return Grid((x, y, z), grid.affine @ matrix)


@dataclass(frozen=True)
class AxisMap:
    """Indices of one grid in terms of another that has the same axes up to order, sign and scale.

    ``source[axes[t]] = scale[t] * target[t] + offset[t]``
    """

    axes: Triple
    scale: FloatTriple
    offset: FloatTriple


def axis_map(source: Grid, target: Grid) -> AxisMap:
    """Return the source index of every target index, one axis at a time.

    Every grid that featcache derives from a scan (reoriented, cropped, respaced, strided) keeps the
    scan's axes, so going between any two of them is separable.

    Raises
    ------
    GeometryError
        If the two grids are rotated or sheared against each other.
    """
    matrix = np.linalg.inv(source.affine) @ target.affine
    axes = [int(np.abs(matrix[:3, t]).argmax()) for t in range(3)]
    scale = [float(matrix[axes[t], t]) for t in range(3)]
    # Drift that an off-axis term makes from one end of the target to the other, in source voxels.
    off_axis = matrix[:3, :3].copy()
    for t in range(3):
        off_axis[axes[t], t] = 0.0
    drift = float(np.abs(off_axis * np.asarray(target.shape)).max())
    if sorted(axes) != [0, 1, 2] or drift > 0.1:
        raise GeometryError(
            "the two grids are rotated against each other "
            f"(drift of {drift:.2f} voxels over the grid); expected grids of one scan"
        )
    offset = [float(matrix[axes[t], 3]) for t in range(3)]
    return AxisMap(
        (axes[0], axes[1], axes[2]), (scale[0], scale[1], scale[2]), (offset[0], offset[1], offset[2])
    )
