"""The pre-training cohort: scans of the nine training sites, prepared as the built-in encoder's card says."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.card import Crop, Intensity, Preparation
from featcache.geometry import Grid, axis_map
from featcache.phantom import STRUCTURES, TRAINING_SITES, PhantomScan, find_site, generate
from featcache.prepare import prepare
from featcache.scans import Scan

SPACING = 3.0
WINDOW = (-1000.0, 1000.0)
PREPARATION = Preparation(
    orientation="RAS",
    spacing=(SPACING,) * 3,
    intensity=Intensity(kind="window", low=WINDOW[0], high=WINDOW[1], output=(0.0, 1.0)),
    crop=Crop(above=-500.0, margin=5.0),
    pad_value=0.0,
)
SEED = 2026  # people of the pre-training; benchmarks and demo use others


@dataclass(frozen=True)
class Case:
    """One prepared scan.

    Parameters
    ----------
    image
        HU, int16 (X, Y, Z), 3 mm, RAS.
    labels, tissue
        Values of STRUCTURES and TISSUE_VALUES on the same grid, uint8.
    annotated
        Whether the site annotates each value of STRUCTURES; shape (30,), background False.
    """

    image: NDArray[np.int16]
    labels: NDArray[np.uint8]
    tissue: NDArray[np.uint8]
    annotated: NDArray[np.bool_]


def prepared(made: PhantomScan, annotated: tuple[str, ...]) -> Case:
    """A generated scan and its maps on the encoder's input grid."""
    grid = Grid(made.voxels.shape, made.affine)
    scan = Scan(made.voxels, grid, 1, 1, (), unit="HU", case="phantom", path=Path("phantom"))
    volume = prepare(scan, PREPARATION)
    low, high = WINDOW
    image = np.rint(low + volume.voxels[0] * (high - low)).astype(np.int16)
    step = axis_map(grid, volume.grid)
    indices: list[NDArray[np.int64]] = [np.zeros(0, int)] * 3
    for axis, scale, offset, size in zip(step.axes, step.scale, step.offset, volume.grid.shape, strict=True):
        at = np.rint(offset + scale * np.arange(size)).astype(int)
        indices[axis] = at.clip(0, grid.shape[axis] - 1)
    maps = [
        np.ascontiguousarray(array[np.ix_(*indices)].transpose(step.axes))
        for array in (made.labels, made.tissue)
    ]
    known = np.array([name in annotated for name in STRUCTURES])
    return Case(np.ascontiguousarray(image), *maps, known)


def paths(folder: Path, per_site: int) -> list[Path]:
    """Files of the cohort, person by person through all sites."""
    return [folder / f"{site}_{number:03d}.npz" for number in range(per_site) for site in TRAINING_SITES]


def make(files: list[Path], processes: int = 2) -> None:
    """Generate what is not there yet."""
    missing = [path for path in files if not path.exists()]
    files[0].parent.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done, _ in enumerate(pool.imap_unordered(_make_one, missing), 1):
            if done % 20 == 0:
                print(f"generated {done} of {len(missing)}", flush=True)


def _make_one(path: Path) -> None:
    name, _, number = path.stem.rpartition("_")
    site = find_site(name)
    case = prepared(generate(site, int(number), seed=SEED), site.annotated)
    part = path.with_suffix(".part.npz")
    np.savez(part, image=case.image, labels=case.labels, tissue=case.tissue, annotated=case.annotated)
    part.replace(path)


def load(path: Path) -> Case:
    """A case that `make` wrote."""
    with np.load(path) as arrays:
        return Case(arrays["image"], arrays["labels"], arrays["tissue"], arrays["annotated"])
