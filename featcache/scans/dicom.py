"""A folder with one CT or MR DICOM series -> Volume.

DICOM gives positions in LPS+ (PS3.3 C.7.6.2.1.1): x and y change sign on the way to RAS+. Slices are
sorted by where they lie, never by file name or instance number. The third column of the affine is the
measured step between slices, so a tilted gantry yields a sheared grid and not displaced anatomy.
Messages name folders, counts and modalities, never what a patient tag says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import GeometryError, ScanReadError
from featcache.geometry import Grid
from featcache.scans.nifti import finite
from featcache.scans.types import ScanSource, Volume

# Tags of PS3.6 as GDCM writes them.
_MODALITY = "0008|0060"
_SERIES_UID = "0020|000e"
_SERIES_NUMBER = "0020|0011"
_POSITION = "0020|0032"
_ORIENTATION = "0020|0037"

# How far a slice may lie from its place on an even grid, in slice spacings. Scanners round positions
# (0.625 mm steps written with one decimal are off by 8 %), while a single missing slice puts some
# slice at least a third of a spacing off. It is also the tolerance between labels and scans.
_PLACE_TOLERANCE = 0.1

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def is_dicom(path: Path) -> bool:
    """Return whether a file claims to be DICOM: by its magic bytes (PS3.10 7.1) or its suffix."""
    if path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() in {".dcm", ".ima", ".dicom"}:
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise ScanReadError(
            f"{path}: cannot be opened ({error}); expected a file that you may read", path=path
        ) from error


@dataclass(frozen=True, eq=False)
class _Slice:
    """What one file's header says: positions and directions in LPS+, mm."""

    path: Path
    series: tuple[str, str, str]  # uid, number, modality
    size: tuple[int, ...]  # columns, rows, frames, samples per pixel
    position: NDArray[np.float64] | None
    orientation: NDArray[np.float64] | None  # row direction, column direction: (6,)
    spacing: tuple[float, float]  # between columns, between rows
    dtype: np.dtype[Any]


def load_dicom(source: ScanSource, *, nan_to: float | None = None) -> tuple[Volume, str]:
    """Return voxels and grid of the one series in a folder, and its modality.

    Returns
    -------
    volume : Volume
        Values after the rescale slope and intercept (HU for CT), integers where they are whole, else
        float32; sform code 1, qform code 1 (0 where the grid is sheared, which a qform cannot say).
    modality : str
        "CT" or "MR".

    Raises
    ------
    ScanReadError
        If a file is damaged, if there are several series, or the one is neither CT nor MR, multi-frame,
        RGB, of uneven geometry, or has missing or doubled slices.
    """
    slices, grid, sheared = _series(source)
    dtype = np.result_type(*(item.dtype for item in slices))
    if dtype.kind == "f":
        dtype = np.dtype(np.float32)
    voxels = np.empty(grid.shape, dtype=dtype, order="F")
    for k, item in enumerate(slices):
        voxels[:, :, k] = _read_slice(item.path)
    voxels, notes = finite(voxels, source.path, nan_to)
    if sheared:
        notes.append("the slices are sheared against each other (tilted gantry)")
    return Volume(voxels, grid, 1, 0 if sheared else 1, tuple(notes)), slices[0].series[2]


def dicom_grid(source: ScanSource) -> Grid:
    """Return the grid of the series from the headers of its files.

    Raises
    ------
    ScanReadError
        As `load_dicom`, except for damaged pixel data.
    """
    return _series(source)[1]


def _series(source: ScanSource) -> tuple[list[_Slice], Grid, bool]:
    """Return the slices in order, their grid and whether it is sheared."""
    slices = [_read_header(path) for path in source.files]
    series = defaultdict(list)
    for item in slices:
        series[item.series].append(item)
    if len(series) > 1 or next(iter(series))[2] not in ("CT", "MR"):
        raise ScanReadError(
            f"{source.path}: found {_listing(series)}; expected one CT or MR series: "
            "move every series into a folder of its own",
            path=source.path,
        )
    try:
        ordered = _sorted(slices)
        grid, sheared = _grid(ordered)
    except _UnfitError as error:
        raise ScanReadError(
            f"{source.path}: {error}; found {_listing(series)}, expected parallel slices at even distances: "
            "complete or clean the series, or convert it to NIfTI",
            path=source.path,
        ) from error
    return ordered, grid, sheared


class _UnfitError(Exception):
    """Slices that make no volume; the caller adds the folder and the list of series."""


def _listing(series: dict[tuple[str, str, str], list[_Slice]]) -> str:
    parts = []
    for (_, number, modality), members in sorted(series.items(), key=lambda entry: -len(entry[1])):
        columns, rows, *_ = members[0].size
        label = f"series {number}" if number else "series without number"
        files = "1 file" if len(members) == 1 else f"{len(members)} files"
        parts.append(f"{label} ({files}, {modality or 'no modality'}, {columns} x {rows})")
    return f"{len(series)} series: " * (len(series) > 1) + ", ".join(parts)


def _reader(path: Path) -> Any:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _unreadable(path: Path) -> ScanReadError:
    return ScanReadError(
        f"{path.parent}: the file {path.name} cannot be read as a DICOM image; expected only the slices of "
        "one CT or MR series: copy it again, or move it elsewhere if it holds no image",
        path=path,
    )


def _read_header(path: Path) -> _Slice:
    reader = _reader(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path) from error

    def text(tag: str) -> str:
        return str(reader.GetMetaData(tag)).strip() if reader.HasMetaDataKey(tag) else ""

    def numbers(tag: str, count: int) -> NDArray[np.float64] | None:
        try:
            values = np.array([float(part) for part in text(tag).split("\\")])
        except ValueError:
            return None
        return values if values.shape == (count,) and np.isfinite(values).all() else None

    spacing = reader.GetSpacing()
    return _Slice(
        path,
        (text(_SERIES_UID), text(_SERIES_NUMBER), text(_MODALITY)),
        (*reader.GetSize(), reader.GetNumberOfComponents()),
        numbers(_POSITION, 3),
        numbers(_ORIENTATION, 6),
        (float(spacing[0]), float(spacing[1])),
        _numpy_type(reader.GetPixelID()),
    )


def _numpy_type(pixel_id: int) -> np.dtype[Any]:
    import SimpleITK as sitk

    integers = {
        sitk.sitkUInt8: np.uint8,
        sitk.sitkInt8: np.int8,
        sitk.sitkUInt16: np.uint16,
        sitk.sitkInt16: np.int16,
        sitk.sitkUInt32: np.uint32,
        sitk.sitkInt32: np.int32,
    }
    return np.dtype(integers.get(pixel_id, np.float32))


def _sorted(slices: Sequence[_Slice]) -> list[_Slice]:
    """Return the slices along their normal, once they are known to be stackable."""
    first = slices[0]
    if len(slices) < 2:
        raise _UnfitError("a single file, a multi-frame file or a localizer is no stack of slices")
    if any(item.size[2:] != (1, 1) for item in slices):
        raise _UnfitError("multi-frame or colour images")
    if any(item.position is None or item.orientation is None for item in slices):
        raise _UnfitError("files without Image Position or Image Orientation (Patient)")
    for item in slices:
        if item.size != first.size or not np.allclose(item.spacing, first.spacing, rtol=1e-3):
            raise _UnfitError("slices of different size or pixel spacing")
        # 1e-3 of direction moves the far edge of a 500-voxel slice by half a voxel.
        if not np.allclose(_of(item.orientation), _of(first.orientation), atol=1e-3):
            raise _UnfitError("slices of different orientation")
    normal = _normal(first)
    return sorted(slices, key=lambda item: float(_of(item.position) @ normal))


def _of(values: NDArray[np.float64] | None) -> NDArray[np.float64]:
    assert values is not None  # checked in _sorted
    return values


def _normal(item: _Slice) -> NDArray[np.float64]:
    orientation = _of(item.orientation)
    return np.cross(orientation[:3], orientation[3:])


def _grid(slices: Sequence[_Slice]) -> tuple[Grid, bool]:
    """Return the RAS+ grid of sorted slices, and whether it is sheared."""
    first = slices[0]
    positions = np.array([_of(item.position) for item in slices])
    normal = _normal(first)
    along = positions @ normal
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    distance = float(step @ normal)
    if np.diff(along).min() < _PLACE_TOLERANCE * distance or distance < 1e-3:
        raise _UnfitError("several slices at one position (doubled files, or several phases or echoes)")
    off = np.linalg.norm(positions - positions[0] - np.arange(len(slices))[:, None] * step, axis=1)
    if off.max() > _PLACE_TOLERANCE * distance:
        steps = np.diff(along)
        raise _UnfitError(
            f"missing slices or uneven gaps (from {steps.min():.3f} to {steps.max():.3f} mm, "
            f"the widest after slice {int(steps.argmax()) + 1} of {len(slices)})"
        )
    orientation = _of(first.orientation)
    lps = np.eye(4)
    lps[:3, 0] = orientation[:3] * first.spacing[0]
    lps[:3, 1] = orientation[3:] * first.spacing[1]
    lps[:3, 2] = step
    lps[:3, 3] = positions[0]
    columns, rows, *_ = first.size
    try:
        grid = Grid((columns, rows, len(slices)), _LPS_TO_RAS @ lps)
    except GeometryError as error:
        raise _UnfitError(str(error)) from error
    shear = np.linalg.norm(step - distance * normal) / distance
    return grid, bool(shear > 0.01)


def _read_slice(path: Path) -> NDArray[Any]:
    """Return one slice, (X, Y), rescaled."""
    import SimpleITK as sitk

    try:
        image = _reader(path).Execute()
    except RuntimeError as error:
        raise _unreadable(path) from error
    array: NDArray[Any] = sitk.GetArrayFromImage(image)
    return array.reshape(array.shape[-2:]).T
