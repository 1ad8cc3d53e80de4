"""From painted tissues to Hounsfield units as a scanner would show them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from featcache.phantom.canvas import Canvas, smooth_noise
from featcache.phantom.person import Person
from featcache.phantom.shapes import Array
from featcache.phantom.structures import PHASES, TISSUE_VALUES, TISSUES, Phase


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How a site scans.

    Parameters
    ----------
    spacing
        In the patient's axes (right, front, head), mm; the last is the slice thickness.
    coverage
        Lowest and highest level scanned, mm above the middle of L1 in the reference body.
    phases
        Contrast phases in use, drawn evenly for each scan.
    sharpness
        Width (sigma) of the in-plane blur, mm.
    noise
        Standard deviation at the middle of an average body, HU.
    grain
        Width (sigma) of the noise's grain, mm.
    field_of_view
        Diameter of what is reconstructed, mm; None: fitted to the person. Outside it stands `outside`.
    arms
        "up", "down" or "crossed".
    table
        Whether the table's top is in the picture.
    oral_contrast, metal
        Share of scans with it.
    off_centre, tilt
        Standard deviations of the position, mm, and of the patient's turn in the scanner, degrees.
    calibration
        Factor of (HU + 1000) and what is added: 1 and 0 are right.
    orientation
        Of the stored array, such as "LPS".
    """

    spacing: tuple[float, float, float] = (1.6, 1.6, 3.0)
    coverage: tuple[float, float] = (-150.0, 130.0)
    phases: tuple[Phase, ...] = ("venous",)
    sharpness: float = 0.8
    noise: float = 14.0
    grain: float = 0.9
    field_of_view: float | None = None
    outside: int = -1024
    arms: str = "up"
    table: bool = True
    oral_contrast: float = 0.2
    metal: float = 0.04
    off_centre: float = 8.0
    tilt: float = 0.0
    calibration: tuple[float, float] = (1.0, 0.0)
    orientation: str = "LPS"


def hounsfield(canvas: Canvas, person: Person, phase: Phase) -> Array:
    """HU of the painted tissues: before any scanner, float32 (X, Y, Z)."""
    random = person.random
    column = PHASES.index(phase)
    timing = random.uniform(-0.25, 0.25)  # a bolus a little early or late
    other = column + (1 if timing > 0 else -1)
    levels = np.zeros(len(TISSUES), np.float32)
    for name, tissue in TISSUES.items():
        level = tissue.level[column]
        if 0 < other < len(PHASES) and column > 0:
            level += abs(timing) * (tissue.level[other] - level)
        levels[TISSUE_VALUES[name]] = level + tissue.spread * random.standard_normal()
    density = np.interp(person.age, [20, 50, 90], [1.25, 1.0, 0.5]) * np.exp(random.normal(0, 0.12))
    levels[TISSUE_VALUES["trabecular_bone"]] *= density
    levels[TISSUE_VALUES["cortical_bone"]] *= 0.6 + 0.4 * density
    levels[TISSUE_VALUES["liver"]] -= max(0.0, random.normal(0.6 * (person.visceral - 16), 8)) * 0.8
    deviation = np.array([tissue.texture for tissue in TISSUES.values()], np.float32)
    grain = random.standard_normal(canvas.rough.shape, np.float32)
    grain = ndimage.gaussian_filter(grain, [1.6 / (a[1] - a[0]) for a in canvas.axes])
    grain /= max(float(grain[:8].std()), 1e-3)
    grain = 0.6 * grain + 0.8 * smooth_noise(canvas.axes, 9, random) * 0.55
    top, below = levels[canvas.tissue], levels[canvas.under]
    top += deviation[canvas.tissue] * grain
    muscle = canvas.tissue == TISSUE_VALUES["muscle"]
    marbled = np.clip(np.roll(grain, 7, 0)[muscle] - 2.1 + 0.012 * person.age, 0, 1.4)
    top[muscle] -= marbled * 50
    lung = canvas.tissue == TISSUE_VALUES["lung"]
    top[lung] -= 0.55 * (canvas.points[1][lung] - 20)  # the back lies lower and is denser
    mixed: Array = below + canvas.share * (top - below)
    return mixed


def scan(
    clean: Array, spacing: tuple[float, float, float], person: Person, acquisition: Acquisition
) -> Array:
    """What the scanner makes of it: blur, noise that grows with girth, streaks, metal artefacts; same grid."""
    random = person.random
    image = np.clip(clean, -1024, 3071)
    metal = clean > 2600
    if metal.any():
        image = image + _metal_streaks(metal, spacing, random)
    in_plane = acquisition.sharpness
    image = ndimage.gaussian_filter(
        image, [in_plane / spacing[0], in_plane / spacing[1], 0.35 * max(spacing[2], 1) / spacing[2]]
    )
    water = np.clip(image / 1000 + 1, 0, 2.2)
    area = water.sum((0, 1)) * spacing[0] * spacing[1]
    girth = 2 * np.sqrt(area / np.pi)
    thin = np.sqrt(3.0 / max(spacing[2], 0.5))
    level = acquisition.noise * thin * 2 ** ((girth - 290) / 130)
    white = random.standard_normal(image.shape, np.float32)
    sigma = [acquisition.grain / s for s in spacing[:2]] + [0.4 if spacing[2] < 2.5 else 0.2]
    fine = ndimage.gaussian_filter(white, sigma)
    fine -= 0.75 * ndimage.gaussian_filter(fine, [1.6 * s for s in sigma[:2]] + [0])
    fine /= max(float(fine[::4, ::4].std()), 1e-6)
    noise = fine * level
    through = water.sum(0) * spacing[0]
    hard = np.clip(np.exp((through - 370) / 80) - 0.3, 0, 4) * 0.35
    lines = random.standard_normal(image.shape, np.float32)
    long = max(3, int(90 / spacing[0]))
    lines = ndimage.uniform_filter1d(lines, long, 0) * np.sqrt(long)
    noise += lines * (hard * level)[None]
    factor, shift = acquisition.calibration
    image = (image + 1000) * factor - 1000 + shift + noise
    return np.asarray(np.clip(image, -1024, 3071), np.float32)


def _metal_streaks(
    metal: NDArray[np.bool_], spacing: tuple[float, float, float], random: np.random.Generator
) -> Array:
    """Bright and dark rays around metal, slice by slice, dying off with the distance."""
    streaks = np.zeros(metal.shape, np.float32)
    x, y = (np.arange(n, dtype=np.float32) * s for n, s in zip(metal.shape[:2], spacing[:2], strict=True))
    for z in np.flatnonzero(metal.any((0, 1))):
        parts, count = ndimage.label(metal[:, :, z])
        for cx, cy in ndimage.center_of_mass(metal[:, :, z], parts, range(1, min(count, 4) + 1)):
            dx, dy = x[:, None] - cx * spacing[0], y[None] - cy * spacing[1]
            angle, reach = np.arctan2(dy, dx), np.hypot(dx, dy) + 6
            rays = sum(
                np.cos(k * angle + random.uniform(0, 6.3)) * random.uniform(0.3, 1)
                for k in (2, 7, 13, 22, 31)
            )
            streaks[:, :, z] += np.asarray(rays, np.float32) * 2600 / reach
    return np.clip(streaks, -700, 700)


def paint_table(canvas: Canvas, back: float) -> None:
    """The table's top under the patient: a shell of carbon around foam, curved. `back`: the skin's lowest point, mm."""
    low = slice(0, int(np.searchsorted(canvas.axes[1], back + 28)))
    region = (slice(None), low, slice(None))
    x, y = canvas.axes[0].reshape(-1, 1, 1), canvas.axes[1][low].reshape(1, -1, 1)
    depth = back - 1 + 0.00055 * x**2 - y
    edge = np.abs(x) - 205
    mattress = np.maximum(np.maximum(-depth, depth - 14), edge)
    slab = np.maximum(np.maximum(14 - depth, depth - 52), edge)
    free = canvas.tissue[region] == TISSUE_VALUES["air"]
    for distance, tissue in ((mattress, "table_foam"), (slab, "table_shell"), (slab + 2.2, "table_foam")):
        everywhere = np.broadcast_to(distance, free.shape).astype(np.float32)
        canvas.paint(region, everywhere, tissue, "keep", free)


def paint_metal(canvas: Canvas, person: Person) -> None:
    """One kind of implant: a hip, spinal screws, a pacemaker's lead, or wires in the breastbone."""
    kind = person.random.choice(["hip", "screws", "lead", "wires"])
    side = float(person.random.choice([-1, 1]))
    if kind == "hip":
        canvas.blob((side * 102, 42, -264), (22, 22, 22), "metal")
        canvas.tube(
            [(side * 104, 40, -268, 8), (side * 128, 32, -295, 8), (side * 142, 26, -360, 7)],
            "metal",
            steps=3,
        )
    elif kind == "screws":
        for z in (-107, -71, -35):
            for s in (-1, 1):
                canvas.tube([(s * 22, -46, z + 2, 3), (s * 12, 6, z + 2, 3)], "metal", "vertebrae", steps=1)
        for s in (-1, 1):
            canvas.tube([(s * 22, -48, -112, 3), (s * 22, -48, -30, 3)], "metal", steps=1)
    elif kind == "lead":
        canvas.tube(
            [(30, 50, 250, 1.6), (31, 52, 190, 1.6), (26, 62, 140, 1.6), (-25, 92, 118, 1.8)],
            "metal",
            "keep",
            steps=4,
        )
    else:
        for z in (110, 130, 152, 175, 198):
            canvas.tube([(-7, 130, z, 1.4), (0, 134, z, 1.4), (7, 130, z, 1.4)], "metal", "keep", steps=2)
