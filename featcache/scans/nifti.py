"""NIfTI files -> Volume, with every way a file can be unfit told apart.

The sform wins over the qform, as in nibabel; with neither, nibabel's fallback (spacing only, centred)
is used and noted. NIfTI-1 and -2, plain and gzip.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import array_from_file
from numpy.typing import NDArray

from featcache.errors import GeometryError, ScanReadError
from featcache.geometry import Grid, corner_distance
from featcache.scans.types import Volume

_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    MemoryError,  # a damaged header asks for petabytes
    zlib.error,
    HeaderDataError,
    ImageFileError,
)
NAN_ADVICE = "give the value to put there with --nan-to, such as --nan-to -1024 for CT"
_SPATIAL_UNITS = {1: "metre", 3: "micrometre"}


def load_nifti(path: Path, *, nan_to: float | None = None, nan_advice: str = NAN_ADVICE) -> Volume:
    """Return voxels, grid and codes of a three-dimensional NIfTI file.

    Parameters
    ----------
    path : Path
        A .nii or .nii.gz file.
    nan_to : float, optional
        Value to put in place of NaN and infinite voxels.
    nan_advice : str
        What the message tells to do about them while `nan_to` is None.

    Returns
    -------
    Volume
        Integers stay integers (also after a whole-number scl_slope and scl_inter); all else is float32.

    Raises
    ------
    ScanReadError
        If the file is empty, damaged, no NIfTI, not three-dimensional, RGB or complex, has no usable
        affine, or holds NaN or infinite voxels while `nan_to` is None.
    """
    image = _open(path)
    grid, notes = _grid(image, path)
    with _translated(path):
        voxels = _scaled(_stored_voxels(image, path), image.dataobj.slope, image.dataobj.inter)
    voxels = voxels.reshape(grid.shape, order="F")
    voxels, remarks = finite(voxels, path, nan_to, nan_advice)
    codes = int(image.header["sform_code"]), int(image.header["qform_code"])
    return Volume(voxels, grid, *codes, (*notes, *remarks))


def nifti_grid(path: Path) -> Grid:
    """Return the grid of a NIfTI file from its header alone.

    Raises
    ------
    ScanReadError
        As `load_nifti`, except for what only the voxels show.
    """
    return _grid(_open(path), path)[0]


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise ScanReadError(
            f"{path}: cannot be read as NIfTI ({error}); expected an undamaged .nii or .nii.gz file: "
            "copy or convert it again",
            path=path,
        ) from error


def _open(path: Path) -> Any:
    """Return nibabel's image (header parsed, voxels not read) once its kind is one we can use."""
    if not path.is_file():
        raise ScanReadError(f"{path}: no such file; expected a .nii or .nii.gz file", path=path)
    if path.stat().st_size == 0:
        raise ScanReadError(f"{path}: the file is empty (0 bytes); copy it again", path=path)
    with _translated(path):
        image: Any = nib.load(path)
    if not isinstance(image, nib.Nifti1Image):  # Nifti2Image is one too
        raise ScanReadError(
            f"{path}: holds {type(image).__name__}; expected NIfTI: convert it to .nii.gz", path=path
        )
    proxy: Any = image.dataobj
    dtype = proxy.dtype
    if dtype.kind not in "iuf":
        found = "RGB colours" if dtype.kind == "V" else f"{dtype} voxels"
        raise ScanReadError(
            f"{path}: holds {found}; expected integers or real numbers, one per voxel: "
            "export the grey values",
            path=path,
        )
    return image


def _grid(image: Any, path: Path) -> tuple[Grid, list[str]]:
    """Return the grid and remarks on it."""
    shape = tuple(int(n) for n in image.shape)
    kept = shape[:3]
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise ScanReadError(
            f"{path}: holds a {len(shape)}-D image of shape {shape}; expected one volume (X, Y, Z): "
            + ("stack the slices first" if len(shape) < 3 else "split it, for instance with fslsplit"),
            path=path,
        )
    header = image.header
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if sform == 0:
        _check_spacing(image, path)
    try:
        grid = Grid((kept[0], kept[1], kept[2]), image.affine)
    except GeometryError as error:
        raise ScanReadError(
            f"{path}: {error}; expected an affine that can be inverted: repair the sform or qform", path=path
        ) from error
    return grid, _geometry_notes(header, grid, sform, qform)


def _check_spacing(image: Any, path: Path) -> None:
    """Refuse a spacing of zero, which nibabel turns into 1 mm while loading."""
    with _translated(path), ImageOpener(str(path)) as file:
        raw = type(image.header).from_fileobj(file, check=False)
    pixdim = [float(size) for size in raw["pixdim"][1:4]]
    if not all(np.isfinite(size) and size != 0 for size in pixdim):
        raise ScanReadError(
            f"{path}: voxel spacing {tuple(pixdim)} mm in the header; expected three sizes above zero: "
            "repair pixdim or set an sform",
            path=path,
        )


def _geometry_notes(header: Any, grid: Grid, sform: int, qform: int) -> list[str]:
    notes = []
    if sform == 0 and qform == 0:
        notes.append(
            "neither sform nor qform is set: the orientation is a guess (RAS or LAS from the spacing)"
        )
    if sform > 0 and qform > 0:
        try:
            distance = corner_distance(grid, Grid(grid.shape, header.get_qform()))
        except (GeometryError, ValueError, HeaderDataError):
            notes.append("the qform is unusable; the sform is used")
        else:
            if distance > 0.1:
                notes.append(f"sform and qform disagree by {distance:.1f} voxels; the sform is used")
    unit = _SPATIAL_UNITS.get(int(header["xyzt_units"]) & 7)
    if unit:
        notes.append(f"the header gives lengths in {unit}; they are taken as millimetres")
    return notes


def _stored_voxels(image: Any, path: Path) -> NDArray[Any]:
    """Return the voxels as stored, native byte order, Fortran order.

    The file is read to its end: only there does gzip compare its checksum, and a damaged file would
    otherwise pass as a scan.
    """
    proxy = image.dataobj
    opener: Any = ImageOpener(str(path))
    with opener as file:
        voxels: NDArray[Any] = array_from_file(
            proxy.shape, proxy.dtype, file, proxy.offset, order="F", mmap=False
        )
        while file.read(1 << 20):
            pass
    return voxels if voxels.dtype.isnative else voxels.astype(voxels.dtype.newbyteorder("="))


def _scaled(raw: NDArray[Any], slope: float, inter: float) -> NDArray[Any]:
    """Return ``raw * slope + inter``: integers where all three are whole, else float32.

    `raw` is overwritten where its type can hold the result.
    """
    if slope == 1 and inter == 0 and raw.dtype.kind in "iu":
        return raw
    dtype = _integer_type(raw, slope, inter) or np.dtype(np.float32)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is reported
        voxels = raw.astype(dtype, copy=False)
        if slope != 1:
            voxels *= dtype.type(slope)
        if inter != 0:
            voxels += dtype.type(inter)
    return voxels


def _integer_type(raw: NDArray[Any], slope: float, inter: float) -> np.dtype[Any] | None:
    """Return the first integer type that holds every step of the scaling, None if there is none."""
    if raw.dtype.kind not in "iu" or not (float(slope).is_integer() and float(inter).is_integer()):
        return None
    m, b = int(slope), int(inter)
    steps = [m, b]
    for end in (int(raw.min()), int(raw.max())):
        steps += [end, end * m, end * m + b]
    for dtype in (raw.dtype, np.dtype(np.int16), np.dtype(np.int32), np.dtype(np.int64)):
        limits = np.iinfo(dtype)
        if limits.min <= min(steps) and max(steps) <= limits.max:
            return dtype
    return None


def finite(
    voxels: NDArray[Any], path: Path, nan_to: float | None = None, advice: str = NAN_ADVICE
) -> tuple[NDArray[Any], list[str]]:
    """Return voxels without NaN and infinity (replaced in place by `nan_to`), and a remark if there were any.

    Raises
    ------
    ScanReadError
        If there are any and `nan_to` is None.
    """
    if voxels.dtype.kind != "f":
        return voxels, []
    bad = ~np.isfinite(voxels)
    count = int(np.count_nonzero(bad))
    if count == 0:
        return voxels, []
    if nan_to is None:
        raise ScanReadError(
            f"{path}: {count} of {voxels.size} voxels are NaN or infinite; expected finite numbers: "
            + advice,
            path=path,
        )
    voxels[bad] = nan_to
    return voxels, [f"{count} NaN or infinite voxels were set to {nan_to:g}"]
