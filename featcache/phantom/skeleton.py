"""Spine, ribs, sternum, shoulder girdle, pelvis, and the muscles along the spine and the pelvis."""

from __future__ import annotations

import numpy as np

from featcache.phantom import shapes
from featcache.phantom.canvas import Canvas, Region
from featcache.phantom.person import L1, T1, T12, VERTEBRA_HEIGHTS, Person
from featcache.phantom.shapes import Array
from featcache.phantom.trunk import Trunk


def paint_back_muscles(canvas: Canvas, person: Person, trunk: Trunk) -> None:
    """The straight muscles of the back, psoas with iliacus, quadratus lumborum, gluteal muscles."""
    m = person.muscle
    for side in (-1, 1):
        width = person.around(1.0, 0.07) * m
        _straight_muscle(canvas, trunk, side, width)
        loin = [(side * 62, -32, 15, 6), (side * 70, -34, -50, 11 * m), (side * 78, -36, -120, 11 * m)]
        canvas.tube(loin, "muscle", steps=3)
        psoas = [
            (side * 25, 4, 25, 5),
            (side * 34, 6, -20, 11 * width),
            (side * 42, 10, -70, 17 * width),
            (side * 52, 20, -120, 20 * width),
            (side * 66, 46, -180, 19 * width),
            (side * 80, 72, -235, 16 * width),
            (side * 92, 62, -285, 12),
            (side * 104, 36, -325, 9),
        ]
        canvas.tube([(a, b, c, r + 1.5) for a, b, c, r in psoas], "visceral_fat", "keep", steps=3)
        canvas.tube(psoas, "muscle", "iliopsoas", steps=4, rough=1.0)
        for size, place_ in (((50, 26, 66), (side * 74, -66, -235)), ((28, 44, 58), (side * 126, 10, -195))):
            turn = shapes.rotation(0, side * 18, side * -28)
            radii = np.array(size) * person.around(1.0, 0.08) * m
            region, distance = canvas.blob_distance(place_, radii, turn, 1.5)
            fascia = np.asarray(trunk.wall[region] - 4, np.float32)
            distance = shapes.smooth_maximum(distance, fascia, 8)
            canvas.paint(region, distance - 2.0, "fat")
            canvas.paint(region, distance, "muscle")


def _straight_muscle(canvas: Canvas, trunk: Trunk, side: int, width: float) -> None:
    """Two columns beside the spinous processes, flat between the ribs and the fascia of the back."""
    inner = [
        (side * 15, -48, -235, 11),
        (side * 17, -48, -150, 15 * width),
        (side * 18, -46, -60, 16 * width),
        (side * 17, -48, 50, 15 * width),
        (side * 16, -52, 150, 13 * width),
        (side * 15, -48, 250, 12 * width),
        (side * 15, -40, 340, 11),
    ]
    outer = [
        (side * 30, -50, -205, 9),
        (side * 42, -48, -140, 18 * width),
        (side * 46, -44, -60, 21 * width),
        (side * 47, -46, 20, 18 * width),
        (side * 44, -54, 100, 14 * width),
        (side * 36, -54, 190, 11 * width),
        (side * 26, -44, 285, 9),
    ]
    tubes = [canvas.tube_distance(shapes.curve(knots, 4)) for knots in (inner, outer)]
    found = [tube for tube in tubes if tube is not None]
    if not found:
        return
    region: Region = tuple(  # type: ignore[assignment]
        slice(min(r[i].start for r, _ in found), max(r[i].stop for r, _ in found)) for i in range(3)
    )
    distance = np.full([part.stop - part.start for part in region], 60, np.float32)
    for own, values in found:
        local = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(own, region, strict=True))
        distance[local] = shapes.smooth_minimum(distance[local], values, 9)
    fascia = np.asarray(trunk.wall[region] + 2.5, np.float32)
    distance = shapes.smooth_maximum(distance, fascia, 6) + canvas.roughness(region, 1.2)
    canvas.paint(region, distance - 2.0, "fat", "keep")
    canvas.paint(region, distance, "muscle", "autochthon")


def paint_iliacus(canvas: Canvas, person: Person) -> None:
    """The iliacus on the inner face of each iliac wing: with the psoas one structure."""
    for side in (-1, 1):
        fan = [
            (side * 104, 24, -135, 5),
            (side * 98, 30, -165, 9 * person.muscle),
            (side * 90, 46, -205, 12 * person.muscle),
            (side * 86, 66, -240, 12),
        ]
        canvas.tube(fan, "muscle", "iliopsoas", steps=3, rough=1.0)


def paint_spine(canvas: Canvas, person: Person) -> None:
    """Vertebrae with bodies, arches and processes, discs, canal and cord."""
    osteophyte = max(0.0, (person.age - 45) / 45)
    heights = np.array(VERTEBRA_HEIGHTS, float) + np.concatenate(
        [[0], person.vary(0.8, len(VERTEBRA_HEIGHTS) - 1)]
    )
    for index, z in enumerate(heights):
        upper = index / (len(heights) - 1)
        lumbar = index <= L1
        size = np.interp(upper, [0, 0.3, 0.7, 1], [1.1, 0.96, 0.74, 0.58])
        wide, deep = 23.5 * size * person.around(1, 0.03), 16.5 * size * person.around(1, 0.03)
        step = (heights[index + 1] - z) if index + 1 < len(heights) else z - heights[index - 1]
        high = step / 2
        tilt = -14.0 if index <= 1 else (6.0 if index > T12 + 3 else -3.0)
        region = canvas.box((-62, -80, z - high - 22), (62, 34, z + high + 14))
        if 0 in canvas.rough[region].shape:
            continue
        x, y, zz = canvas.at(region)
        dz = zz - z + np.float32(np.tan(np.deg2rad(tilt))) * y
        outline = shapes.ellipse(x, y, np.float32(wide), np.float32(deep), True)
        waist = np.float32(2.2) * (1 - (dz / high) ** 2).clip(0, 1)
        disc = np.maximum(outline + 0.6, np.abs(dz - high) - 0.16 * high)
        body = np.maximum(
            outline + waist - osteophyte * 1.5 * (np.abs(dz) > 0.7 * high), np.abs(dz) - 0.84 * high
        )
        canvas.paint(region, np.asarray(disc, np.float32), "disc")
        arch = _arch((x, y, dz), size, deep=deep, high=high, lumbar=lumbar)
        if index == 0:
            _sacrum(canvas)
        label = "vertebrae" if index else None  # the first is the sacrum's
        canvas.paint(region, np.asarray(np.minimum(body, arch), np.float32), "cortical_bone", label)
        inside = np.minimum(body + 1.4, arch + 2.6)
        canvas.paint(region, np.asarray(inside, np.float32), "trabecular_bone", "keep")
        canal = shapes.ellipse(
            x, y + deep + 8.5 * size, np.float32(11.5 * size + 1), np.float32(8.5 * size + 0.8)
        )
        canal = np.maximum(canal, np.abs(zz - z) - 0.62 * step)
        canvas.paint(region, np.asarray(canal - 1, np.float32), "fat")
        canvas.paint(region, np.asarray(canal + 1, np.float32), "gut_fluid")
        if index > L1:
            cord = np.maximum(
                shapes.ellipse(x, y + deep + 8 * size, np.float32(5.4), np.float32(4.2)),
                np.abs(zz - z) - 0.62 * step,
            )
            canvas.paint(region, np.asarray(cord, np.float32), "cord")


def _arch(points: shapes.Points, size: float, *, deep: float, high: float, lumbar: bool) -> Array:
    """Pedicles, laminae, spinous, transverse and articular processes of one vertebra."""
    x, y, dz = points
    mirrored = (np.abs(x), y, dz)
    back = -deep - 17 * size
    tip = (-64.0, -4.0) if lumbar else (-62.0, -24.0)
    wing = (46 if lumbar else 34) * min(size, 1.0) + 4
    pieces = [
        shapes.segment(
            mirrored, (13.5 * size, -deep + 3, 4), (14.5 * size, back + 6, 3), (4.6 * size, 4.6 * size)
        ),
        shapes.segment(mirrored, (14.5 * size, back + 5, 0), (2, back - 4, -5), (3.6, 3.6)),
        shapes.segment(mirrored, (0, back - 4, -5), (0, tip[0] * size - 4, tip[1] - 3), (3.4, 4.0)),
        shapes.segment(
            mirrored, (15 * size, back + 5, 3), (wing, back - (2 if lumbar else 10), 6), (3.8, 3.2)
        ),
        shapes.segment(
            mirrored,
            (17 * size, back + 3, high * 0.8),
            (17 * size, back + 2, -high * 0.8),
            (4.6 * size, 4.6 * size),
        ),
    ]
    return np.asarray(np.minimum.reduce(pieces), np.float32)


def _sacrum(canvas: Canvas) -> None:
    """The sacrum and coccyx: a wedge that curves backwards; not a part of the class vertebrae."""
    region = canvas.box((-64, -92, -300), (64, 40, -150))
    x, y, z = canvas.at(region)
    t = ((-158 - z) / 125).clip(0, 1)
    middle = -2 - 62 * np.sin(t * np.pi * 0.62)
    half = 54 * (1 - t) ** 0.8 + 7
    thick = 19 * (1 - t) + 6
    wedge = shapes.ellipse(
        x, y - middle + 0.004 * x**2, np.asarray(half, np.float32), np.asarray(thick, np.float32), True
    )
    wedge = np.maximum(wedge, np.abs(z + 222) - 64) + canvas.roughness(region, 0.8)
    canvas.paint(region, np.asarray(wedge, np.float32), "cortical_bone")
    canvas.paint(region, np.asarray(wedge + 1.6, np.float32), "trabecular_bone")
    for row, z0 in enumerate((-185, -208, -230)):
        for side in (-1, 1):
            hole = (side * (20 - 3 * row), -14 - 15 * row, z0)
            canvas.blob(hole, (4.5, 9, 4.5), "fat")


def paint_ribs(canvas: Canvas, person: Person, trunk: Trunk) -> None:
    """Twelve pairs of ribs around the cage, falling forwards, with their cartilage and the breastbone."""
    _breastbone(canvas, person)
    heights = np.array(VERTEBRA_HEIGHTS, float)
    near = np.flatnonzero(np.abs(trunk.cage) < 6)
    x, _, z = (axis.reshape(-1)[near] for axis in canvas.points)
    radial, turn = trunk.cage.reshape(-1)[near], trunk.turn.reshape(-1)[near]
    fall = (1 - np.cos(np.minimum(turn * 1.12, np.pi))) / 2
    side = np.where(x > 0, 1.0, -1.0)
    rise = np.where(turn > 2.1, (turn - 2.1) * 62, 0.0)
    for number in range(1, 13):
        z0 = heights[T1 - number + 1] + 4
        drop = np.interp(number, [1, 3, 7, 10, 12], [34, 62, 92, 82, 50]) * person.around(1, 0.06)
        end = np.interp(number, [1, 2, 7, 10, 11, 12], [2.35, 2.4, 2.15, 1.75, 1.3, 0.95])
        path = z0 - drop * fall + side * person.vary(0.8)[0]
        up = rise * np.interp(number, [1, 4, 7, 10], [0.15, 0.4, 1.25, 1.6])
        low = z - path - up
        tall = 6.2 if number > 1 else 5.0
        flat = 0.7
        section = (np.hypot(low / tall, radial / (tall * flat)) - 1) * tall * flat
        distance = np.where((turn > 0.2) & (turn < end), section, 9).astype(np.float32)
        canvas.paint_at(near, distance, "cortical_bone", "ribs")
        canvas.paint_at(near, distance + 1.5, "trabecular_bone", "keep")
        if number <= 10:
            beyond = np.where((turn >= end) & (turn < 2.98), section, 9).astype(np.float32)
            canvas.paint_at(near, beyond, "cartilage")


def _breastbone(canvas: Canvas, person: Person) -> None:
    tilt = [(0, 124, 88), (0, 127, 118), (0, 122, 165), (0, 110, 205), (0, 94, 238)]
    path = shapes.curve([(a, b + 2, c, 7) for a, b, c in tilt], 4)
    region = canvas.box((-40, 70, 80), (40, 145, 250))
    if 0 in canvas.rough[region].shape:
        return
    x, y, z = canvas.at(region)
    order = np.argsort(path[:, 2])
    level = z.clip(path[:, 2].min(), path[:, 2].max())
    front = np.interp(level, path[order, 2], path[order, 1]).astype(np.float32)
    half = np.interp(level, [88, 105, 150, 205, 215, 238], [7, 15, 17, 15, 25, 27]).astype(
        np.float32
    ) * np.float32(person.around(1, 0.06))
    plate = shapes.ellipse(x, y - front, half, np.float32(6.2), True)
    plate = np.maximum(plate, np.maximum(z - 240, 88 - z))
    canvas.paint(region, np.asarray(plate, np.float32), "cortical_bone")
    canvas.paint(region, np.asarray(plate + 1.5, np.float32), "trabecular_bone")


def paint_shoulders(canvas: Canvas, person: Person, trunk: Trunk, arms: str) -> None:
    """Collar bones, shoulder blades, and the muscles that carry them."""
    lift = 26 if arms == "up" else 0
    for side in (-1, 1):
        blade = canvas.box((side * 100 - 60, -95, 120), (side * 100 + 60, 20, 290))
        if 0 not in canvas.rough[blade].shape:
            x, y, z = canvas.at(blade)
            u = x * side
            plane = trunk.cage[blade] - 13 - 0.06 * (z - 200)
            edge = np.maximum.reduce(
                [62 - u - 0.10 * (z - 200 - lift), y - 8, np.abs(z - 200 - lift) - 62, u - 128]
            )
            sheet = np.maximum(np.maximum(np.abs(plane) - 2.2, edge), trunk.wall[blade] + 5)
            canvas.paint(blade, np.asarray(sheet, np.float32), "cortical_bone")
            canvas.paint(blade, np.asarray(sheet + 1.3, np.float32), "trabecular_bone")
        spine = [
            (side * 75, -82, 232 + lift, 4),
            (side * 110, -72, 250 + lift, 5),
            (side * 140, -36, 272 + lift, 6),
        ]
        collar = [
            (side * 18, 78, 250, 8),
            (side * 60, 78, 262 + lift / 3, 5.5),
            (side * 105, 32, 278 + lift / 2, 5.5),
            (side * 140, -8, 286 + lift, 6),
        ]
        for knots in (spine, collar):
            canvas.tube(knots, "cortical_bone", steps=3)
            canvas.tube([(a, b, c, r - 1.6) for a, b, c, r in knots], "trabecular_bone", steps=3)


def paint_pelvis(canvas: Canvas, person: Person) -> None:
    """Iliac wings, hip sockets, pubis and ischium, thigh bones."""
    wide = 1.05 if person.woman else 1.0
    for side in (-1, 1):
        middle, radii = (side * 26 * wide, 52, -178), (98.0, 92.0, 92.0)
        region = canvas.box((-135 if side < 0 else 10, -60, -262), (-10 if side < 0 else 135, 110, -122))
        if 0 not in canvas.rough[region].shape:
            x, y, z = canvas.at(region)
            u = x * side
            flare = 1 + (z + 190) / 420
            shell = shapes.ellipsoid(
                (((x - middle[0]) / flare + middle[0]).astype(np.float32), y, z), middle, radii
            )
            rim = -128 - 0.0035 * (y - 18) ** 2
            edge = np.maximum.reduce([z - rim, -252 - z, y - 96 - 0.1 * (z + 180), 34 - u, -y - 46])
            thick = 4.2 + 4.5 * np.exp(-(((z + 250) / 28) ** 2)) + 2.5 * np.exp(-(((z - rim) / 12) ** 2))
            sheet = np.maximum(np.abs(shell) - thick, edge) + canvas.roughness(region, 0.5)
            canvas.paint(region, np.asarray(sheet, np.float32), "cortical_bone")
            canvas.paint(region, np.asarray(sheet + 1.7, np.float32), "trabecular_bone")
        s = side * wide
        tubes = [
            [(s * 96, 42, -246, 24), (s * 96, 42, -264, 26)],
            [(s * 88, 62, -256, 12), (s * 50, 92, -262, 8), (s * 8, 96, -282, 11)],
            [(s * 8, 94, -288, 9), (s * 32, 66, -312, 7), (s * 58, 22, -330, 12)],
            [(s * 92, 18, -262, 14), (s * 78, 6, -292, 15), (s * 62, 10, -326, 15)],
        ]
        for knots in tubes:
            canvas.tube(knots, "cortical_bone", steps=3)
        for knots in tubes:
            canvas.tube([(a, b, c, r - 2.2) for a, b, c, r in knots], "trabecular_bone", steps=3)
        head = (s * 102, 42, -264)
        canvas.blob(head, (26, 26, 26), "cartilage")
        thigh = [
            (*head, 20),
            (s * 122, 34, -284, 16),
            (s * 136, 26, -300, 16),
            (s * 134, 26, -350, 15),
            (s * 126, 30, -440, 14),
        ]
        canvas.blob(head, (23.5,) * 3, "cortical_bone")
        canvas.tube(thigh, "cortical_bone", steps=3)
        canvas.blob(head, (22,) * 3, "trabecular_bone")
        canvas.tube([(a, b, c, r - 3.5) for a, b, c, r in thigh], "trabecular_bone", steps=3)
