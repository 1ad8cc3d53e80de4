"""Writing one case: its levels, then the commit that makes it exist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from featcache.errors import StoreError
from featcache.geometry import Grid
from featcache.store.documents import CaseDocument, CaseInfo
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

    def level(self, name: str, grid: Grid, channels: int, dtype: str = "float16") -> LevelWriter:
        """Return the writer of a new level; levels may be written side by side."""
        if dtype not in ("float16", "float32"):
            raise StoreError(f"level {name!r}: dtype {dtype!r}; features are stored as float16 or float32")
        part = Part(self._staged, self._manifest, level_prefix(name))
        writer = LevelWriter(part, self._case, name=name, grid=grid, channels=channels, dtype=dtype)
        self._levels[name] = writer
        return writer

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
