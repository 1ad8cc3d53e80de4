"""Reading a case: features by boxes, labels whole.

Arrays open at the first read, so a case may go to worker threads. Lost or damaged data raises
CorruptStore; it never reads as zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import CorruptStore, FeaturesNotFound, GeometryError
from featcache.geometry import Grid
from featcache.quantise import Calibration
from featcache.store.documents import CaseDocument, CaseInfo, Codes, LabelDocument, LevelInfo
from featcache.store.index import committed
from featcache.store.layout import DOCUMENT, FEATURES, LABELS, case_folder, labels_folder, level_prefix
from featcache.store.manifest import Part, check_constant, object_problem, read_file
from featcache.store.seal import unseal

if TYPE_CHECKING:
    from featcache.store.arrays import ZarrArray


class Case:
    """One case of a store; its document is read at the first question.

    Attributes
    ----------
    id : str
        The case's id.
    folder : Path
        Its folder.
    """

    def __init__(self, store: Path, case: str) -> None:
        self._store = store
        self.id = case
        self.folder = case_folder(store, case)

    @cached_property
    def document(self) -> CaseDocument:
        """The case's commit."""
        path = self.folder / DOCUMENT
        return CaseDocument.parse(unseal(read_file(path), path), path)

    @property
    def info(self) -> CaseInfo:
        """Native and prepared grid, codes, unit and steps."""
        return self.document.info

    @property
    def seal(self) -> str:
        """SHA-256 that stands for all bytes of the case, as `CaseWriter.commit` returned it."""
        return self.document.seal

    @property
    def levels(self) -> dict[str, LevelInfo]:
        """The levels by name."""
        return self.document.levels

    def level(self, name: str) -> Level:
        """Return a level of features.

        Raises
        ------
        FeaturesNotFound
            If the case has none of this name.
        """
        if name not in self.levels:
            raise FeaturesNotFound(
                f"case {self.id!r} has no level {name!r}; it has {', '.join(sorted(self.levels))}",
                path=self.folder,
                case=self.id,
            )
        return Level(self.folder, name, self.document)

    def label_names(self) -> list[str]:
        """Return the names of the case's label sets, sorted."""
        return committed(self._store / LABELS / self.id)

    def labels(self, name: str = "labels") -> LabelSet | None:
        """Return a label set, or None where the case has none of this name.

        Raises
        ------
        CorruptStore
            If it is damaged.
        """
        folder = labels_folder(self._store, self.id, name)
        if not folder.is_dir():
            return None
        check_constant(folder.parent / DOCUMENT)
        path = folder / DOCUMENT
        return LabelSet(folder, LabelDocument.parse(unseal(read_file(path), path), path))


class Level:
    """One level of a case's features: floats or a few bits a value on the disk, float32 when read.

    Attributes
    ----------
    info : LevelInfo
        Grid, channels, precision and stored error.
    """

    def __init__(self, folder: Path, name: str, document: CaseDocument) -> None:
        self.name = name
        self.info = document.levels[name]
        self._part = Part(folder, document.manifest, f"{level_prefix(name)}/0")

    @property
    def grid(self) -> Grid:
        """The level's grid."""
        return self.info.grid

    @property
    def channels(self) -> int:
        """Features per voxel."""
        return self.info.channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """What is stored."""
        return np.dtype(self.info.precision.dtype)

    @property
    def chunk(self) -> int:
        """The edge e of an inner chunk: boxes that start and end at multiples of it read fastest."""
        return int(self._array.chunks[1])

    def read(self, start: Sequence[int], size: Sequence[int]) -> NDArray[np.float32]:
        """Return the features of a box.

        Parameters
        ----------
        start, size : sequence of 3 int
            First voxel and number of voxels along each axis of `grid`.

        Returns
        -------
        ndarray, shape (C, x, y, z), float32

        Raises
        ------
        GeometryError
            If the box leaves the grid.
        CorruptStore
            If data of the box is lost or damaged.
        """
        from featcache.store import arrays

        shape = self.grid.shape
        fits = len(start) == len(size) == 3 and all(
            a >= 0 and n >= 1 and a + n <= limit for a, n, limit in zip(start, size, shape, strict=True)
        )
        if not fits:
            raise GeometryError(
                f"level {self.name!r} of {self._part.folder.name}: no box of size {tuple(size)} at "
                f"{tuple(start)} in a grid of {shape}"
            )
        box = arrays.read_box(self._array, self._part, start, size)
        return self.info.precision.decode(box, self.calibration)

    @cached_property
    def calibration(self) -> Calibration | None:
        """What stored integers stand for; None where floats are stored.

        Raises
        ------
        CorruptStore
            If it is lost or damaged.
        """
        from featcache.store import arrays

        if not self.info.precision.calibrated:
            return None
        folder = self._part.prefix.removesuffix("/0")
        scale, offset = (
            arrays.read_channel_values(
                Part(self._part.folder, self._part.manifest, f"{folder}/{what}"), self.channels
            )
            for what in ("scale", "offset")
        )
        return Calibration(self.info.precision.bits, scale, offset)

    @cached_property
    def _array(self) -> ZarrArray:
        from featcache.store import arrays

        # Two documents that we need for nothing but that other readers need.
        for key in (f"{FEATURES}/{DOCUMENT}", f"{level_prefix(self.name)}/{DOCUMENT}"):
            _check_object(self._part, key)
        array = arrays.open_array(self._part)
        _check_array(array, (self.channels, *self.grid.shape), self._part)
        return array


class LabelSet:
    """A case's labels on the scan's own grid."""

    def __init__(self, folder: Path, document: LabelDocument) -> None:
        self.document = document
        self._part = Part(folder, document.manifest, "0")

    @property
    def grid(self) -> Grid:
        """The scan's own grid."""
        return self.document.grid

    @property
    def codes(self) -> Codes:
        """The scan's sform and qform codes."""
        return self.document.codes

    @property
    def classes(self) -> dict[str, int]:
        """Class name to value."""
        return self.document.classes

    @property
    def annotated(self) -> tuple[str, ...]:
        """The classes annotated in this case; voxels of the others are unknown."""
        return self.document.annotated

    @property
    def group(self) -> str | None:
        """What must not be split between training and test."""
        return self.document.group

    def read(self) -> NDArray[np.integer[Any]]:
        """Return the label map, shape (X, Y, Z), integers, on `grid`.

        Raises
        ------
        CorruptStore
            If data is lost or damaged.
        """
        from featcache.store import arrays

        array = arrays.open_array(self._part)
        _check_array(array, self.grid.shape, self._part)
        return arrays.read_box(array, self._part, (0, 0, 0), self.grid.shape)


def _check_object(part: Part, key: str) -> None:
    path, entry = part.folder / key, part.manifest.get(key)
    problem = object_problem(path, entry) if entry else "the manifest lacks it"
    if problem:
        raise CorruptStore(f"{path}: {problem}; run `featcache verify`", path=path)


def _check_array(array: ZarrArray, shape: tuple[int, ...], part: Part) -> None:
    if array.shape != shape:
        found = f"{part.path}: an array of shape {array.shape}, the commit says {shape}"
        raise CorruptStore(found, path=part.path)
