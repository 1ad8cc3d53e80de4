"""Masks -> NIfTI files whose shape and affine equal the scan's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import StoreError
from featcache.geometry import Grid


def write_mask(path: Path, values: NDArray[Any], grid: Grid, codes: tuple[int, int]) -> None:
    """Write a label map as .nii.gz; the file appears only when it is whole.

    The scan's sform and qform codes are kept, so that the affine is read back from the same fields and
    equals the scan's bit for bit. (NIfTI keeps float32: of a DICOM series' affine that is what remains.)

    Parameters
    ----------
    path : Path
        Ends in .nii.gz.
    values : ndarray, shape (X, Y, Z), unsigned integers
    grid : Grid
        The scan's own.
    codes : tuple of (int, int)
        Its sform and qform codes.

    Raises
    ------
    StoreError
        If the file cannot be written.
    """
    import nibabel as nib

    sform, qform = codes
    image = nib.Nifti1Image(values, None)
    header = image.header
    header.set_xyzt_units("mm")
    header.set_zooms(tuple(np.linalg.norm(grid.affine[:3, :3], axis=0)))
    if qform > 0:
        header.set_qform(grid.affine, qform)
    exact = sform > 0 or np.array_equal(header.get_best_affine(), grid.affine)
    # Where the qform's float32 quaternion misses the last bit, the sform says it better.
    header.set_sform(
        grid.affine if not exact or sform > 0 else None, sform if exact else max(sform, qform, 1)
    )
    part = path.with_name(f".{path.name.removesuffix('.nii.gz')}.partial.nii.gz")
    try:
        nib.save(nib.Nifti1Image(values, None, header), part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError(f"{path}: the mask could not be written: {error}", path=path) from error
