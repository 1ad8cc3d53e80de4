"""Opening and finding a store for reading. Nothing is opened at import, cases only when asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from featcache.errors import CorruptStore, FeaturesNotFound, StoreError
from featcache.store.case import Case
from featcache.store.documents import RootDocument
from featcache.store.index import committed
from featcache.store.layout import (
    CASES,
    DOCUMENT,
    INDEX,
    LABELS,
    case_folder,
    labels_folder,
)
from featcache.store.manifest import check_constant, read_file
from featcache.store.seal import unseal


class FeatureStore:
    """A store opened for reading.

    Attributes
    ----------
    path : Path
        Its folder.
    root : RootDocument
        Encoder, recipe and head.
    """

    def __init__(self, path: Path, root: RootDocument) -> None:
        self.path = path
        self.root = root

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Return the store at `path`; cases are not looked at yet.

        Raises
        ------
        StoreError
            If there is no store or a newer featcache wrote it.
        CorruptStore
            If the documents at the top are lost or damaged.
        """
        path = Path(path)
        root = read_root(path)
        for group in (CASES, LABELS):
            check_constant(path / group / DOCUMENT)
        return cls(path, root)

    @staticmethod
    def find(folder: Path | str) -> Path:
        """Return the path of the one store in a folder, or of the folder if it is a store itself.

        Raises
        ------
        StoreError
            If there is none, or more than one.
        """
        folder = Path(folder)
        if _is_store(folder):
            return folder
        found = sorted(path for path in folder.iterdir() if _is_store(path)) if folder.is_dir() else []
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise StoreError(f"{folder} holds {len(found)} feature stores ({names}); choose one with --store")
        raise StoreError(
            f"{folder} holds no feature store; make one with `featcache extract --model fm.onnx --in scans/` "
            "or name one with --store"
        )

    def cases(self) -> list[str]:
        """Return the ids of the complete cases, sorted."""
        return committed(self.path / CASES)

    def labelled(self, name: str = "labels") -> list[str]:
        """Return the ids of the complete cases that have the label set `name`, sorted."""
        return [c for c in self.cases() if (labels_folder(self.path, c, name) / DOCUMENT).is_file()]

    def case(self, case: str) -> Case:
        """Return a case.

        Raises
        ------
        FeaturesNotFound
            If there is none of this id.
        CorruptStore
            If it has lost its commit.
        """
        folder = case_folder(self.path, case)
        if not folder.is_dir():
            cases = self.cases()
            some = ", ".join(cases[:5]) + (", ..." if len(cases) > 5 else "")
            raise FeaturesNotFound(
                f"{self.path} has no case {case!r}; it has {len(cases)}: {some or 'none'}",
                path=self.path,
                case=case,
            )
        if not (folder / DOCUMENT).is_file():
            raise CorruptStore(
                f"{folder} has lost its {DOCUMENT}, so the case is not complete; run `featcache extract` "
                "again",
                path=folder,
                case=case,
            )
        return Case(self.path, case)

    def describe(self) -> dict[str, Any]:
        """Return what `featcache info` shows, as plain JSON values; reads every case's document."""
        from featcache.store.describe import describe

        return describe(self)


def read_root(path: Path) -> RootDocument:
    """Return the root document of the store at `path`.

    Raises
    ------
    StoreError
        If there is no store, or a newer featcache wrote it.
    CorruptStore
        If the document is lost or damaged.
    """
    document = path / DOCUMENT
    if not path.exists():
        raise StoreError(
            f"{path} does not exist; make a store with `featcache extract --model fm.onnx --in scans/`",
            path=path,
        )
    if not _is_store(path):
        raise StoreError(
            f"{path} is not a feature store: expected a folder with the {DOCUMENT} that `featcache extract` "
            "writes; name another folder",
            path=path,
        )
    return RootDocument.parse(unseal(read_file(document), document), document)


def _is_store(path: Path) -> bool:
    """Tell whether a folder is a feature store, perhaps a damaged one: by what only our stores have."""
    if (path / INDEX).is_file() and (path / CASES).is_dir():
        return True
    try:
        slot = json.loads((path / DOCUMENT).read_bytes())["attributes"]["featcache"]
        return bool(slot["kind"] == "store")
    except (OSError, ValueError, KeyError, TypeError):
        return False
