"""Writing one case: its levels, then the commit that makes it exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from featcache.calibrate import StoreCalibration
from featcache.errors import StoreError
from featcache.geometry import Grid
from featcache.head import LinearHead
from featcache.quantise import Calibration, Features, Precision, get_precision
from featcache.store.documents import CaseDocument, CaseInfo, RootDocument
from featcache.store.files import write_synced
from featcache.store.layout import DOCUMENT, FEATURES, GROUP, case_folder, level_prefix
from featcache.store.levels import LevelWriter
from featcache.store.manifest import Manifest, Part, record
from featcache.store.seal import seal, unseal
from featcache.store.staging import Staging


class CaseWriter:
    """Writes one case; leaving the ``with`` block without a commit removes what was written."""

    def __init__(
        self, case: str, info: CaseInfo, staged: Path, staging: Staging, committed: Callable[[str], None]
    ) -> None:
        self._case, self._info, self._staged = case, info, staged
        self._staging, self._committed = staging, committed
        self._levels: dict[str, LevelWriter] = {}
        self._manifest: Manifest = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def level(
        self,
        name: str,
        grid: Grid,
        channels: int,
        precision: str = "float16",
        *,
        calibration: Calibration | None = None,
        head: LinearHead | None = None,
    ) -> LevelWriter:
        """Return the writer of a new level; levels may be written side by side.

        Parameters
        ----------
        name : str
        grid : Grid
        channels : int
        precision : str
            One of `featcache.quantise.PRECISIONS`.
        calibration : Calibration, optional
            Of this level, for integers.
        head : LinearHead, optional
            The encoder's own head, whatever level it reads; not asked for plain float16 and float32.

        Raises
        ------
        StoreError
            If the precision is unknown, or the calibration does not fit it.
        """
        found = get_precision(precision)
        needed = (found.bits, channels) if found.calibrated else None
        given = None if calibration is None else (calibration.bits, len(calibration.scale))
        if given != needed:
            raise StoreError(
                f"level {name!r} of {channels} channels as {precision}: a calibration (bits, channels) of {given}; "
                f"expected {needed}",
                case=self._case,
            )
        reads = head is not None and head.level == name and not found.plain
        writer = LevelWriter(
            Part(self._staged, self._manifest, level_prefix(name)),
            self._case,
            name=name,
            grid=grid,
            channels=channels,
            precision=found,
            calibration=calibration,
            head=head if reads else None,
        )
        self._levels[name] = writer
        return writer

    def write(
        self,
        levels: Mapping[str, tuple[Grid, int]],
        slabs: Iterable[tuple[str, Features]],
        precision: Precision,
        root: RootDocument,
    ) -> None:
        """Write whole levels, slab by slab.

        Parameters
        ----------
        levels : mapping of str to (Grid, int)
            Grid and channels of every level.
        slabs : iterable of (str, ndarray)
            Level name and features (C, X, Y, z), float32; those of one level in order along z.
        precision : Precision
        root : RootDocument
            Of the store: its calibration and head.

        Raises
        ------
        EncoderError, GeometryError, StoreError
            As `LevelWriter.append`.
        """
        head = None if root.head is None else LinearHead.from_json(root.head)
        calibrations = {} if root.calibration is None else StoreCalibration.from_json(root.calibration).levels
        for name, (grid, channels) in levels.items():
            self.level(name, grid, channels, precision.name, calibration=calibrations.get(name), head=head)
        for name, slab in slabs:
            self._levels[name].append(slab)

    def commit(self) -> str:
        """Make the case exist; return its seal.

        Raises
        ------
        GeometryError
            If a level lacks slices.
        StoreError
            If there is no level, or the disk refuses.
        """
        if not self._levels:
            raise StoreError(f"case {self._case!r} has no level of features", case=self._case)
        levels = {name: level.close() for name, level in self._levels.items()}
        record(self._staged, f"{FEATURES}/{DOCUMENT}", GROUP, self._manifest)
        commit = seal(CaseDocument(self._info, levels, self._manifest).to_json())
        path = self._staged / DOCUMENT
        write_synced(path, commit)
        self._staging.move_in(self._staged, case_folder(self._staging.store, self._case))
        self._committed(self._case)
        return str(unseal(commit, path)["sha256"])

    def abort(self) -> None:
        """Remove what was written; nothing happens after a commit."""
        self._staging.discard(self._staged)
