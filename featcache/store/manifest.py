"""The manifest: every object of a case or label set with its size and SHA-256."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import CorruptStore, StoreError
from featcache.store.files import write_synced
from featcache.store.layout import GROUP

Manifest = dict[str, tuple[int, str]]
"""Key relative to the commit's folder, to size in bytes and SHA-256."""


@dataclass(frozen=True)
class Part:
    """The objects below one key of a commit's folder, such as those of an array.

    Parameters
    ----------
    folder : Path
        The commit's folder.
    manifest : dict
        The commit's manifest: read from the commit, or filled as objects are written.
    prefix : str
        The key.
    """

    folder: Path
    manifest: Manifest
    prefix: str

    @property
    def path(self) -> Path:
        """Where the objects lie."""
        return self.folder / self.prefix


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def size_problem(found: int | None, expected: int) -> str | None:
    """Return what is wrong with an object of `found` bytes (None: there is none), or None."""
    if found is None:
        return f"lost: the manifest has {expected} bytes, the file is not there"
    if found != expected:
        state = "empty" if found == 0 else "truncated" if found < expected else "too long"
        return f"{state}: {found} bytes, the manifest has {expected}"
    return None


def object_problem(path: Path, entry: tuple[int, str]) -> str | None:
    """Return how a file differs from its manifest entry, or None if every byte is right."""
    size, digest = entry
    try:
        problem = size_problem(path.stat().st_size, size)
        if problem is None and sha256_of_file(path) != digest:
            problem = f"changed: {size} bytes as expected, but another SHA-256"
    except (FileNotFoundError, NotADirectoryError):
        return size_problem(None, size)
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return problem


def read_file(path: Path) -> bytes:
    """Return a file's bytes.

    Raises
    ------
    CorruptStore
        If it is not there.
    StoreError
        If the system does not give it to us.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise CorruptStore(
            f"{path}: lost, the file is not there; run `featcache verify`", path=path
        ) from error
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read: {error.strerror}; check its permissions", path=path
        ) from error


def files_below(folder: Path) -> set[str]:
    """Return the keys of all files below a folder."""
    return {
        (Path(parent) / name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
    }


def record(folder: Path, key: str, data: bytes, manifest: Manifest) -> None:
    """Write an object, synced, and note it in the manifest."""
    write_synced(folder / key, data)
    manifest[key] = (len(data), hashlib.sha256(data).hexdigest())


def check_constant(path: Path) -> None:
    """Raise CorruptStore unless a file holds the plain group that all stores have there."""
    if read_file(path) != GROUP:
        raise CorruptStore(
            f"{path} is damaged: it differs from the plain group that stands there; any writing command, "
            "such as `featcache extract`, writes it anew",
            path=path,
        )
