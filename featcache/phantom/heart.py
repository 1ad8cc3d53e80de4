"""The heart's chambers and walls, and the great vessels; sizes after reference adult volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from featcache.phantom import shapes
from featcache.phantom.canvas import Canvas, Region
from featcache.phantom.person import Person
from featcache.phantom.shapes import Array

Knot = tuple[float, float, float, float]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Heart:
    """Where the heart lies, how it is turned, and how large it is (1: an average man's)."""

    centre: NDArray[np.float64]
    turn: NDArray[np.float64]
    size: float

    @classmethod
    def of(cls, person: Person) -> Self:
        """This person's heart."""
        size = person.around(1.0, 0.055) * (1.22 if "large_heart" in person.findings else 1.0)
        centre = np.array([-24.0, 66.0, 146.0 - 0.5 * person.breath]) + person.vary(4, 3)
        turn = shapes.rotation(*(person.vary(6, 3)))
        return cls(centre, turn, size * (0.94 if person.woman else 1.0))

    def at(self, x: float, y: float, z: float) -> NDArray[np.float64]:
        """A point given from the heart's centre, in the reference body, mm."""
        moved: NDArray[np.float64] = self.centre + self.size * (self.turn @ np.array([x, y, z]))
        return moved

    def knot(self, x: float, y: float, z: float, radius: float) -> Knot:
        """A vessel's knot given from the heart's centre."""
        a, b, c = self.at(x, y, z)
        return float(a), float(b), float(c), radius


@dataclass(frozen=True)
class _Painter:
    canvas: Canvas
    person: Person
    heart: Heart

    def chamber(
        self, at: Triple, radii: Triple, tilt: Triple, tissue: str, label: str | None, *, grow: float = 0.0
    ) -> tuple[Region, Array]:
        """Paint an ellipsoid that turns with the heart."""
        extent = np.array(radii) * self.heart.size * np.exp(self.person.vary(0.05, 3)) + grow
        turn = self.heart.turn @ shapes.rotation(*tilt)
        return self.canvas.blob(self.heart.at(*at), extent, tissue, label, turn=turn, rough=0.9)

    def vessel(self, knots: list[Knot], tissue: str, label: str | None, *, wall: float = 1.2) -> None:
        """Paint a vessel and its wall (mm); vessels are as large as the heart."""
        points = [(*p[:3], p[3] * self.heart.size) for p in knots]
        self.canvas.tube([(a, b, c, r + wall) for a, b, c, r in points], "muscle", "keep", steps=3)
        self.canvas.tube(points, tissue, label, steps=5, rough=0.4)


def paint_heart(canvas: Canvas, person: Person, heart: Heart) -> None:
    """Paint the chambers from back to front, the left ventricle in its wall last, then the great vessels."""
    painter = _Painter(canvas, person, heart)
    wide = person.around(1.0, 0.07) * (1 + 0.002 * (person.age - 55))
    superior: list[Knot] = [(30, 46, 300, 7), (30, 48, 240, 9.5), (31, 50, 205, 10), (32, 52, 178, 11)]
    innominate: list[Knot] = [(-50, 62, 268, 6), (-20, 74, 250, 6.5), (16, 66, 238, 7), (29, 52, 230, 8)]
    for knots in (superior, innominate):
        painter.vessel(knots, "caval_blood", None, wall=0.8)
    painter.chamber((24, -34, 8), (34, 21, 25), (0, 0, -8), "left_heart_blood", "heart_atrium_left")
    for side in (-1, 1):  # pulmonary veins
        for rise in (-10, 14):
            ends = [
                heart.knot(20 + side * 24, -36, 8 + rise / 2, 6),
                heart.knot(20 + side * 52, -38, 8 + rise, 5),
            ]
            painter.vessel(ends, "left_heart_blood", None, wall=0.6)
    painter.chamber((49, 2, 4), (21, 25, 29), (0, 10, 12), "right_heart_blood", "heart_atrium_right")
    painter.chamber((6, 26, -18), (45, 25, 32), (8, 26, 24), "myocardium", None, grow=3.0)
    painter.chamber((6, 26, -18), (44, 24, 31), (8, 26, 24), "right_heart_blood", "heart_ventricle_right")
    region, outer = painter.chamber(
        (-29, -2, -14), (53, 35, 35), (0.0, 24.0, 34.0), "myocardium", "heart_myocardium"
    )
    thick = 9.0 * heart.size * person.around(1, 0.08)
    base = (canvas.at(region)[0] - heart.at(6, 0, 0)[0]).clip(-60, 60) * 0.25  # no wall at the valves
    cavity = np.asarray(outer + thick - base.clip(-4, 6), np.float32)
    canvas.paint(region, cavity, "left_heart_blood", "heart_ventricle_left")
    _great_vessels(painter, wide)


def _great_vessels(painter: _Painter, wide: float) -> None:
    """Aorta with its branches in neck and pelvis, pulmonary arteries."""
    canvas, person, heart = painter.canvas, painter.person, painter.heart
    arch = 6 * person.vary(1)[0]
    ascending: list[Knot] = [
        heart.knot(8, 6, 14, 14 * wide),
        (10, 62, 186, 15.5 * wide),
        (14, 60, 212, 15 * wide),
        (4, 50, 232 + arch, 14 * wide),
        (-14, 32, 240 + arch, 13 * wide),
        (-26, 14, 228 + arch, 12.5 * wide),
        (-29, 12, 200, 12 * wide),
        (-29, 13, 150, 11.5 * wide),
        (-25, 18, 100, 11 * wide),
        (-16, 27, 60, 10.5 * wide),
        (-10, 31, 20, 10 * wide),
        (-6, 33, -40, 9 * wide),
        (-3, 33, -106, 8.5 * wide),
    ]
    if "aneurysm" in person.findings:
        where = int(person.random.choice([1, 8, 11]))
        ascending[where] = (*ascending[where][:3], ascending[where][3] * person.random.uniform(1.5, 2.2))
    for end in ((34, 40, 300), (-18, 40, 300), (-36, 26, 298)):
        start = (10 - (34 - end[0]) * 0.3, 40, 238 + arch)
        painter.vessel(
            [(*start, 6.5), (*_between(start, end), 5.5), (*end, 5)],
            "arterial_blood",
            None,
            wall=0.8,
        )
    trunk_start = heart.knot(-8, 30, 14, 14.5)
    painter.vessel(
        [
            trunk_start,
            (-20, 74, 190, 14.5),
            (-22, 56, 200, 13.5),
            (-30, 38, 202, 11),
            (-52, 30, 196, 9),
        ],
        "right_heart_blood",
        "pulmonary_artery",
    )
    painter.vessel(
        [(-20, 60, 198, 12), (4, 40, 196, 11), (30, 34, 192, 10.5), (50, 32, 184, 8.5)],
        "right_heart_blood",
        "pulmonary_artery",
    )
    painter.vessel(ascending, "arterial_blood", "aorta", wall=1.6)
    for side in (-1, 1):
        painter.vessel(
            [
                (side * 3, 33, -104, 6.5 * wide),
                (side * 22, 30, -140, 5.5),
                (side * 48, 34, -185, 5),
                (side * 66, 78, -240, 4.5),
                (side * 78, 92, -290, 4.5),
                (side * 84, 84, -360, 4.5),
            ],
            "arterial_blood",
            None,
            wall=0.8,
        )
    if "calcified_aorta" in person.findings or person.age > 68:
        for row in shapes.curve(ascending, 3)[::2]:
            angle = person.random.uniform(0, 2 * np.pi)
            spot = row[:3] + row[3] * np.array([np.cos(angle), np.sin(angle), 0])
            canvas.blob(spot, person.random.uniform(1.0, 3.2, 3), "cortical_bone", "aorta")


def _between(a: Triple, b: Triple) -> Triple:
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2
