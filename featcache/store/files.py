"""Files that are on the disk when we say so: synced writes, atomic replacement, errors that name the path."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featcache.errors import StoreError


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Translate the system's refusals to write into StoreError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"the disk is full: {path} could not be written ({error.strerror}); complete cases are kept. "
                "Free some space and run the same command again, or choose another --out",
                path=path,
            ) from error
        if error.errno == errno.EXDEV:
            raise StoreError(
                f"{path} is a mount point or lies on another file system than its parent folder, so nothing "
                "can be moved into it in one step; choose an --out inside of it",
                path=path,
            ) from error
        raise StoreError(
            f"{path} could not be written: {error.strerror or error}; complete cases are kept", path=path
        ) from error


def write_synced(path: Path, data: bytes | memoryview) -> None:
    """Write a new file and wait until the disk has it; its folder is made.

    Raises
    ------
    StoreError
        If it exists already, or cannot be written.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def replace_synced(path: Path, data: bytes, temporary: Path) -> None:
    """Replace a file in one step: readers see the old bytes or the new ones."""
    with write_errors(path):
        temporary.unlink(missing_ok=True)
        write_synced(temporary, data)
        temporary.replace(path)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has a folder's entries."""
    if os.name == "nt":  # Windows has no handles on folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until the disk has the entries of a folder and of all folders below, deepest first."""
    for parent, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(parent))
