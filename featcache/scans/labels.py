"""Label files -> LabelVolume, checked against the scan they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ScanReadError
from featcache.geometry import Grid, axis_codes, corner_distance
from featcache.scans.nifti import load_nifti
from featcache.scans.types import Annotated, LabelSource, LabelVolume

# More values than any atlas has: a scan was taken for a label file.
_MOST_UNNAMED = 1000
_NAN_ADVICE = "use the label map, and not an image or probabilities"


def read_labels(
    source: LabelSource,
    scan_grid: Grid,
    *,
    scan_path: Path,
    annotated: Annotated = "all",
    classes: Mapping[str, int] | None = None,
) -> LabelVolume:
    """Return a case's labels on the scan's grid.

    Parameters
    ----------
    source : LabelSource
        The file and what is known about it.
    scan_grid : Grid
        The scan's own grid; the labels must have its shape and corners within 0.1 voxel.
    scan_path : Path
        The scan, for messages.
    annotated : {"all", "present"}
        Which classes count as annotated where `source` does not say: all that are known, or those that
        occur in this file.
    classes : mapping of str to int, optional
        Names and values to use where the source has no names, such as
        ``numbered_classes(label_values(all label sources))``; without, the values in this file.

    Returns
    -------
    LabelVolume
        Voxels in the smallest unsigned type, on `scan_grid` exactly.

    Raises
    ------
    ScanReadError
        If the file is unreadable, its values are not whole numbers of 0 and above, the grids differ,
        a value has no class name, or an annotated class is unknown.
    """
    volume = load_nifti(source.path, nan_advice=_NAN_ADVICE)
    _check_grid(source.path, volume.grid, scan_path, scan_grid)
    voxels = _as_labels(volume.voxels, source.path)
    present = _values(voxels)
    names = _names(source, present, classes)
    if source.annotated is not None:
        known = source.annotated
        _check_annotated(known, names, source.path)
    elif annotated == "present":
        known = tuple(name for name, value in names.items() if value in present)
    else:
        known = tuple(names)
    codes = volume.sform_code, volume.qform_code
    return LabelVolume(voxels, scan_grid, codes, names, known, source.group)


def label_values(sources: Iterable[LabelSource]) -> tuple[int, ...]:
    """Return every value but 0 that occurs in any of the label files, ascending.

    Raises
    ------
    ScanReadError
        If a file is unreadable or holds something else than labels.
    """
    found: set[int] = set()
    for source in sources:
        found |= _values(_as_labels(load_nifti(source.path, nan_advice=_NAN_ADVICE).voxels, source.path))
    return tuple(sorted(found))


def numbered_classes(values: Iterable[int]) -> dict[str, int]:
    """Return class names for values that nobody named: ``{"1": 1, "2": 2}``."""
    return {str(value): value for value in sorted(values)}


def _check_grid(path: Path, grid: Grid, scan_path: Path, scan_grid: Grid) -> None:
    if grid.shape != scan_grid.shape:
        raise ScanReadError(
            f"{path} has the shape {grid.shape}, its scan {scan_path} has {scan_grid.shape}; expected equal "
            "shapes: resample the labels onto the scan",
            path=path,
        )
    distance = corner_distance(grid, scan_grid)
    if distance > 0.1:
        turned = axis_codes(grid), axis_codes(scan_grid)
        hint = f" (orientations {turned[0]} and {turned[1]})" if turned[0] != turned[1] else ""
        raise ScanReadError(
            f"{path} and its scan {scan_path}, both of shape {grid.shape}, lie {distance:.2f} voxels apart"
            f"{hint}; expected corners within 0.1 voxel: resample the labels onto the scan, or repair the "
            "affine",
            path=path,
        )


def _as_labels(voxels: NDArray[Any], path: Path) -> NDArray[np.unsignedinteger[Any]]:
    """Return whole numbers of 0 and above in the smallest unsigned type."""
    if voxels.dtype.kind == "f":
        fractions = sum(int(np.count_nonzero(plane != np.rint(plane))) for plane in _planes(voxels))
        if fractions:
            raise ScanReadError(
                f"{path}: {fractions} of {voxels.size} voxels are no whole numbers; expected class values: "
                "use the label map, resampled with nearest neighbours, and not an image or probabilities",
                path=path,
            )
    lowest, highest = int(voxels.min()), int(voxels.max())
    if lowest < 0 or highest > np.iinfo(np.int32).max:
        raise ScanReadError(
            f"{path}: holds values from {lowest} to {highest}; expected class values of 0 and above: "
            "is this an image?",
            path=path,
        )
    return voxels.astype(np.min_scalar_type(highest), copy=False)


def _values(voxels: NDArray[np.unsignedinteger[Any]]) -> set[int]:
    """Return the values that occur, without 0."""
    if voxels.dtype.itemsize > 2:
        return set(np.unique(voxels).tolist()) - {0}
    seen = np.zeros(np.iinfo(voxels.dtype).max + 1, dtype=bool)
    for plane in _planes(voxels):
        seen[plane] = True
    return set(np.flatnonzero(seen).tolist()) - {0}


def _planes(voxels: NDArray[Any]) -> Iterable[NDArray[Any]]:
    """Yield (X, Y) planes, so that temporary arrays stay small."""
    return (voxels[:, :, z] for z in range(voxels.shape[2]))


def _names(source: LabelSource, present: set[int], classes: Mapping[str, int] | None) -> dict[str, int]:
    """Return class names for all values present."""
    given = source.classes if source.classes is not None else classes
    if given is not None:
        unnamed = sorted(present - set(given.values()))
        if unnamed:
            more = f" and {len(unnamed) - 10} more" if len(unnamed) > 10 else ""
            raise ScanReadError(
                f"{source.path}: the values {unnamed[:10]}{more} have no class name; expected only "
                f"{dict(given)}: add the names to labels.json or dataset.json, or correct the labels",
                path=source.path,
            )
        return dict(given)
    if len(present) > _MOST_UNNAMED:
        raise ScanReadError(
            f"{source.path}: holds {len(present)} different values; expected labels: is this an image? "
            "A labels.json beside it would name them",
            path=source.path,
        )
    # A class may be annotated and yet absent from this file.
    also = {int(name) for name in source.annotated or () if name.isdecimal() and int(name) > 0}
    return numbered_classes(present | also)


def _check_annotated(annotated: Iterable[str], classes: Mapping[str, int], path: Path) -> None:
    unknown = [name for name in annotated if name not in classes]
    if unknown:
        raise ScanReadError(
            f"{path}: the classes {unknown} are given as annotated, but are unknown; expected some of "
            f"{list(classes)}: correct the column 'annotated' or the class names",
            path=path,
        )
