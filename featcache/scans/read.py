"""A source -> its scan, whatever kind of file it is."""

from __future__ import annotations

from featcache.errors import ScanReadError
from featcache.geometry import Grid
from featcache.scans.dicom import dicom_grid, load_dicom
from featcache.scans.nifti import load_nifti, nifti_grid
from featcache.scans.types import Scan, ScanSource, Unit, Volume


def read_scan(source: ScanSource, *, unit: Unit, nan_to: float | None = None) -> Scan:
    """Return the scan that `source` points to.

    Parameters
    ----------
    source : ScanSource
        As found by `discover`.
    unit : {"HU", "a.u."}
        What the encoder takes the voxel values for; values are not converted.
    nan_to : float, optional
        Value to put in place of NaN and infinite voxels.

    Returns
    -------
    Scan
        Voxels (X, Y, Z) in the file's own integer type, or float32; the affine in mm, RAS+.

    Raises
    ------
    ScanReadError
        If the files are damaged or hold something else than one three-dimensional scan.
    """
    try:
        volume, remarks = _load(source, unit, nan_to)
    except ScanReadError as error:
        error.case = source.case
        raise
    return Scan(
        volume.voxels,
        volume.grid,
        volume.sform_code,
        volume.qform_code,
        (*volume.notes, *remarks),
        unit=unit,
        case=source.case,
        path=source.path,
    )


def _load(source: ScanSource, unit: Unit, nan_to: float | None) -> tuple[Volume, list[str]]:
    if source.kind == "nifti":
        return load_nifti(source.path, nan_to=nan_to), []
    volume, modality = load_dicom(source, nan_to=nan_to)
    fits = (modality == "CT") == (unit == "HU")
    return volume, [] if fits else [f"the series is {modality}, but the encoder takes its values for {unit}"]


def read_header(source: ScanSource) -> Grid:
    """Return the grid of a source without reading voxels.

    Raises
    ------
    ScanReadError
        As `read_scan`, except for what only the voxels show.
    """
    try:
        return dicom_grid(source) if source.kind == "dicom" else nifti_grid(source.path)
    except ScanReadError as error:
        error.case = source.case
        raise
