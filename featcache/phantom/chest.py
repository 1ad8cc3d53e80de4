"""Lungs with their vessels, windpipe, gullet, heart and great vessels."""

from __future__ import annotations

import numpy as np

from featcache.phantom import shapes
from featcache.phantom.canvas import Canvas
from featcache.phantom.person import Person
from featcache.phantom.shapes import Array
from featcache.phantom.trunk import Trunk


def paint_chest(canvas: Canvas, person: Person, trunk: Trunk) -> None:
    """Paint everything above the diaphragm and inside the rib cage."""
    z = canvas.points[2]
    cavity = np.maximum(trunk.cage + 6.5, -trunk.dome)
    canvas.paint(canvas.whole, np.maximum(cavity, 14 - z), "pericardial_fat")
    heart = _heart_frame(person)
    _lungs(canvas, person, trunk, cavity, heart)
    canvas.paint(canvas.whole, np.maximum(np.maximum(trunk.cage + 5, np.abs(trunk.dome) - 1.6), -z), "muscle")
    _heart(canvas, person, heart)
    _airways(canvas, person)


def _heart_frame(person: Person) -> tuple[np.ndarray, np.ndarray, float]:
    """Centre of the heart, its turn (long axis to the left, front and down), and its size."""
    size = person.around(1.0, 0.055) * (1.22 if "large_heart" in person.findings else 1.0) * (0.94 if person.woman else 1.0)
    centre = np.array([-24.0, 66.0, 146.0 - 0.5 * person.breath]) + person.vary(4, 3)
    turn = shapes.rotation(*(person.vary(6, 3)))
    return centre, turn, size


def _to_body(frame: tuple[np.ndarray, np.ndarray, float], *point: float) -> np.ndarray:
    centre, turn, size = frame
    moved: np.ndarray = centre + size * (turn @ np.asarray(point, float))
    return moved


def _lungs(canvas: Canvas, person: Person, trunk: Trunk, cavity: Array, heart: tuple[np.ndarray, np.ndarray, float]) -> None:
    y, z = canvas.points[1:]
    kept = canvas.dense(canvas.whole, _mediastinum(canvas, heart)) + canvas.roughness(canvas.whole, 1.2)
    lungs = shapes.smooth_maximum(cavity + np.float32(1.5), 3 - kept, 5)
    lungs = np.maximum(lungs, 3 - trunk.dome)
    x = canvas.points[0]
    right = x > -4
    canvas.paint(canvas.whole, lungs, "lung", "lung_right", right)
    canvas.paint(canvas.whole, lungs, "lung", "lung_left", ~right)
    inside = lungs < -2
    _trees(canvas, person, inside)
    if "lung_nodules" in person.findings:
        for _ in range(int(person.random.integers(1, 6))):
            side = person.random.choice([-1, 1])
            place_ = (side * person.random.uniform(45, 95), person.random.uniform(-20, 70), person.random.uniform(90, 230))
            region, distance = canvas.blob_distance(place_, np.full(3, person.random.uniform(3, 13)), rough=1.5)
            canvas.paint(region, distance, "lesion", "keep", inside[region])
    if "effusion" in person.findings:
        side = person.random.choice([-1, 1])
        level = person.random.uniform(-30, 5)
        fluid = np.maximum(np.maximum(lungs, y - level - 0.25 * (90 - z)), -side * x)
        canvas.paint(canvas.whole, np.asarray(fluid, np.float32), "effusion")


def _mediastinum(canvas: Canvas, heart: tuple[np.ndarray, np.ndarray, float]) -> Array:
    """Distance, at sparse points, to what lies between the lungs: vessels, heart in its sac, spine, aorta."""
    x, y, z = points = canvas.sparse(canvas.whole)
    _, turn, size = heart
    spread = np.interp(z, [20, 90, 170, 215, 260, 300], [17, 20, 24, 27, 26, 24]).astype(np.float32)
    middle = np.abs(x + 4) - spread * (0.35 + 0.65 * np.clip((104 - y) / 55, 0, 1)) - 1.5
    spine = shapes.ellipse(x, y + 4, np.float32(29), np.float32(27))
    sac = shapes.ellipsoid(
        points, _to_body(heart, 2, 2, -8), np.array([72, 50, 52]) * size, turn @ shapes.rotation(0, 20, 22)
    )
    descending = shapes.ellipse(x + 27, y - 12, np.float32(17), np.float32(17))
    return np.asarray(np.minimum.reduce([middle, spine, sac, descending]), np.float32)


def _trees(canvas: Canvas, person: Person, inside: np.ndarray) -> None:
    """Vessels of the lungs: from each hilum, branching and thinning towards the pleura."""
    random = person.random
    for side in (-1, 1):
        root = np.array([side * 42.0 - 6, 34.0, 178.0])
        targets = np.column_stack([side * random.uniform(42, 122, 64), random.uniform(-48, 98, 64), random.uniform(46, 272, 64)])
        branches: list[tuple[np.ndarray, np.ndarray, float]] = []
        for target in targets:
            knee = root + (target - root) * 0.35 + random.normal(0, 7, 3)
            elbow = root + (target - root) * 0.7 + random.normal(0, 6, 3)
            thick = random.uniform(2.4, 5.0)
            branches += [(root, knee, thick), (knee, elbow, thick * 0.62), (elbow, target, thick * 0.4)]
            for _ in range(2):
                branches.append((elbow, elbow + random.normal(0, 17, 3), thick * 0.36))
        for a, b, thick in branches:
            found = canvas.tube_distance(np.vstack([[*a, thick], [*b, thick * 0.66]]))
            if found is not None:
                region, distance = found
                canvas.paint(region, distance, "pulmonary_vessel", "keep", inside[region])


def _heart(canvas: Canvas, person: Person, frame: tuple[np.ndarray, np.ndarray, float]) -> None:
    """Four chambers, their walls, the great vessels; sizes after reference adult volumes."""
    _, turn, size = frame

    def chamber(at: tuple[float, float, float], radii: tuple[float, float, float], tilt: tuple[float, float, float], tissue: str,
                label: str | None, grow: float = 0.0, rough: float = 0.9) -> tuple[tuple[slice, slice, slice], Array]:  # fmt: skip
        extent = np.array(radii) * size * np.exp(person.vary(0.05, 3)) + grow
        return canvas.blob(_to_body(frame, *at), extent, tissue, label, turn=turn @ shapes.rotation(*tilt), rough=rough)

    def vessel(knots: list[tuple[float, float, float, float]], tissue: str, label: str | None, wall: float = 1.2) -> None:
        points = [(*p[:3], p[3] * size) for p in knots]
        canvas.tube([(a, b, c, r + wall) for a, b, c, r in points], "muscle", "keep", steps=3)
        canvas.tube(points, tissue, label, steps=5, rough=0.4)

    def inner(*rows: tuple[float, float, float, float]) -> list[tuple[float, float, float, float]]:
        return [(*map(float, _to_body(frame, *row[:3])), row[3]) for row in rows]  # type: ignore[misc]

    wide = person.around(1.0, 0.07) * (1 + 0.002 * (person.age - 55))
    long_axis = (0.0, 24.0, 34.0)
    vessel([(30, 46, 300, 7), (30, 48, 240, 9.5), (31, 50, 205, 10), (32, 52, 178, 11)], "caval_blood", None, 0.8)
    vessel([(-50, 62, 268, 6), (-20, 74, 250, 6.5), (16, 66, 238, 7), (29, 52, 230, 8)], "caval_blood", None, 0.8)
    chamber((24, -34, 8), (34, 21, 25), (0, 0, -8), "left_heart_blood", "heart_atrium_left")
    for side in (-1, 1):  # pulmonary veins
        for rise in (-10, 14):
            vessel(inner((20 + side * 24, -36, 8 + rise / 2, 6), (20 + side * 52, -38, 8 + rise, 5)), "left_heart_blood", None, 0.6)
    chamber((49, 2, 4), (21, 25, 29), (0, 10, 12), "right_heart_blood", "heart_atrium_right")
    chamber((6, 24, -18), (42, 22, 29), (8, 26, 24), "myocardium", "background", 3.0)
    chamber((6, 24, -18), (41, 21, 28), (8, 26, 24), "right_heart_blood", "heart_ventricle_right")
    region, outer = chamber((-28, -2, -14), (47, 30, 30), long_axis, "myocardium", "heart_myocardium")
    thick = 9.5 * size * person.around(1, 0.08)
    base = (canvas.at(region)[0] - _to_body(frame, 6, 0, 0)[0]).clip(-60, 60) * 0.25
    canvas.paint(region, np.asarray(outer + thick - base.clip(-4, 6), np.float32), "left_heart_blood", "heart_ventricle_left")
    _great_vessels(canvas, person, frame, wide, vessel, inner)


def _great_vessels(canvas: Canvas, person: Person, frame, wide: float, vessel, inner) -> None:  # type: ignore[no-untyped-def]
    arch = 6 * person.vary(1)[0]
    out = _to_body(frame, 8, 6, 14)
    ascending = [(*map(float, out), 14 * wide), (10, 62, 186, 15.5 * wide), (14, 60, 212, 15 * wide), (4, 50, 232 + arch, 14 * wide),
                 (-14, 32, 240 + arch, 13 * wide), (-26, 14, 228 + arch, 12.5 * wide), (-29, 12, 200, 12 * wide), (-29, 13, 150, 11.5 * wide),
                 (-25, 18, 100, 11 * wide), (-16, 27, 60, 10.5 * wide), (-10, 31, 20, 10 * wide), (-6, 33, -40, 9 * wide),
                 (-3, 33, -106, 8.5 * wide)]  # fmt: skip
    if "aneurysm" in person.findings:
        where = int(person.random.choice([1, 8, 11]))
        ascending[where] = (*ascending[where][:3], ascending[where][3] * person.random.uniform(1.5, 2.2))
    for end in ((34, 40, 300), (-18, 40, 300), (-36, 26, 298)):
        start = (10 - (34 - end[0]) * 0.3, 40, 238 + arch)
        vessel([(*start, 6.5), (*(np.array(start) * 0.5 + np.array(end) * 0.5), 5.5), (*end, 5)], "arterial_blood", None, 0.8)
    trunk_start = tuple(float(n) for n in _to_body(frame, -8, 30, 14))
    root = np.interp(0.5, [0, 1], [14, 15])
    vessel([(*trunk_start, root), (-20, 74, 190, 14.5), (-22, 56, 200, 13.5), (-30, 38, 202, 11), (-52, 30, 196, 9)],
           "right_heart_blood", "pulmonary_artery")  # fmt: skip
    vessel([(-20, 60, 198, 12), (4, 40, 196, 11), (30, 34, 192, 10.5), (50, 32, 184, 8.5)], "right_heart_blood", "pulmonary_artery")
    vessel(ascending, "arterial_blood", "aorta", 1.6)
    for side in (-1, 1):
        vessel([(side * 3, 33, -104, 6.5 * wide), (side * 22, 30, -140, 5.5), (side * 48, 34, -185, 5), (side * 66, 78, -240, 4.5),
                (side * 78, 92, -290, 4.5), (side * 84, 84, -360, 4.5)], "arterial_blood", None, 0.8)  # fmt: skip
    if "calcified_aorta" in person.findings or person.age > 68:
        for row in shapes.curve(ascending, 3)[::2]:
            angle = person.random.uniform(0, 2 * np.pi)
            spot = row[:3] + row[3] * np.array([np.cos(angle), np.sin(angle), 0])
            canvas.blob(spot, person.random.uniform(1.0, 3.2, 3), "cortical_bone", "aorta")


def _airways(canvas: Canvas, person: Person) -> None:
    wide = person.around(8.6 if person.woman else 9.6, 0.07)
    drift = person.vary(2)[0]
    gullet = [(-4 + drift, 22, 320, 6), (-6, 20, 270, 7), (-9, 18, 232, 7), (-9, 17, 200, 7.5), (-10, 16, 160, 7.5), (-16, 24, 118, 7.5),
              (-22, 34, 92, 8), (-34, 44, 74, 8.5)]  # fmt: skip
    canvas.tube([(a, b, c, r * person.around(1.0, 0.05)) for a, b, c, r in gullet], "gut_wall", "esophagus", steps=4, rough=0.8)
    for row in shapes.curve(gullet, 4)[:-3]:
        if person.random.random() < 0.35:
            canvas.blob(row[:3], person.random.uniform((1.5, 1, 5), (4, 3, 12)), "gas", "esophagus")
    main = [(0, 30, 335, wide), (1, 34, 290, wide), (1, 38, 250, wide), (2, 33, 212, wide)]
    right = [(2, 33, 214, wide), (24, 28, 196, 7.5), (42, 26, 176, 6), (50, 20, 150, 4)]
    left = [(2, 33, 214, wide), (-20, 27, 198, 6.8), (-44, 24, 184, 5.4), (-56, 16, 160, 3.6)]
    for knots, label in ((right, None), (left, None), (main, "trachea")):
        canvas.tube([(a, b, c, r + 1.5) for a, b, c, r in knots], "airway_wall", "keep" if label is None else label, steps=4)
    for knots, label in ((right, "keep"), (left, "keep"), (main, "trachea")):
        canvas.tube(knots, "airway", label, steps=4)
