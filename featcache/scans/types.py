"""The values that flow out of reading: a scan, its labels, and where either comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ScanReadError
from featcache.geometry import Grid

Unit = Literal["HU", "a.u."]
Kind = Literal["nifti", "dicom"]
Annotated = Literal["all", "present"]


@dataclass(frozen=True)
class ScanSource:
    """Where one scan lies; nothing of it has been read yet.

    Parameters
    ----------
    case : str
        Identifier, unique (also without regard to case) among the sources found together.
    files : tuple of Path
        One NIfTI file, or the DICOM files of one folder.
    kind : {"nifti", "dicom"}
        How to read them.
    """

    case: str
    files: tuple[Path, ...]
    kind: Kind = "nifti"

    def __post_init__(self) -> None:
        if not self.files or (self.kind == "nifti" and len(self.files) != 1):
            raise ScanReadError(
                f"case {self.case!r}: expected one NIfTI file or the files of one DICOM series, "
                f"found {len(self.files)} files",
                case=self.case,
            )

    @property
    def path(self) -> Path:
        """The NIfTI file, or the folder that holds the DICOM series."""
        return self.files[0] if self.kind == "nifti" else self.files[0].parent


@dataclass(frozen=True)
class LabelSource:
    """Where one case's labels lie and what is known about them beforehand.

    Parameters
    ----------
    path : Path
        A NIfTI file of integers.
    classes : dict of str to int, optional
        Class names and their values, background left out; None where nobody named them.
    annotated : tuple of str, optional
        The classes that were annotated in this case, where a table says so.
    group : str, optional
        Patient or site, where a table says so: cases of one group stay together when splitting.
    """

    path: Path
    classes: dict[str, int] | None = None
    annotated: tuple[str, ...] | None = None
    group: str | None = None


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels of one file or series with their geometry, before anybody says what they mean.

    Parameters
    ----------
    voxels : ndarray, shape (X, Y, Z)
        Scaled values: the file's integer type where they are integers, else float32.
    grid : Grid
        Shape and affine (mm, RAS+).
    sform_code, qform_code : int
        NIfTI codes of the file; 1 (scanner) for DICOM.
    notes : tuple of str
        What a reader should know: sentences.
    """

    voxels: NDArray[Any]
    grid: Grid
    sform_code: int
    qform_code: int
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.voxels.shape != self.grid.shape:
            raise ScanReadError(
                f"voxels of shape {self.voxels.shape} on a grid of shape {self.grid.shape}: expected equal"
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class Scan(Volume):
    """One scan, ready to be prepared for an encoder.

    Parameters
    ----------
    unit : {"HU", "a.u."}
        What the voxel values are: Hounsfield units, or arbitrary as in MR.
    case : str
        Identifier.
    path : Path
        The NIfTI file or the DICOM folder.
    """

    unit: Unit
    case: str
    path: Path


@dataclass(frozen=True, eq=False)
class LabelVolume:
    """One case's labels on the scan's own grid.

    Parameters
    ----------
    voxels : ndarray of unsigned int, shape (X, Y, Z)
        Class values, 0 is background; the smallest type that holds them.
    grid : Grid
        The scan's grid.
    codes : tuple of (int, int)
        sform and qform code of the label file.
    classes : dict of str to int
        Class names and values, background left out.
    annotated : tuple of str
        The classes annotated in this case; the others are unknown here, not absent.
    group : str, optional
        Patient or site.
    """

    voxels: NDArray[np.unsignedinteger[Any]]
    grid: Grid
    codes: tuple[int, int]
    classes: dict[str, int]
    annotated: tuple[str, ...]
    group: str | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.annotated if name not in self.classes]
        if unknown:
            raise ScanReadError(
                f"annotated classes {unknown} are unknown; expected some of {sorted(self.classes)}"
            )


@dataclass(frozen=True)
class Discovery:
    """What lies at the places a user named.

    Parameters
    ----------
    sources : tuple of ScanSource
        The scans, in the order found.
    labels : dict of str to LabelSource
        Labels by case; cases without any are absent.
    notes : tuple of str
        What was found and assumed, as sentences for the user.
    ignored : tuple of Path
        Files and folders that lie there and are neither scans nor labels in use.
    """

    sources: tuple[ScanSource, ...]
    labels: dict[str, LabelSource]
    notes: tuple[str, ...] = ()
    ignored: tuple[Path, ...] = ()
