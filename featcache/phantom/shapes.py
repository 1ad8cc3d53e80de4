"""Signed distances of simple shapes: negative inside, millimetres; arrays in, an array out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]
Points = tuple[Array, Array, Array]


def rotation(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> NDArray[np.float64]:
    """Rotation about the x, then y, then z axis; degrees, 3 x 3."""
    angles = np.deg2rad([x, y, z])
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    turned: NDArray[np.float64] = about_z @ about_y @ about_x
    return turned


def ellipsoid(
    points: Points, centre: ArrayLike, radii: ArrayLike, turn: NDArray[np.float64] | None = None
) -> Array:
    """Approximate distance to an ellipsoid, exact at its surface to first order."""
    c, r = np.asarray(centre, np.float32), np.asarray(radii, np.float32)
    p = [axis - value for axis, value in zip(points, c, strict=True)]
    if turn is not None:
        t = turn.astype(np.float32)
        p = [p[0] * t[0, i] + p[1] * t[1, i] + p[2] * t[2, i] for i in range(3)]
    squared = [(a / b) ** 2 for a, b in zip(p, r, strict=True)]
    k0 = np.sqrt(squared[0] + squared[1] + squared[2])
    k1 = np.sqrt(squared[0] / r[0] ** 2 + squared[1] / r[1] ** 2 + squared[2] / r[2] ** 2)
    return np.asarray(k0 * (k0 - 1) / np.maximum(k1, 1e-6), np.float32)


def ellipse(
    x: NDArray[Any], y: NDArray[Any], half_width: ArrayLike, half_depth: ArrayLike, square: bool = False
) -> Array:
    """Approximate distance in the axial plane to an ellipse, `square`: between ellipse and rectangle."""
    a, b = np.asarray(half_width, np.float32), np.asarray(half_depth, np.float32)
    u, v = np.abs(x) / a, np.abs(y) / b
    k1 = np.sqrt((u / a) ** 2 + (v / b) ** 2)
    if square:
        k0 = np.sqrt(np.sqrt(u**4 + v**4))
        k0 = 0.5 * (k0 + np.sqrt(u**2 + v**2))
    else:
        k0 = np.sqrt(u**2 + v**2)
    return np.asarray(k0 * (k0 - 1) / np.maximum(k1, 1e-6), np.float32)


def segment(points: Points, start: ArrayLike, end: ArrayLike, radii: tuple[float, float]) -> Array:
    """Distance to a tube between two points, its radius going linearly from one to the other."""
    a, b = np.asarray(start, np.float32), np.asarray(end, np.float32)
    along = b - a
    p = [axis - value for axis, value in zip(points, a, strict=True)]
    t = np.clip((p[0] * along[0] + p[1] * along[1] + p[2] * along[2]) / max(float(along @ along), 1e-6), 0, 1)
    squared = [(axis - t * value) ** 2 for axis, value in zip(p, along, strict=True)]
    radius = radii[0] + t * (radii[1] - radii[0])
    return np.asarray(np.sqrt(squared[0] + squared[1] + squared[2]) - radius, np.float32)


def curve(knots: Sequence[Sequence[float]], steps: int = 6) -> NDArray[np.float64]:
    """Catmull-Rom curve through knots of any dimension, `steps` points a knot interval."""
    p = np.asarray(knots, float)
    p = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True)
    ]
    return np.vstack([*pieces, p[-2]])


def smooth_minimum(a: Array, b: Array, reach: float) -> Array:
    """Union with a fillet of about `reach` mm."""
    h = np.maximum(reach - np.abs(a - b), 0)
    return np.asarray(np.minimum(a, b) - h * h * np.float32(0.25 / reach), np.float32)


def smooth_maximum(a: Array, b: Array, reach: float) -> Array:
    """Intersection with an edge rounded over about `reach` mm."""
    return -smooth_minimum(-a, -b, reach)
