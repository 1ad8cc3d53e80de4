"""Stomach, duodenum, small bowel, colon and rectum, with what is in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.phantom import shapes
from featcache.phantom.canvas import Canvas, Region
from featcache.phantom.person import Person
from featcache.phantom.shapes import Array
from featcache.phantom.trunk import Trunk

Knots = list[tuple[float, float, float, float]]


def paint_gut(canvas: Canvas, person: Person, trunk: Trunk, oral_contrast: bool) -> None:
    """Small bowel first, then colon, stomach and duodenum, each over the others where they meet."""
    room = trunk.belly < -1.5
    _small_bowel(canvas, person, room, oral_contrast)
    _colon(canvas, person, trunk.belly < 1)
    _stomach(canvas, person, trunk, oral_contrast)
    _duodenum(canvas, person, oral_contrast)


def _fill(
    canvas: Canvas,
    found: tuple[Region, Array],
    level: float,
    contents: str,
    *,
    label: str | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> None:
    """Fill a lumen (region, distance): gas lies above a level (mm in front of L1), the rest below."""
    region, distance = found
    canvas.paint(region, distance, contents, label, mask)
    y = canvas.at(region)[1]
    canvas.paint(region, np.asarray(np.maximum(distance, level - y), np.float32), "gas", label, mask)


def _stomach(canvas: Canvas, person: Person, trunk: Trunk, oral_contrast: bool) -> None:
    full = person.around(1.0, 0.16)
    low = person.vary(14)[0]
    sunk = 0.6 * person.breath
    knots: Knots = [
        (-62, 8, 86 - sunk, 20 * full),
        (-70, 20, 66 - sunk, 32 * full),
        (-74, 42, 38 - sunk / 2, 29 * full),
        (-66, 68, 6 + low / 2, 23 * full),
        (-42, 88, -18 + low, 19 * full),
        (-10, 90, -22 + low, 16 * full),
        (16, 80, -10 + low / 2, 12),
        (32, 68, 2, 8),
    ]
    knots = [
        (a + d[0], b + d[1], c + d[2], r)
        for (a, b, c, r), d in zip(knots, person.vary(3.5, len(knots), 3), strict=True)
    ]
    found = canvas.tube_distance(shapes.curve(knots, 6))
    if found is None:
        return
    region, distance = found
    # Below the diaphragm and inside the wall it takes the room that there is.
    room = np.asarray(np.maximum(trunk.dome[region] + 5, trunk.belly[region] + 3), np.float32)
    outer = shapes.smooth_maximum(distance, room, 8) + canvas.roughness(region, 1.6)
    canvas.paint(region, outer - 2.5, "visceral_fat", "keep", canvas.label[region] == 0)
    canvas.paint(region, outer, "gut_wall", "stomach")
    folds = canvas.roughness(region, 2.2)
    contents = person.random.choice(
        ["gut_fluid", "gut_food", "gut_contrast" if oral_contrast else "gut_food"]
    )
    _fill(
        canvas,
        (region, np.asarray(outer + 4.5 + folds, np.float32)),
        person.random.uniform(66, 112),
        str(contents),
        label="stomach",
    )


def _duodenum(canvas: Canvas, person: Person, oral_contrast: bool) -> None:
    drop = person.vary(9)[0]
    knots: Knots = [
        (30, 68, 4, 9),
        (46, 62, 8, 11),
        (57, 46, -6, 10.5),
        (58, 36, -34, 10.5),
        (53, 34, -62 + drop, 10.5),
        (30, 42, -76 + drop, 9.5),
        (2, 47, -78 + drop, 9),
        (-24, 44, -66 + drop, 9),
        (-34, 52, -38, 9),
    ]
    wide = person.around(1.0, 0.1)
    knots = [
        (a + d[0], b + d[1], c + d[2], r * wide * person.around(1, 0.08))
        for (a, b, c, r), d in zip(knots, person.vary(2.5, len(knots), 3), strict=True)
    ]
    found = canvas.tube_distance(shapes.curve(knots, 6))
    if found is None:
        return
    region, distance = found
    distance = distance + canvas.roughness(region, 1.4)
    canvas.paint(region, distance - 1.5, "visceral_fat", "keep", canvas.label[region] == 0)
    canvas.paint(region, distance, "gut_wall", "duodenum")
    contents = "gut_contrast" if oral_contrast and person.random.random() < 0.6 else "gut_fluid"
    _fill(
        canvas,
        (region, distance + 3.4 + canvas.roughness(region, 1.5)),
        person.random.uniform(52, 90),
        contents,
        label="duodenum",
    )


def _small_bowel(canvas: Canvas, person: Person, room: np.ndarray, oral_contrast: bool) -> None:
    random = person.random
    middle = np.array([-2.0, 74, -92])
    extent = np.array([88.0, 34 + 0.3 * person.visceral, 74])
    for _ in range(7):
        at = middle + random.uniform(-0.85, 0.85, 3) * extent
        heading = random.normal(size=3)
        knots: list[tuple[float, float, float, float]] = []
        radius = random.uniform(8.5, 13)
        for _ in range(15):
            heading = heading * 0.55 + random.normal(0, 0.8, 3)
            pull = (middle - at) / extent
            heading += pull * 0.5 * np.linalg.norm(pull)
            at = at + heading / np.linalg.norm(heading) * 21
            knots.append((*at, radius * random.uniform(0.85, 1.15)))
        found = canvas.tube_distance(shapes.curve(knots, 3))
        if found is None:
            continue
        region, distance = found
        distance = distance + canvas.roughness(region, 1.3)
        mask = room[region]
        canvas.paint(region, distance - 1.4, "visceral_fat", None, mask)
        canvas.paint(region, distance, "gut_wall", None, mask)
        kind = random.random()
        contents = "gut_contrast" if oral_contrast and kind < 0.6 else "gut_fluid"
        if kind < 0.7:
            lumen = distance + 3.0 + canvas.roughness(region, 1.2)
            _fill(canvas, (region, lumen), random.uniform(88, 140), contents, mask=mask)


def _colon(canvas: Canvas, person: Person, room: np.ndarray) -> None:
    random = person.random
    sag = person.vary(24)[0]
    out = 108 * (1 + 0.001 * (person.visceral - 16))
    knots: Knots = [
        (88, 56, -152, 21),
        (out - 2, 44, -122, 25),
        (out, 30, -80, 22),
        (out, 24, -44, 21),
        (92, 52, -22, 19),
        (70, 92, -38 + sag / 2, 19),
        (34, 104, -56 + sag, 18),
        (-8, 106, -58 + sag, 18),
        (-52, 100, -38 + sag / 2, 17),
        (-92, 66, 4, 17),
        (-out - 2, 24, 18, 16),
        (-out, 10, -14, 14),
        (-out, 12, -70, 13),
        (-out + 4, 26, -120, 13),
        (-92, 56, -160, 13),
        (-52, 64, -196, 14),
        (-12, 76, -202 + sag / 3, 15),
        (18, 50, -208, 14),
        (4, 0, -212, 14),
        (0, -22, -240, 17),
        (0, -18, -275, 18),
        (0, 6, -302, 11),
        (0, 14, -325, 8),
    ]
    wide = person.around(1.0, 0.12)
    knots = [
        (a + d[0], b + d[1], c + d[2], r * wide * person.around(1, 0.1))
        for (a, b, c, r), d in zip(knots, person.vary(4.5, len(knots), 3), strict=True)
    ]
    path = shapes.curve(knots, 7)
    phase = random.uniform(0, 6)
    path[:, 3] *= 1 + 0.15 * np.sin(np.arange(len(path)) * 1.75 + phase)  # haustra
    for start in range(0, len(path) - 1, 20):  # piece by piece: each with its own contents
        piece = path[start : start + 21]
        found = canvas.tube_distance(piece)
        if found is None:
            continue
        region, distance = found
        distance = distance + canvas.roughness(region, 1.5)
        mask = room[region] | (canvas.at(region)[2] < -190)
        canvas.paint(region, distance - 2, "visceral_fat", "keep", mask & (canvas.label[region] == 0))
        canvas.paint(region, distance, "gut_wall", "colon", mask)
        level = float(np.mean(piece[:, 1])) + random.uniform(-12, 22)
        contents = "stool" if random.random() < 0.75 else "gut_fluid"
        lumen = distance + 2.6 + canvas.roughness(region, 1.0)
        _fill(canvas, (region, lumen), level, contents, label="colon", mask=mask)
