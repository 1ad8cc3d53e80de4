"""The solid organs of the abdomen, their vessels, and the bladder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.phantom import shapes
from featcache.phantom.canvas import Canvas
from featcache.phantom.person import Person
from featcache.phantom.structures import TISSUE_VALUES
from featcache.phantom.trunk import Trunk


def paint_solid_organs(canvas: Canvas, person: Person, trunk: Trunk) -> None:
    """Kidneys, adrenals, spleen, liver with gallbladder, pancreas, and the veins between them."""
    _spleen(canvas, person, trunk)
    _liver(canvas, person, trunk)
    _kidneys(canvas, person, trunk)
    _adrenals(canvas, person)
    _veins_and_pancreas(canvas, person)
    _gallbladder(canvas, person)


def paint_ascites(canvas: Canvas, person: Person, trunk: Trunk) -> None:
    """Free fluid: it takes the place of fat between the organs, lowest in a patient who lies on the back."""
    if "ascites" not in person.findings:
        return
    level = person.random.uniform(10, 60)
    pool = np.maximum(trunk.belly + 2, canvas.points[1] - level)
    fat = canvas.tissue == TISSUE_VALUES["visceral_fat"]
    canvas.paint(canvas.whole, np.asarray(pool, np.float32), "effusion", "keep", fat)


def _spleen(canvas: Canvas, person: Person, trunk: Trunk) -> None:
    size = person.around(1.0, 0.12) * (1.5 if "large_spleen" in person.findings else 1.0)
    centre = np.array([-98.0, -6, 50 - 0.6 * person.breath]) + person.vary(6, 3)
    region, outer = canvas.blob_distance(
        centre, np.array([46, 62, 58]) * size, shapes.rotation(*(np.array([28, 0, -20]) + person.vary(10, 3)))
    )
    hollow = shapes.ellipsoid(
        canvas.at(region), centre + np.array([70 * size, 38, -6]), np.array([50, 62, 80])
    )
    inside = shapes.smooth_maximum(outer, np.asarray(-hollow, np.float32), 9)
    room = np.maximum(trunk.cage[region] + 7, trunk.dome[region] + 5)
    inside = shapes.smooth_maximum(inside, np.asarray(room, np.float32), 6) + canvas.roughness(region, 1.4)
    canvas.paint(region, inside, "spleen", "spleen")
    if person.random.random() < 0.12:
        canvas.blob(centre + np.array([32, 14, -25]), (6, 6, 6), "spleen")


def _liver(canvas: Canvas, person: Person, trunk: Trunk) -> None:
    size = person.around(1.0, 0.06)
    down = person.vary(11)[0]
    low = 0.75 * person.breath
    reach = person.vary(18)[0]
    region = canvas.box((-110, -70, -150), (150, 150, 135))
    points = canvas.sparse(region)
    x, y, _ = points
    right = shapes.ellipsoid(
        points,
        (76, 24, 32 + down / 2 - low),
        np.array([94, 106, 96 - down]) * size,
        shapes.rotation(0, 10, 8),
    )
    left = shapes.ellipsoid(
        points, (2 - reach / 2, 84, 58 - low), (66 + reach, 34 * size, 38 * size), shapes.rotation(-12, 8, -8)
    )
    tail = shapes.ellipsoid(
        points, (100, 12, -22 + down - low), (40, 66, 74 - down), shapes.rotation(8, -8, 0)
    )
    liver = shapes.smooth_minimum(shapes.smooth_minimum(right, left, 24), tail, 22)
    under = shapes.ellipsoid(points, (-4, 54, -44 - low), (58, 60, 60))
    hilum = shapes.ellipsoid(points, (18, 42, 20), (26, 18, 14), shapes.rotation(0, 0, 30))
    column = shapes.ellipse(x, y - 4, np.float32(36), np.float32(38))
    liver = shapes.smooth_maximum(liver, np.asarray(-under, np.float32), 16)
    liver = shapes.smooth_maximum(liver, np.asarray(-np.minimum(hilum, column), np.float32), 8)
    liver = canvas.dense(region, liver)
    z = canvas.at(region)[2]
    room = np.maximum(
        np.maximum(trunk.dome[region] + 3.5, trunk.cage[region] + 7.5 - 4 * (z < -10)),
        trunk.belly[region] + 2,
    )
    liver = shapes.smooth_maximum(liver, np.asarray(room, np.float32), 4) + canvas.roughness(region, 1.5)
    canvas.paint(region, liver, "liver", "liver")
    inside = np.zeros(canvas.rough.shape, bool)
    inside[region] = liver < -3
    random = person.random
    hepatic = np.array([24.0, 30, 82])
    drained = ((110, 20, 50), (80, 75, 50), (0, 85, 66), (100, -20, 40), (60, 100, 30))
    for end in np.array(drained, float):
        bend = (hepatic + end) / 2 + random.normal(0, 9, 3)
        _within(canvas, [(*hepatic, 5), (*bend, 4.2), (*end, 2)], "portal_blood", inside)
    gate = np.array([34.0, 50, 26])
    for _ in range(9):
        end = np.array([random.uniform(-20, 125), random.uniform(-25, 105), random.uniform(-15, 85)])
        bend = (gate + end) / 2 + random.normal(0, 8, 3)
        _within(canvas, [(*gate, 4.6), (*bend, 3.4), (*end, 1.6)], "portal_blood", inside)
    for finding, tissue in (("liver_cysts", "cyst"), ("liver_lesions", "lesion")):
        for _ in range(int(random.integers(1, 7)) if finding in person.findings else 0):
            spot = (random.uniform(0, 125), random.uniform(-25, 100), random.uniform(-10, 85))
            where, distance = canvas.blob_distance(
                spot, random.uniform(4, 22) * random.uniform(0.8, 1.2, 3), rough=1.0
            )
            canvas.paint(where, distance, tissue, "keep", inside[where])


def _within(canvas: Canvas, knots: list[tuple[float, ...]], tissue: str, inside: NDArray[np.bool_]) -> None:
    """Paint a tube where it lies in voxels of the mask."""
    found = canvas.tube_distance(shapes.curve(knots, 4))
    if found is not None:
        canvas.paint(*found, tissue, "keep", inside[found[0]])


def _kidneys(canvas: Canvas, person: Person, trunk: Trunk) -> None:
    random = person.random
    missing = random.choice([-1, 1]) if "no_kidney" in person.findings else 0
    for side, label in ((1, "kidney_right"), (-1, "kidney_left")):
        if side == missing:
            continue
        centre = np.array([side * 62.0, -2, (-22 if side > 0 else -6) - 0.25 * person.breath]) + person.vary(
            6, 3
        ) * (1, 0.7, 1.6)
        size = person.around(1.0, 0.07) * (1.13 if missing else 1.0) * (1 - 0.002 * max(person.age - 60, 0))
        radii = np.array([27, 24, 55]) * size
        turn = shapes.rotation(
            -12 + person.vary(5)[0], side * (11 + person.vary(4)[0]), side * (-32 + person.vary(8)[0])
        )
        region, distance = canvas.blob_distance(centre, radii, turn, 1.2)
        notch = centre + turn @ np.array([-side * 27.0 * size, 5, 0])
        sinus = shapes.ellipsoid(canvas.at(region), notch, np.array([17, 9, 17]) * size, turn)
        kidney = shapes.smooth_maximum(distance, np.asarray(-sinus, np.float32), 5)
        halo = 4 + 0.22 * person.visceral
        free = (trunk.belly[region] < 2) | (canvas.at(region)[1] > -36)
        canvas.paint(region, kidney - halo, "visceral_fat", None, free)
        canvas.paint(region, kidney, "renal_cortex", label)
        points = canvas.at(region)
        columns = canvas.roughness(region, 3.2)
        canvas.paint(
            region, np.asarray(kidney + 8.0 + columns, np.float32), "renal_medulla", "keep", distance < 0
        )
        canvas.paint(
            region, np.asarray(sinus - 4.5 + columns * 0.6, np.float32), "visceral_fat", "keep", kidney < 0
        )
        wide = 13 if "hydronephrosis" in person.findings and side == random.choice([-1, 1]) else 4.0
        pelvis = shapes.ellipsoid(points, notch, (wide + 3, wide, wide * 1.8), turn)
        canvas.paint(region, np.asarray(pelvis, np.float32), "renal_pelvis", "keep")
        canvas.tube(
            [(*notch, 2.5), (side * 36, 14, -70, 2.2), (side * 40, 26, -130, 2.2)], "gut_wall", steps=4
        )
        canvas.tube(
            [(side * 7, 33, -8, 3), (side * 26, 20, -10, 3), (*notch, 2.6)], "arterial_blood", steps=4
        )
        canvas.tube(
            [(24 if side > 0 else 16, 37, -6, 4.5), (side * 26 + 4, 28, -8, 4.5), (*notch, 4)],
            "caval_blood",
            steps=4,
        )
        for _ in range(int(random.integers(1, 4)) if "kidney_cysts" in person.findings else 0):
            pole = centre + turn @ (random.normal(0, 1, 3) * radii * 0.5)
            canvas.blob(
                pole, random.uniform(4, 19) * np.ones(3), "cyst", label if random.random() < 0.5 else None
            )


def _adrenals(canvas: Canvas, person: Person) -> None:
    for side, label in ((1, "adrenal_gland_right"), (-1, "adrenal_gland_left")):
        top = np.array(
            [side * 33.0 - (4 if side < 0 else 0), 14 + (8 if side < 0 else 0), 40.0 + (4 if side > 0 else 0)]
        ) + person.vary(3, 3)
        thick = person.around(3.6, 0.12)
        region = canvas.box(top - 28, top + 28)
        if 0 in canvas.rough[region].shape:
            continue
        x, y, z = canvas.at(region)
        pieces = []
        for out, back in ((-2, -16), (11, -15)):
            a, b = top + np.array([0, 4, 0]), top + np.array([side * out, back, -8])
            flat = (x, y, (z - top[2]) * 0.42 + top[2])
            pieces.append(shapes.segment(flat, a * (1, 1, 1), b, (thick, thick * 0.8)))
        gland = np.minimum(*pieces) + canvas.roughness(region, 0.5)
        gland = np.maximum(gland, np.abs(z - top[2] + 3) - 17)
        canvas.paint(region, np.asarray(gland - 3 - 0.08 * person.visceral, np.float32), "visceral_fat")
        canvas.paint(region, np.asarray(gland, np.float32), "adrenal", label)


def _veins_and_pancreas(canvas: Canvas, person: Person) -> None:
    shift = person.vary(5, 3)
    rise = person.vary(9)[0]
    wide = person.around(1.0, 0.09) * (1.06 - 0.003 * max(person.age - 50, 0))
    gland = np.array(
        [
            (34, 42, -34, 12),
            (30, 48, -18, 15),
            (16, 54, -2, 12),
            (-4, 62, 6, 9.5),
            (-28, 58, 12 + rise / 3, 10),
            (-56, 38, 20 + rise, 10),
            (-84, 18, 30 + rise, 8.5),
        ]
    )
    gland[:, :3] += shift * np.array([1, 1, 1])
    gland[:, 3] *= wide
    path = shapes.curve(gland.tolist(), 5)
    found = canvas.tube_distance(path)
    if found is not None:
        region, distance = found
        lobules = canvas.roughness(region, 2.4 + 0.01 * person.age)
        canvas.paint(region, distance - 3 - 0.05 * person.visceral, "visceral_fat")
        canvas.paint(region, distance + lobules, "pancreas", "pancreas")
    cava = person.around(11.5, 0.12)
    flat = [
        (17, 32, -115, cava * 0.9),
        (22, 33, -60, cava),
        (24, 35, 0, cava),
        (25, 32, 50, cava * 1.1),
        (25, 34, 90, cava * 1.2),
        (24, 52, 118, cava * 1.2),
    ]
    canvas.tube([(a, b, c, r + 1.5) for a, b, c, r in flat], "visceral_fat", "keep", steps=3)
    canvas.tube(flat, "caval_blood", "inferior_vena_cava", steps=5, rough=1.0)
    for side in (-1, 1):
        canvas.tube(
            [
                (17, 32, -113, 8),
                (side * 26 + 6, 24, -145, 7),
                (side * 52, 26, -190, 6.5),
                (side * 66, 70, -240, 6),
                (side * 74, 84, -290, 6),
            ],
            "caval_blood",
            steps=4,
        )
    portal = person.around(6.6, 0.1)
    confluence = np.array([12.0, 45, 2]) + shift
    canvas.tube(
        [
            (*confluence, portal),
            (22, 47, 16, portal),
            (36, 50, 28, portal * 0.95),
            (52, 46, 34, portal * 0.7),
        ],
        "portal_blood",
        "portal_vein_and_splenic_vein",
        steps=5,
    )
    row = gland[2:].copy()
    row[:, 1] -= 9 * wide
    row[:, 3] = portal * 0.72
    canvas.tube(
        [(*confluence, portal * 0.8), *row[1:].tolist()],
        "portal_blood",
        "portal_vein_and_splenic_vein",
        steps=5,
    )
    canvas.tube(
        [(*confluence, 5.4), (12, 52, -30, 5), (8, 58, -80, 4), (30, 66, -120, 2.5)], "portal_blood", steps=4
    )
    canvas.tube(
        [(-7, 33, 4, 4), (-4, 46, -14, 3.8), (0, 56, -50, 3.4), (6, 64, -110, 2)], "arterial_blood", steps=4
    )
    canvas.tube(
        [(-8, 32, 20, 4), (-8, 44, 22, 3.6), (14, 50, 24, 2.8), (30, 52, 26, 2.2)], "arterial_blood", steps=4
    )


def _gallbladder(canvas: Canvas, person: Person) -> None:
    if "no_gallbladder" in person.findings:
        return
    full = person.around(1.0, 0.2)
    neck = np.array([40.0, 52, 14]) + person.vary(5, 3)
    end = neck + np.array([22, 44, -40]) * person.around(1.0, 0.15)
    pear = [(*neck, 4.0), (*(neck + (end - neck) * 0.45), 10.5 * full), (*end, 14 * full)]
    canvas.tube([(a, b, c, r + 1.6) for a, b, c, r in pear], "gut_wall", "gallbladder", steps=4)
    canvas.tube(pear, "bile", "gallbladder", steps=4, rough=0.6)
    if "gallstones" in person.findings:
        for _ in range(int(person.random.integers(1, 5))):
            canvas.blob(
                end + person.random.normal(0, 4, 3) + (0, -7 * full, 0),
                person.random.uniform(2, 5) * np.ones(3),
                "cartilage",
                "gallbladder",
            )


def paint_bladder(canvas: Canvas, person: Person) -> None:
    """Bladder with its wall; behind it the rectum is the gut's, here womb or prostate."""
    full = person.around(1.0, 0.28)
    radii = np.array([36, 30, 30]) * full
    centre = np.array([0.0, 62, -262 + 14 * (full - 1)]) + person.vary(3, 3)
    if person.woman and person.age < 90:
        canvas.blob(
            centre + np.array([person.vary(6)[0], -34, 12]),
            np.array([26, 22, 30]) * person.around(1.0, 0.15),
            "muscle",
            rough=2,
        )
    else:
        canvas.blob(
            centre + np.array([0, -8, -34]),
            np.array([24, 19, 20]) * person.around(1.0, 0.2),
            "muscle",
            rough=1,
        )
    canvas.blob(centre, radii + person.around(3.0, 0.25), "gut_wall", "urinary_bladder", rough=1.2)
    canvas.blob(centre, radii, "urine", "urinary_bladder", rough=1.2)
