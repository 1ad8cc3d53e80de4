"""Writing a store: whole cases and label sets, each made to exist by one rename."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from featcache.errors import CorruptStore, FeaturesNotFound, GeometryError, StoreError
from featcache.geometry import Grid
from featcache.store.casewriter import CaseWriter
from featcache.store.create import create_store, existing_root
from featcache.store.documents import CaseInfo, Codes, LabelDocument, RootDocument
from featcache.store.files import write_errors, write_synced
from featcache.store.index import Index, committed
from featcache.store.layout import (
    CASES,
    DOCUMENT,
    GROUP,
    INDEX,
    LABELS,
    case_folder,
    check_name,
    labels_folder,
    multiscale_group,
)
from featcache.store.manifest import Part
from featcache.store.seal import seal
from featcache.store.staging import Staging


class StoreWriter:
    """The one writer of a store; a context manager. Commit from one thread at a time."""

    def __init__(self, path: Path, root: RootDocument, staging: Staging) -> None:
        self.path = path
        self.root = root
        self._staging = staging
        for group in (CASES, LABELS):
            self._ensure_group(path / group)
        self._index = self._load_index()

    @classmethod
    def open(cls, path: Path | str, root: RootDocument) -> Self:
        """Return the writer of a store, which is made where there is none.

        Parameters
        ----------
        path : Path or str
            The store's folder: absent, empty, or a store of the same encoder and recipe.
        root : RootDocument
            What made the features. An existing store keeps its own head.

        Raises
        ------
        StaleFeatures
            If the store is another encoder's or another recipe's.
        StoreError
            If the folder holds something else, another process writes to it, or the disk refuses.
        CorruptStore
            If the store's root document is lost or damaged.
        """
        path = Path(path).resolve()
        existing_root(path, root)  # before anything is touched
        staging = Staging(path)
        try:
            found = existing_root(path, root)  # another process may have made it meanwhile
            if found is None:
                create_store(path, root, staging)
            return cls(path, found or root, staging)
        except BaseException:
            staging.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what is left in staging and let other writers in."""
        self._staging.close()

    def new_case(self, case: str, info: CaseInfo) -> CaseWriter:
        """Return the writer of one case, a context manager; a case of this id is replaced at its commit."""
        staged = self._staging.new_folder(CASES, check_name(case))
        return CaseWriter(case, info, staged, self._staging, self._committed)

    def remove_case(self, case: str) -> None:
        """Remove a case and its labels.

        Raises
        ------
        FeaturesNotFound
            If the store does not know it.
        """
        target = case_folder(self.path, case)
        if not target.exists() and case not in self._index.cases:
            raise FeaturesNotFound(f"{self.path} has no case {case!r} to remove", path=self.path, case=case)
        for folder in (self.path / LABELS / case, target):
            self._staging.remove(folder)
        self._index.cases.discard(case)
        self._index.labels.pop(case, None)
        self._save_index()

    def write_labels(
        self,
        case: str,
        array: NDArray[np.integer[Any]],
        grid: Grid,
        codes: Codes,
        *,
        classes: Mapping[str, int],
        annotated: Sequence[str],
        group: str | None = None,
        name: str = "labels",
    ) -> None:
        """Write a label set; one of this name is replaced. Features are not touched.

        Parameters
        ----------
        case : str
            A committed case.
        array : ndarray, shape (X, Y, Z), integers
            On `grid`.
        grid : Grid
            The scan's own grid.
        codes : (int, int)
            Its sform and qform codes.
        classes : mapping
            Class name to value.
        annotated : sequence of str
            The classes annotated in this case.
        group : str, optional
            What must not be split between training and test.
        name : str
            The label set's name.

        Raises
        ------
        FeaturesNotFound
            If there is no such case.
        GeometryError
            If the array's shape is not the grid's.
        StoreError
            If values or classes cannot be stored, or the disk refuses.
        """
        from featcache.store import arrays

        target = labels_folder(self.path, case, name)
        if not (case_folder(self.path, case) / DOCUMENT).is_file():
            raise FeaturesNotFound(
                f"labels for case {case!r}: {self.path} has no such case; extract it first", case=case
            )
        if array.shape != grid.shape:
            raise GeometryError(
                f"labels of case {case!r} have shape {array.shape}, their grid has {grid.shape}", case=case
            )
        document = LabelDocument(grid, codes, dict(classes), tuple(annotated), group)
        dtype = _label_dtype(array, case)
        staged = self._staging.new_folder(LABELS, case)
        try:
            write_synced(staged / DOCUMENT, GROUP)
            part = Part(staged / name, document.manifest, "0")
            arrays.create_labels(part, grid.shape, dtype)[...] = array
            commit = seal(multiscale_group(name, grid, "xyz", document.to_json()))
            write_synced(staged / name / DOCUMENT, commit)
            if target.parent.exists():
                self._ensure_group(target.parent)
                self._staging.move_in(staged / name, target)
            else:
                self._staging.move_in(staged, target.parent)
        finally:
            self._staging.discard(staged)
        self._index.labels.setdefault(case, set()).add(name)
        self._save_index()

    def remove_labels(self, case: str, name: str = "labels") -> None:
        """Remove a label set.

        Raises
        ------
        FeaturesNotFound
            If the store does not know it.
        """
        target = labels_folder(self.path, case, name)
        known = self._index.labels.get(case, set())
        if not target.exists() and name not in known:
            raise FeaturesNotFound(f"{self.path}: case {case!r} has no labels {name!r}", case=case)
        only = not set(committed(target.parent)) - {name}
        self._staging.remove(target.parent if only else target)
        known.discard(name)
        self._save_index()

    def set_head(self, head: dict[str, Any] | None) -> None:
        """Store the encoder's own linear head, in one atomic rewrite of the root document."""
        self._replace_root(replace(self.root, head=head))

    def set_calibration(self, calibration: dict[str, Any]) -> None:
        """Store what stored integers stand for, in one atomic rewrite of the root document."""
        self._replace_root(replace(self.root, calibration=calibration))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a folder for temporary files, on the store's file system; it goes at the end."""
        folder = self._staging.new_folder("scratch")
        try:
            yield folder
        finally:
            self._staging.discard(folder)

    def _replace_root(self, root: RootDocument) -> None:
        self._staging.replace(self.path / DOCUMENT, seal(root.to_json()))
        self.root = root

    def _committed(self, case: str) -> None:
        self._index.cases.add(case)
        self._save_index()

    def _save_index(self) -> None:
        self._staging.replace(self.path / INDEX, self._index.to_bytes())

    def _load_index(self) -> Index:
        """Return the index with all that is committed; a lost case stays in it, as a witness."""
        there = Index.of_folders(self.path)
        try:
            index = Index.load(self.path)
        except CorruptStore:
            index = None  # rebuilt: the folders say what there is
        merged = there if index is None else index.merged(there)
        if index is None or merged.to_bytes() != index.to_bytes():
            self._staging.replace(self.path / INDEX, merged.to_bytes())
        return merged

    def _ensure_group(self, folder: Path) -> None:
        path = folder / DOCUMENT
        if not path.is_file() or path.read_bytes() != GROUP:
            with write_errors(path):
                folder.mkdir(exist_ok=True)
            self._staging.replace(path, GROUP)


def _label_dtype(array: NDArray[Any], case: str) -> str:
    if array.dtype.kind not in "iub":
        raise StoreError(f"labels of case {case!r} are {array.dtype}; expected integers", case=case)
    low, high = int(array.min()), int(array.max())
    for dtype in ("uint8", "uint16", "int32"):
        limits = np.iinfo(dtype)
        if limits.min <= low and high <= limits.max:
            return dtype
    raise StoreError(f"labels of case {case!r} reach from {low} to {high}; expected int32", case=case)
