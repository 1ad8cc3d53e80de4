"""Scan -> network input, exactly as the encoder's card says, and where each input voxel lies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import geometry
from featcache.card import Crop, Intensity, Preparation
from featcache.errors import ScanReadError
from featcache.geometry import Box, FloatTriple, Grid, Reorientation
from featcache.scans import Scan


@dataclass(frozen=True)
class PreparedVolume:
    """What the encoder sees of one scan, before windows pad it.

    Parameters
    ----------
    voxels : ndarray, shape (1, X, Y, Z), float32
        Network input values.
    grid : Grid
        Where these voxels lie.
    foreground : three pairs of int
        First voxel and one past the last that was kept, along each axis of the scan's own grid.
    steps : tuple of str
        What was done, in words with figures, for people.
    """

    voxels: NDArray[np.float32]
    grid: Grid
    foreground: Box
    steps: tuple[str, ...]


def prepare(scan: Scan, preparation: Preparation, spacing: FloatTriple | None = None) -> PreparedVolume:
    """Return `scan` reoriented, cropped to its foreground, resampled and scaled.

    Cropping comes before resampling, so that air is never resampled; percentiles and z-scores are those
    of the whole scan.

    Parameters
    ----------
    scan : Scan
        Voxels (X, Y, Z) in the scan's unit.
    preparation : Preparation
        The card's.
    spacing : tuple of 3 float, optional
        Takes the place of the card's spacing, mm along the oriented axes.

    Raises
    ------
    ScanReadError
        If there is no foreground, or the scan is constant where the card scales by its values.
    """
    source, low, scale = _intensity(scan, preparation.intensity)
    grid, turn = geometry.reorient(scan.grid, preparation.orientation)
    voxels = geometry.apply_reorientation(scan.voxels, turn)
    steps = [f"orientation {geometry.axis_codes(scan.grid)} to {preparation.orientation}"]
    box = [slice(0, n) for n in grid.shape]
    if preparation.crop is not None:
        box = _foreground(scan, voxels, grid, preparation.crop)
        voxels = voxels[tuple(box)]
        grid = geometry.crop(grid, [b.start for b in box], voxels.shape)
        steps.append(f"cropped to {grid.shape} voxels above {preparation.crop.above:g} {scan.unit}")
    fine = _respaced(grid, preparation, spacing)
    output = _resample(voxels, grid, fine)
    if fine.shape != grid.shape:
        steps.append(f"resampled to {_text(geometry.spacing(fine))} mm, {fine.shape} voxels")
    steps.append(source)
    _scale(output, preparation.intensity, low, scale)
    return PreparedVolume(output[None], fine, _on_scan(box, turn, scan.grid), tuple(steps))


def uncropped_grid(grid: Grid, preparation: Preparation, spacing: FloatTriple | None = None) -> Grid:
    """Return the grid that `prepare` makes of a scan on `grid` where nothing is cropped: no voxels needed.

    With a crop, the prepared volume is a part of it.
    """
    return _respaced(geometry.reorient(grid, preparation.orientation)[0], preparation, spacing)


def foreground_share(scan: Scan, preparation: Preparation) -> float:
    """Return which part of a scan's voxels `prepare` keeps, 0 to 1.

    Raises
    ------
    ScanReadError
        If there is no foreground.
    """
    if preparation.crop is None:
        return 1.0
    grid, turn = geometry.reorient(scan.grid, preparation.orientation)
    box = _foreground(scan, geometry.apply_reorientation(scan.voxels, turn), grid, preparation.crop)
    kept: float = math.prod(b.stop - b.start for b in box) / math.prod(grid.shape)
    return kept


def check_hounsfield(scan: Scan) -> None:
    """Raise ScanReadError if the values are evidently not Hounsfield units.

    In HU, air lies near -1000 and fat near -100, so a CT without a thousandth of its voxels below -50
    is a scaled or windowed image, a raw export without rescale slope, or no CT.
    """
    voxels = scan.voxels
    below = int(np.count_nonzero(voxels < -50))
    high = float(voxels.max())
    if below >= 1e-3 * voxels.size and high > 20:
        return
    found = f"values from {float(voxels.min()):g} to {high:g}, {below / voxels.size:.2%} below -50"
    raise ScanReadError(
        f"{scan.path}: evidently not in Hounsfield units: found {found}; expected air near -1000, fat near "
        "-100 and tissue or bone above 20. Export the CT with its rescale slope and intercept, or pass "
        "--assume-hu if the values are HU all the same",
        path=scan.path,
        case=scan.case,
    )


def _respaced(grid: Grid, preparation: Preparation, spacing: FloatTriple | None) -> Grid:
    target = spacing or preparation.spacing
    return grid if target is None else geometry.respace(grid, target)


def _intensity(scan: Scan, intensity: Intensity) -> tuple[str, float, float]:
    """Return a sentence, and the offset and factor that bring values to the scale of `low`..`high`."""
    voxels = scan.voxels
    if intensity.kind == "percentile":
        low, high = (float(v) for v in np.percentile(voxels, (intensity.low, intensity.high)))
        if not low < high:
            raise _constant(scan, f"percentiles {intensity.low:g} and {intensity.high:g} are both {low:g}")
        factor = (intensity.high - intensity.low) / (high - low)
        return f"percentiles at {low:g} and {high:g} to {intensity.output}", low, factor
    if intensity.kind == "zscore":
        mean = float(voxels.mean(dtype=np.float64))
        # Slab by slab: numpy's std would make a float64 copy of the whole scan.
        squares = sum(float(np.square(voxels[..., z] - mean).sum()) for z in range(voxels.shape[2]))
        deviation = (squares / voxels.size) ** 0.5
        if deviation == 0:
            raise _constant(scan, f"every voxel is {mean:g}")
        return f"z-score with mean {mean:g} and deviation {deviation:g}", mean, 1.0 / deviation
    if intensity.kind == "window":
        return f"values {intensity.low:g} to {intensity.high:g} to {intensity.output}", 0.0, 1.0
    return "values as they are", 0.0, 1.0


def _constant(scan: Scan, found: str) -> ScanReadError:
    return ScanReadError(
        f"{scan.path}: the scan has no contrast: {found}; expected an image. Is this a mask or an empty export?",
        path=scan.path,
        case=scan.case,
    )


def _on_scan(box: list[slice], turn: Reorientation, grid: Grid) -> Box:
    """Return a box of oriented voxels along the scan's own axes."""
    pairs = [(0, 0)] * 3
    for part, axis, flip in zip(box, turn.axes, turn.flips, strict=True):
        n = grid.shape[axis]
        pairs[axis] = (n - part.stop, n - part.start) if flip else (part.start, part.stop)
    return pairs[0], pairs[1], pairs[2]


def _foreground(scan: Scan, voxels: NDArray[Any], grid: Grid, crop: Crop) -> list[slice]:
    inside = voxels > crop.above
    box = []
    for axis, step in enumerate(geometry.spacing(grid)):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(inside.any(axis=others))
        if not hit.size:
            raise ScanReadError(
                f"{scan.path}: empty foreground: no voxel is above {crop.above:g} {scan.unit}, "
                f"found values from {float(voxels.min()):g} to {float(voxels.max()):g}; "
                "expected a body. Is the unit right, is this the right file?",
                path=scan.path,
                case=scan.case,
            )
        margin = int(np.ceil(crop.margin / step))
        stop = min(int(hit[-1]) + 1 + margin, grid.shape[axis])
        box.append(slice(max(int(hit[0]) - margin, 0), stop))
    return box


def _resample(voxels: NDArray[Any], grid: Grid, fine: Grid) -> NDArray[np.float32]:
    """Return `voxels` on the grid `fine`, linearly, float32; values beyond the border repeat it."""
    if fine.shape == grid.shape and np.array_equal(fine.affine, grid.affine):
        return np.array(voxels, dtype=np.float32, order="F")
    import SimpleITK as sitk

    # In index space, so that flipped, oblique and sheared affines are all the same to SimpleITK.
    step = geometry.axis_map(grid, fine)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(np.diag(step.scale).ravel().tolist())
    resample = sitk.ResampleImageFilter()
    resample.SetSize(fine.shape)
    resample.SetTransform(transform)
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetUseNearestNeighborExtrapolator(True)
    resample.SetOutputPixelType(sitk.sitkFloat32)
    if voxels.dtype.kind not in "iuf" or not voxels.dtype.isnative or voxels.dtype == np.float16:
        voxels = voxels.astype(np.float32)  # SimpleITK knows neither
    image = sitk.GetImageFromArray(voxels.T)
    # A writable array of our own: the view that SimpleITK offers dies with its image.
    return np.asarray(sitk.GetArrayFromImage(resample.Execute(image)), dtype=np.float32).T


def _scale(voxels: NDArray[np.float32], intensity: Intensity, low: float, factor: float) -> None:
    """Scale and clip in place, slab by slab."""
    if intensity.kind == "none":
        return
    first, last = intensity.output
    span = intensity.high - intensity.low
    for z in range(voxels.shape[2]):
        slab = voxels[:, :, z].astype(np.float64)
        slab = (slab - low) * factor
        if intensity.kind == "percentile":
            slab += intensity.low
        np.clip(slab, intensity.low, intensity.high, out=slab)
        if intensity.kind != "zscore":
            slab = first + (slab - intensity.low) * ((last - first) / span)
        voxels[:, :, z] = slab


def _text(values: tuple[float, ...]) -> str:
    return " x ".join(f"{v:.4g}" for v in values)
