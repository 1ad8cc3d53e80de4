"""Generate people, scan them, write NIfTI."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from featcache.geometry import Grid, apply_reorientation, reorient
from featcache.phantom import belly, chest, gut, skeleton
from featcache.phantom.canvas import Canvas
from featcache.phantom.person import Person, draw_person, place
from featcache.phantom.scanner import Acquisition, hounsfield, paint_metal, paint_table, scan
from featcache.phantom.shapes import rotation
from featcache.phantom.sites import Site
from featcache.phantom.structures import STRUCTURES
from featcache.phantom.trunk import paint_trunk

_THICK = 4.0  # mm: thicker slices are averaged from thinner ones


@dataclass(frozen=True, slots=True)
class PhantomScan:
    """A generated scan.

    Parameters
    ----------
    voxels
        HU, int16 (X, Y, Z) on the scan's own grid.
    labels
        Values of STRUCTURES, uint8 (X, Y, Z): every structure, whatever the site annotates.
    tissue
        Values of TISSUE_VALUES, uint8 (X, Y, Z).
    affine
        Voxel to world, mm, RAS+.
    """

    voxels: NDArray[np.int16]
    labels: NDArray[np.uint8]
    tissue: NDArray[np.uint8]
    affine: NDArray[np.float64]


def generate(site: Site, number: int, *, seed: int = 0) -> PhantomScan:
    """Scan the site's person of this number.

    Parameters
    ----------
    number, seed
        The same site settings, number and seed give the same scan, bit for bit on one machine; another spacing or
        coverage gives another person.
    """
    random = np.random.default_rng([seed, number, zlib.crc32(site.name.encode())])
    person = draw_person(site.population, random)
    acquisition = site.acquisition
    phase = acquisition.phases[int(random.integers(len(acquisition.phases)))]
    thick = acquisition.spacing[2]
    finer = 1 if thick <= _THICK else 3 if thick <= 3 * _THICK else 5
    axes = _axes(person, acquisition, finer)
    canvas = place(person, axes)
    _paint(canvas, person, acquisition)
    clean = hounsfield(canvas, person, phase)
    middle = slice(finer // 2, None, finer)
    labels, tissue = canvas.label[:, :, middle], canvas.tissue[:, :, middle]
    if finer > 1:
        clean = clean.reshape(*clean.shape[:2], -1, finer).mean(-1)
    image = scan(clean, acquisition.spacing, person, acquisition)
    if acquisition.field_of_view is not None:
        x, y = (axis - axis.mean() for axis in axes[:2])
        outside = np.hypot(x[:, None], y[None]) > acquisition.field_of_view / 2
        image[outside] = acquisition.outside
        labels, tissue = labels.copy(), tissue.copy()
        labels[outside] = 0
        tissue[outside] = 0
    affine = np.diag([*acquisition.spacing, 1.0])
    affine[:3, 3] = [axes[0][0], axes[1][0], axes[2][finer // 2]]
    grid, step = reorient(Grid(image.shape, affine), acquisition.orientation)
    turn = np.eye(4)
    if acquisition.tilt:
        turn[:3, :3] = rotation(*random.normal(0, acquisition.tilt, 3).clip(-25, 25))
    turn[:3, 3] = random.uniform(-150, 150, 3).round(1)
    voxels, labels, tissue = (
        np.ascontiguousarray(apply_reorientation(array, step))
        for array in (np.rint(image).astype(np.int16), labels, tissue)
    )
    return PhantomScan(voxels, labels, tissue, turn @ grid.affine)


def _axes(
    person: Person, acquisition: Acquisition, finer: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    random = person.random
    wide = acquisition.field_of_view
    if wide is None:
        wide = float(
            np.clip(
                330 * person.scale[0] + 2.4 * person.fat + 25 + (90 if acquisition.arms != "up" else 0),
                300,
                520,
            )
        )
    shift = random.normal(0, acquisition.off_centre, 3).clip(-40, 40)
    front = 32 * person.scale[1] + 0.25 * person.fat
    low, high = (end * person.scale[2] + shift[2] for end in acquisition.coverage)
    x, y = (
        middle + (np.arange(n) - (n - 1) / 2) * step
        for middle, n, step in (
            (shift[0], round(wide / acquisition.spacing[0]), acquisition.spacing[0]),
            (
                front + 0.5 * shift[1],
                round(wide * (1 if acquisition.field_of_view else 0.86) / acquisition.spacing[1]),
                acquisition.spacing[1],
            ),
        )
    )
    step = acquisition.spacing[2] / finer
    slices = round((high - low) / acquisition.spacing[2])
    return x, y, low + np.arange(slices * finer) * step


def _paint(canvas: Canvas, person: Person, acquisition: Acquisition) -> None:
    """Everything, in the order in which it lies over each other."""
    random = person.random
    trunk = paint_trunk(canvas, person, acquisition.arms)
    chest.paint_chest(canvas, person, trunk)
    skeleton.paint_back_muscles(canvas, person, trunk)
    gut.paint_gut(canvas, person, trunk, bool(random.random() < acquisition.oral_contrast))
    belly.paint_bladder(canvas, person)
    belly.paint_solid_organs(canvas, person, trunk)
    belly.paint_ascites(canvas, person, trunk)
    skeleton.paint_pelvis(canvas, person)
    skeleton.paint_iliacus(canvas, person)
    skeleton.paint_ribs(canvas, person, trunk)
    skeleton.paint_spine(canvas, person)
    skeleton.paint_shoulders(canvas, person, trunk, acquisition.arms)
    if random.random() < acquisition.metal:
        paint_metal(canvas, person)
    if acquisition.table:
        solid = np.flatnonzero(canvas.tissue.any((0, 2)))
        paint_table(canvas, float(canvas.axes[1][solid[0]]) if len(solid) else -100.0)


def write_cohort(
    folder: Path,
    site: Site,
    cases: int,
    *,
    labelled: int | None = None,
    seed: int = 0,
    on_case: Callable[[int, int, str], None] | None = None,
) -> list[str]:
    """Write a site's scans and label maps as NIfTI; the cases' names come back.

    `scans/` gets every scan, `labels/` the label maps of the first `labelled` cases (default: of all), `truth/` the
    others'; a labels.json beside label maps names the classes. What is there already is replaced.

    Parameters
    ----------
    on_case
        Told how many of how many cases are done, and the name of the one that begins.
    """
    given = cases if labelled is None else labelled
    keep = np.array([value if name in site.annotated else 0 for name, value in STRUCTURES.items()], np.uint8)
    classes = {name: value for name, value in STRUCTURES.items() if value == 0 or name in site.annotated}
    names = [f"{site.name}_{number:02d}" for number in range(cases)]
    for number, name in enumerate(names):
        if on_case is not None:
            on_case(number, cases, name)
        made = generate(site, number, seed=seed)
        target = "labels" if number < given else "truth"
        for part in ("scans", target):
            (folder / part).mkdir(parents=True, exist_ok=True)
        nib.save(_nifti(made.voxels, made.affine), folder / "scans" / f"{name}.nii.gz")
        nib.save(_nifti(keep[made.labels], made.affine), folder / target / f"{name}.nii.gz")
        (folder / target / "labels.json").write_text(json.dumps(classes, indent=1) + "\n")
    return names


def _nifti(array: NDArray[np.generic], affine: NDArray[np.float64]) -> nib.Nifti1Image:
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm")
    return image
