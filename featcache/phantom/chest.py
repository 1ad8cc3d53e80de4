"""Lungs with their vessels, windpipe and gullet; the heart between them."""

from __future__ import annotations

import numpy as np

from featcache.phantom import shapes
from featcache.phantom.canvas import Canvas
from featcache.phantom.heart import Heart, paint_heart
from featcache.phantom.person import Person
from featcache.phantom.shapes import Array
from featcache.phantom.trunk import Trunk


def paint_chest(canvas: Canvas, person: Person, trunk: Trunk) -> None:
    """Paint everything above the diaphragm and inside the rib cage."""
    z = canvas.points[2]
    cavity = np.maximum(trunk.cage + 6.5, -trunk.dome)
    canvas.paint(canvas.whole, np.maximum(cavity, 14 - z), "pericardial_fat")
    heart = Heart.of(person)
    _lungs(canvas, person, trunk, cavity, heart)
    canvas.paint(canvas.whole, np.maximum(np.maximum(trunk.cage + 5, np.abs(trunk.dome) - 1.6), -z), "muscle")
    paint_heart(canvas, person, heart)
    _airways(canvas, person)


def _lungs(canvas: Canvas, person: Person, trunk: Trunk, cavity: Array, heart: Heart) -> None:
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
            place_ = (
                side * person.random.uniform(45, 95),
                person.random.uniform(-20, 70),
                person.random.uniform(90, 230),
            )
            region, distance = canvas.blob_distance(
                place_, np.full(3, person.random.uniform(3, 13)), rough=1.5
            )
            canvas.paint(region, distance, "lesion", "keep", inside[region])
    if "effusion" in person.findings:
        side = person.random.choice([-1, 1])
        level = person.random.uniform(-30, 5)
        fluid = np.maximum(np.maximum(lungs, y - level - 0.25 * (90 - z)), -side * x)
        canvas.paint(canvas.whole, np.asarray(fluid, np.float32), "effusion")


def _mediastinum(canvas: Canvas, heart: Heart) -> Array:
    """Distance, at sparse points, to what lies between the lungs: vessels, heart in its sac, spine, aorta."""
    x, y, z = points = canvas.sparse(canvas.whole)
    spread = np.interp(z, [20, 90, 170, 215, 260, 300], [17, 20, 24, 27, 26, 24]).astype(np.float32)
    middle = np.abs(x + 4) - spread * (0.35 + 0.65 * np.clip((104 - y) / 55, 0, 1)) - 1.5
    spine = shapes.ellipse(x, y + 4, np.float32(29), np.float32(27))
    sac = shapes.ellipsoid(
        points,
        heart.at(2, 2, -8),
        np.array([77, 54, 56]) * heart.size,
        heart.turn @ shapes.rotation(0, 20, 22),
    )
    descending = shapes.ellipse(x + 27, y - 12, np.float32(17), np.float32(17))
    return np.asarray(np.minimum(np.minimum(middle, spine), np.minimum(sac, descending)), np.float32)


def _trees(canvas: Canvas, person: Person, inside: np.ndarray) -> None:
    """Vessels of the lungs: from each hilum, branching and thinning towards the pleura."""
    random = person.random
    for side in (-1, 1):
        root = np.array([side * 42.0 - 6, 34.0, 178.0])
        targets = np.column_stack(
            [side * random.uniform(42, 122, 64), random.uniform(-48, 98, 64), random.uniform(46, 272, 64)]
        )
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


def _airways(canvas: Canvas, person: Person) -> None:
    wide = person.around(8.6 if person.woman else 9.6, 0.07)
    drift = person.vary(2)[0]
    gullet = [
        (-4 + drift, 22, 320, 6),
        (-6, 20, 270, 7),
        (-9, 18, 232, 7),
        (-9, 17, 200, 7.5),
        (-10, 16, 160, 7.5),
        (-16, 24, 118, 7.5),
        (-22, 34, 92, 8),
        (-34, 44, 74, 8.5),
    ]
    canvas.tube(
        [(a, b, c, r * person.around(1.0, 0.05)) for a, b, c, r in gullet],
        "gut_wall",
        "esophagus",
        steps=4,
        rough=0.8,
    )
    for row in shapes.curve(gullet, 4)[:-3]:
        if person.random.random() < 0.35:
            canvas.blob(row[:3], person.random.uniform((1.5, 1, 5), (4, 3, 12)), "gas", "esophagus")
    main = [(0, 30, 335, wide), (1, 34, 290, wide), (1, 38, 250, wide), (2, 33, 212, wide)]
    right = [(2, 33, 214, wide), (24, 28, 196, 7.5), (42, 26, 176, 6), (50, 20, 150, 4)]
    left = [(2, 33, 214, wide), (-20, 27, 198, 6.8), (-44, 24, 184, 5.4), (-56, 16, 160, 3.6)]
    for knots, label in ((right, None), (left, None), (main, "trachea")):
        canvas.tube(
            [(a, b, c, r + 1.5) for a, b, c, r in knots],
            "airway_wall",
            "keep" if label is None else label,
            steps=4,
        )
    for knots, label in ((right, "keep"), (left, "keep"), (main, "trachea")):
        canvas.tube(knots, "airway", label, steps=4)
