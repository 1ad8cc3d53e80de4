"""The private file beside a store: which source each case came from. It is no part of a release."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from featcache.errors import CorruptStore, FeaturesNotFound, ScanReadError, StoreError
from featcache.store.files import sync_folder, write_errors
from featcache.store.manifest import sha256_of_file
from featcache.store.seal import to_json

if TYPE_CHECKING:
    from featcache.store.reader import FeatureStore


@dataclass(frozen=True)
class SourceState:
    """A source at one moment: its files, and what tells whether they changed.

    Parameters
    ----------
    sources : tuple of str
        Absolute paths, sorted.
    size, mtime_ns, inode : tuple of int
        Of each file.
    sha256 : str
        Of the file, or of the files' digests where there are several.
    """

    sources: tuple[str, ...]
    size: tuple[int, ...]
    mtime_ns: tuple[int, ...]
    inode: tuple[int, ...]
    sha256: str

    @classmethod
    def of(cls, source: Path | Sequence[Path]) -> Self:
        """Return the state of a file or of several files, reading them whole.

        Take it before the scan is read: a change in between is then noticed at the next run.

        Raises
        ------
        ScanReadError
            If a file cannot be read.
        """
        paths = _absolute(source)
        try:
            stats = _stats(paths)
            digests = [sha256_of_file(path) for path in paths]
        except OSError as error:
            raise ScanReadError(
                f"{error.filename} cannot be read: {error.strerror}", path=error.filename
            ) from error
        digest = digests[0] if len(paths) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        return cls(tuple(map(str, paths)), *stats, sha256=digest)


@dataclass(frozen=True)
class _Entry:
    state: SourceState
    commit: str


class PrivateRecord:
    """The record of a store's sources, ``<stem>.private.json``; load, ask, add.

    Attributes
    ----------
    path : Path
        The private file.
    salt : str
        Random, for the ids of a release.
    """

    def __init__(self, path: Path, salt: str, entries: dict[str, _Entry]) -> None:
        self.path = path
        self.salt = salt
        self._entries = entries

    @classmethod
    def load(cls, store: Path | str) -> Self:
        """Return the record beside the store, a new one where there is none.

        Raises
        ------
        StoreError
            If the file is damaged.
        """
        path = private_path(Path(store))
        if not path.exists():
            return cls(path, secrets.token_hex(16), {})
        try:
            document = json.loads(path.read_bytes())
            entries = {case: _entry(entry) for case, entry in document["cases"].items()}
            return cls(path, str(document["salt"]), entries)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{path} is damaged ({error!r}): expected the record of the store's sources; delete it, and "
                "every case will be extracted again",
                path=path,
            ) from error

    def sources(self, case: str) -> tuple[str, ...] | None:
        """Return the files that a case came from, or None where that is not known."""
        entry = self._entries.get(case)
        return entry.state.sources if entry else None

    def add(self, case: str, state: SourceState, commit: str) -> None:
        """Note that the commit with this seal was made from `state`, and write the file."""
        self._entries[case] = _Entry(state, commit)
        self._save()

    def remove(self, case: str) -> None:
        """Forget a case, and write the file."""
        if self._entries.pop(case, None) is not None:
            self._save()

    def unchanged(self, case: str, source: Path | Sequence[Path], commit: str | None) -> bool:
        """Tell whether the case in the store is complete and was made from `source` as it is now.

        Parameters
        ----------
        case : str
            The case.
        source : Path or sequence of Path
            Its scan.
        commit : str or None
            `Case.seal` of the case in the store, None where it has none.

        Raises
        ------
        ScanReadError
            If the source cannot be read.
        """
        entry = self._entries.get(case)
        if entry is None or commit is None or entry.commit != commit:
            return False
        paths = _absolute(source)
        known = entry.state
        if known.sources == tuple(map(str, paths)):
            try:
                now = _stats(paths)
            except OSError as error:
                raise ScanReadError(f"{error.filename} cannot be read: {error.strerror}") from error
            # The inode too: another file moved to this name may well have its size and time.
            if now == (known.size, known.mtime_ns, known.inode):
                return True
        return SourceState.of(source).sha256 == known.sha256

    def complete(self, store: FeatureStore, case: str, source: Path | Sequence[Path]) -> bool:
        """Tell whether the case is whole in `store` and was made from `source` as it is now.

        Raises
        ------
        ScanReadError
            If the source cannot be read.
        """
        try:
            commit = store.case(case).seal
        except (FeaturesNotFound, CorruptStore):
            return False
        return self.unchanged(case, source, commit)

    def _save(self) -> None:
        cases = {
            case: {**asdict(entry.state), "commit": entry.commit} for case, entry in self._entries.items()
        }
        temporary = self.path.with_name(f".{self.path.name}.partial")
        with write_errors(self.path):
            temporary.unlink(missing_ok=True)
            # Paths may name patients: for the owner's eyes only.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(to_json({"salt": self.salt, "cases": cases}))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
            sync_folder(self.path.parent)


def private_path(store: Path) -> Path:
    """Return the private file of a store: ``features.zarr`` has ``features.private.json`` beside it."""
    store = store.resolve()
    return store.with_name(f"{store.name.removesuffix('.zarr')}.private.json")


def _absolute(source: Path | Sequence[Path]) -> list[Path]:
    return [source.resolve()] if isinstance(source, Path) else sorted(path.resolve() for path in source)


def _stats(paths: Sequence[Path]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    stats = [path.stat() for path in paths]
    return (
        tuple(s.st_size for s in stats),
        tuple(s.st_mtime_ns for s in stats),
        tuple(s.st_ino for s in stats),
    )


def _entry(entry: dict[str, Any]) -> _Entry:
    fields = {name: tuple(entry[name]) for name in ("sources", "size", "mtime_ns", "inode")}
    return _Entry(SourceState(**fields, sha256=str(entry["sha256"])), str(entry["commit"]))
