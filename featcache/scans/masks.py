"""Masks and probabilities -> NIfTI files whose shape and affine equal the scan's."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from featcache.errors import StoreError
from featcache.geometry import Grid

# 255 steps to 1. The float32 nearest to 1/255 is above it, and a probability above 1 surprises; this is the next.
PROBABILITY_STEP = float(np.nextafter(np.float32(1 / 255), np.float32(0)))
PROBABILITIES = "_probabilities.nii.gz"  # follows the case in the name of a file beside its mask
_LEVEL = 1  # of gzip, as nibabel's own


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

    image = nib.Nifti1Image(values, None)
    header = image.header
    _place(header, grid, codes)
    with _new_file(path, "mask") as part:
        nib.save(nib.Nifti1Image(values, None, header), part)


class ProbabilityFile:
    """Writes probabilities of one scan as .nii.gz, box by box; the file appears only when it is whole.

    Shape (X, Y, Z, K), uint8 with a scale: what is read back is 0 to 1, off by at most 1/510. NIfTI has no float16,
    and float32 would be four times as large for digits that no adapter has. Boxes wait in a nameless file, so
    that memory holds one class of the volume at most. A context manager: leaving it by an exception writes nothing.

    Parameters
    ----------
    path : Path
        Ends in .nii.gz.
    grid : Grid
        The scan's own.
    codes : tuple of (int, int)
        Its sform and qform codes.
    classes : int
        K.

    Raises
    ------
    StoreError
        If the file cannot be written.
    """

    def __init__(self, path: Path, grid: Grid, codes: tuple[int, int], classes: int) -> None:
        self._path, self._grid, self._codes, self._classes = path, grid, codes, classes
        self._boxes: list[tuple[tuple[slice, ...], int]] = []

    def __enter__(self) -> Self:
        with _write_errors(self._path, "probabilities"):
            self._waiting = tempfile.TemporaryFile(dir=self._path.parent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._waiting:
            if kind is None:
                self._write()

    def add(self, box: tuple[slice, ...], values: NDArray[np.float32]) -> None:
        """Take the probabilities of a box, shape (x, y, z, K), 0 to 1; voxels in no box have 0."""
        with _write_errors(self._path, "probabilities"):
            self._boxes.append((box, self._waiting.tell()))
            for k in range(self._classes):
                self._waiting.write(np.rint(values[..., k] * 255).astype(np.uint8).tobytes())

    def _write(self) -> None:
        import nibabel as nib

        header = nib.Nifti1Header()
        header.set_data_dtype(np.uint8)
        header.set_data_shape((*self._grid.shape, self._classes))
        _place(header, self._grid, self._codes)
        header.set_slope_inter(PROBABILITY_STEP, 0)
        header["cal_max"] = 1.0
        with _new_file(self._path, "probabilities") as part, gzip.open(part, "wb", _LEVEL) as file:
            header.write_to(file)
            for k in range(self._classes):
                file.write(self._class(k).tobytes("F"))

    def _class(self, k: int) -> NDArray[np.uint8]:
        """Return one class of the whole volume."""
        volume = np.zeros(self._grid.shape, np.uint8)
        for box, start in self._boxes:
            shape = volume[box].shape
            count = int(np.prod(shape))
            self._waiting.seek(start + k * count)
            volume[box] = np.frombuffer(self._waiting.read(count), np.uint8).reshape(shape)
        return volume


def _place(header: Any, grid: Grid, codes: tuple[int, int]) -> None:
    """Say in a NIfTI header where the voxels of `grid` lie."""
    sform, qform = codes
    header.set_xyzt_units("mm")
    header.set_zooms((*np.linalg.norm(grid.affine[:3, :3], axis=0), *header.get_zooms()[3:]))
    if qform > 0:
        header.set_qform(grid.affine, qform)
    exact = sform > 0 or np.array_equal(header.get_best_affine(), grid.affine)
    # Where the qform's float32 quaternion misses the last bit, the sform says it better.
    header.set_sform(
        grid.affine if not exact or sform > 0 else None, sform if exact else max(sform, qform, 1)
    )


@contextmanager
def _new_file(path: Path, what: str) -> Iterator[Path]:
    """Yield a path to write to, which becomes `path` when it is on the disk; after an error nothing is left."""
    part = path.with_name(f".{path.name.removesuffix('.nii.gz')}.partial.nii.gz")
    with _write_errors(path, what):
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def _write_errors(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: the {what} could not be written: {error}", path=path) from error
