"""Skin, fat, muscle, the two great cavities, arms: what the organs lie in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from featcache.phantom import shapes
from featcache.phantom.canvas import Canvas, smooth_noise
from featcache.phantom.person import Person
from featcache.phantom.shapes import Array
from featcache.phantom.structures import TISSUE_VALUES

# Half width, front and back of the trunk's muscle wall, and the same of the rib cage (through the ribs'
# middle), mm in the reference body, by height above L1.
_WALL = np.array(
    [
        (-420, 150, 62, -88),
        (-330, 158, 82, -90),
        (-260, 162, 100, -94),
        (-200, 150, 112, -86),
        (-140, 137, 116, -74),
        (-60, 132, 116, -70),
        (0, 136, 122, -72),
        (60, 144, 132, -76),
        (120, 150, 142, -80),
        (180, 152, 140, -82),
        (225, 156, 120, -82),
        (255, 158, 98, -80),
        (285, 142, 76, -74),
        (312, 100, 62, -62),
        (345, 68, 54, -56),
        (420, 60, 52, -54),
    ],
    float,
)
_CAGE = np.array(
    [
        (-60, 112, 108, -44),
        (0, 122, 112, -48),
        (50, 130, 120, -53),
        (110, 133, 127, -58),
        (160, 127, 122, -60),
        (200, 114, 108, -57),
        (235, 92, 88, -50),
        (262, 66, 68, -40),
        (285, 42, 50, -28),
        (330, 20, 40, -20),
    ],
    float,
)


@dataclass(frozen=True)
class Trunk:
    """Fields on the whole canvas that the organs are fitted to; distances in mm.

    Parameters
    ----------
    wall, cage
        To the outside of the muscle wall, and to the rib cage's middle.
    belly
        To the abdominal and pelvic cavity's lining, open towards the diaphragm.
    dome
        Height above the diaphragm.
    turn
        Angle around the cage: 0 at the spine, pi at the sternum.
    """

    wall: Array
    cage: Array
    belly: Array
    dome: Array
    turn: Array


@dataclass(frozen=True)
class _Frame:
    """The thinned grid on which the trunk's smooth fields are computed."""

    points: shapes.Points
    height: Array

    def outline(self, profile: np.ndarray, front: Array | float = 0.0) -> tuple[Array, Array, Array, Array]:
        """Half width, half depth, and the points' offsets from the middle of an outline."""
        within = self.height.clip(*profile[[0, -1], 0])
        half, ahead, behind = (
            np.asarray(PchipInterpolator(profile[:, 0], profile[:, i])(within), np.float32) for i in (1, 2, 3)
        )
        ahead = ahead + front
        x, y, _ = self.points
        deep, middle = (ahead - behind) / 2, (ahead + behind) / 2
        return half, np.asarray(deep, np.float32), x, np.asarray(y - middle, np.float32)


def paint_trunk(canvas: Canvas, person: Person, arms: str) -> Trunk:
    """Paint fat, skin, muscles and arms, and find the cavities.

    Parameters
    ----------
    arms
        "up": only the shoulders are seen; "down": beside the body; "crossed": over the belly.
    """
    whole = canvas.whole
    points = canvas.sparse(whole)
    levels = (canvas.axes[2] / canvas.scale[2]).astype(np.float32).reshape(1, 1, -1)
    frame = _Frame(points, levels[:, :, :: canvas.steps[2]])
    wall, cage, turn, skin, sideways = _surfaces(frame, person)
    dome = _diaphragm(frame, person)
    inner = _belly(frame, person, wall, cage, dome)
    wall, cage, turn, skin, sideways, dome, inner = (
        canvas.dense(whole, field) for field in (wall, cage, turn, skin, sideways, dome, inner)
    )
    skin -= canvas.roughness(whole, 1.8)
    limbs = _arms(canvas, person, arms)
    if limbs is not None:
        skin = shapes.smooth_minimum(skin, limbs, 10)
    canvas.paint(whole, skin, "skin")
    canvas.paint(whole, skin + 2.0, "fat")
    if person.woman:
        _glands(canvas, person)
    if limbs is not None:
        canvas.paint(whole, limbs + 5 + 0.35 * person.fat, "muscle")
        _arm_bones(canvas, person, arms)
    canvas.paint(whole, wall, "muscle")
    _cleave_muscles(canvas, person, wall, sideways, levels)
    canvas.paint(whole, inner, "visceral_fat")
    return Trunk(wall, cage, inner, dome, turn)


def _surfaces(frame: _Frame, person: Person) -> tuple[Array, Array, Array, Array, Array]:
    """Muscle wall, rib cage, angle around it, skin, and how far to the side a point lies (0 to 1)."""
    height = frame.height
    paunch = (person.depth + 0.9 * (person.visceral - 16)) * np.exp(-(((height + 45) / 110) ** 2))
    half, deep, u, v = frame.outline(_CAGE)
    grown = person.around(1.0, 0.035)
    cage = shapes.ellipse(u, v, 1.04 * half * grown, 1.03 * deep * grown)
    turn = np.arctan2(np.abs(u) / half, -v / deep).astype(np.float32)
    half, deep, u, v = frame.outline(_WALL, np.asarray(paunch, np.float32))
    wall = shapes.ellipse(u, v, half * person.around(1.0, 0.02), deep, True)
    # Around the chest the wall follows the ribs: muscle before them above, beside and behind them everywhere.
    flesh = person.muscle * (
        7
        + 9 * np.clip((height - 130) / 70, 0, 1) * np.clip((turn - 1.6) / 0.8, 0, 1)
        + 8 * np.exp(-(((turn - 1.0) / 0.5) ** 2))
    )
    chest = np.interp(height, [0, 75, 160, 262], [0, 1, 1, 0]).astype(np.float32)
    wall = np.asarray(wall + chest * (cage - flesh - wall), np.float32)
    back = shapes.ellipse(
        np.abs(u) - 32, frame.points[1] + 46, np.float32(34), np.float32(20 + 6 * person.muscle)
    )
    wall = shapes.smooth_minimum(wall, back, 18)
    girth = np.maximum(np.hypot(u / half, v / deep), 1e-3)
    sideways, forward = np.abs(u) / half / girth, v / deep / girth
    hips = np.exp(-(((height + 250) / 85) ** 2)) * (1.0 if person.woman else 0.4)
    thorax = 1 / (1 + np.exp(-(height - 70) / 35))
    fat = person.fat * (
        0.62
        + 0.55 * np.maximum(forward, 0) ** 2 * (1 - thorax)
        + 0.35 * np.maximum(-forward, 0) ** 2
        + 0.25 * sideways
        + hips * (0.8 - 0.3 * np.maximum(forward, 0))
        - 0.32 * thorax
    )
    skin = np.asarray(wall - np.maximum(fat, 2.5), np.float32)
    if person.woman:
        size = person.around(0.8 + person.fat / 40, 0.25)
        for side in (-1, 1):
            at = (side * 78, 112 + 0.5 * person.fat, person.around(142, 0.05))
            breast = shapes.ellipsoid(frame.points, at, (62, 28 + 18 * size, 64))
            skin = shapes.smooth_minimum(skin, breast, 12)
    return wall, cage, turn, skin, np.asarray(sideways, np.float32)


def _diaphragm(frame: _Frame, person: Person) -> Array:
    """Height above the two domes; they hang lower behind than in front."""
    x, y, z = frame.points
    right = _vault((x - 64) / 78, (y - 34) / 84) * person.around(90, 0.08)
    left = _vault((x + 66) / 76, (y - 30) / 84) * person.around(77, 0.08)
    return np.asarray(z - (10 - person.breath + np.maximum(right, left) + 0.10 * y), np.float32)


def _vault(u: NDArray[Any], v: NDArray[Any]) -> Array:
    """A dome of height 1 with a broad top and steep sides."""
    return np.asarray(1 / (1 + (u * u + v * v) ** 2), np.float32)


def _glands(canvas: Canvas, person: Person) -> None:
    """Strands of gland in the breasts' fat, fewer with age."""
    for side in (-1, 1):
        at = np.array([side * 78.0, 128 + 0.5 * person.fat, 142])
        region, distance = canvas.blob_distance(at, (36, 20, 38), rough=5)
        fat = canvas.tissue[region] == TISSUE_VALUES["fat"]
        strands = distance + (person.age - 20) / 7 + canvas.roughness(region, 6)
        canvas.paint(region, strands, "gland", "keep", fat)


def _arm_paths(person: Person, arms: str) -> list[np.ndarray]:
    wide = 168 + 1.1 * person.fat
    thick = 36 + 0.4 * person.fat
    knots: list[tuple[float, float, float, float]]
    if arms == "down":
        knots = [
            (150, -8, 268, thick + 8),
            (wide + 22, -10, 190, thick + 2),
            (wide + 34, -8, 70, thick - 4),
            (wide + 30, 8, -20, thick - 6),
            (wide + 26, 30, -170, thick - 16),
            (wide + 20, 36, -330, thick - 14),
        ]
    elif arms == "crossed":
        knots = [
            (150, -8, 268, thick + 8),
            (wide + 24, -6, 190, thick),
            (wide + 30, 20, 70, thick - 6),
            (wide - 10, 110 + person.fat, 40, thick - 12),
            (60, 158 + 1.6 * person.fat, 52, thick - 16),
        ]
    else:
        knots = [(120, -20, 268, thick + 6), (150, 0, 330, thick + 4), (140, 30, 400, thick)]
    return [shapes.curve([(side * a, b, c, r) for a, b, c, r in knots], 4) for side in (-1, 1)]


def _arms(canvas: Canvas, person: Person, arms: str) -> Array | None:
    total: Array | None = None
    for path in _arm_paths(person, arms):
        found = canvas.tube_distance(path)
        if found is None:
            continue
        if total is None:
            total = np.full(canvas.rough.shape, 60, np.float32)
        region, distance = found
        total[region] = np.minimum(total[region], distance)
    return total


def _arm_bones(canvas: Canvas, person: Person, arms: str) -> None:
    for path in _arm_paths(person, arms):
        bone = path.copy()
        bone[:, 3] = np.where(np.arange(len(bone)) < 2, 22, 11)
        canvas.tube(bone.tolist(), "cortical_bone", steps=2)
        bone[:, 3] = np.where(np.arange(len(bone)) < 2, 20, 5.5)
        canvas.tube(bone.tolist(), "trabecular_bone", steps=2)


def _cleave_muscles(canvas: Canvas, person: Person, wall: Array, sideways: Array, height: Array) -> None:
    """Fat planes between the layers of the wall, and the midline between the straight muscles."""
    x, y, _ = canvas.points
    wave = canvas.roughness(canvas.whole, 0.7)
    thin = 0.5 + 0.012 * person.age
    for depth in (5.0, 9.5):
        layer = np.abs(wall + depth * person.muscle + wave) - thin * 0.55
        canvas.paint(canvas.whole, np.asarray(layer + 6 * np.maximum(0.45 - sideways, 0), np.float32), "fat")
    line = np.maximum(np.abs(x) - 2.2, 40 - y)
    line = np.maximum(np.maximum(line, -wall - 16), wall + 1)
    canvas.paint(canvas.whole, np.maximum(line, height - 90), "fat")
    cleft = np.maximum(np.maximum(np.abs(x) - 3 - 0.06 * np.abs(height + 250), y + 62), height + 205)
    canvas.paint(canvas.whole, cleft, "fat", over=canvas.tissue == TISSUE_VALUES["muscle"])
    # Septa between muscles: thin sheets where smooth noise changes its sign, thick in the hips and shoulders.
    sheet = np.abs(smooth_noise(canvas.axes, 34, person.random)) * 13
    limbs = np.clip((-170 - height) / 60, 0, 1) + np.clip((height - 190) / 60, 0, 1)
    septa = np.maximum(sheet - 0.3 - 0.9 * limbs * thin, wall + 3)
    canvas.paint(canvas.whole, septa, "fat", "keep", canvas.tissue == TISSUE_VALUES["muscle"])


def _belly(frame: _Frame, person: Person, wall: Array, cage: Array, dome: Array) -> Array:
    """Distance to the lining of the abdomen: inside the muscle wall, before the spine, below the diaphragm."""
    x, y, z = frame.points
    lining = np.maximum(wall + 13.5 * person.muscle, np.minimum(cage + 9, 30))
    back = np.asarray(-(y + 30 + 0.05 * np.abs(x)), np.float32)
    column = shapes.ellipse(x, y + 8, np.float32(34), np.float32(29))
    floor = -(z + 300 - 0.3 * np.abs(x))
    bowl = np.abs(x) - np.interp(frame.height, [-320, -250, -200, -150], [45, 62, 88, 140]).astype(np.float32)
    inner = shapes.smooth_maximum(np.asarray(lining, np.float32), back, 12)
    inner = shapes.smooth_maximum(inner, -column, 8)
    inner = shapes.smooth_maximum(inner, np.asarray(dome + 3, np.float32), 4)
    return shapes.smooth_maximum(inner, np.asarray(np.maximum(floor, bowl), np.float32), 10)
