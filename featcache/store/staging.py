"""The folder beside a store in which things are made before they are moved in, and its lock."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from featcache.errors import StoreError
from featcache.store.files import replace_synced, sync_folder, sync_tree, write_errors

_LOCK = "lock"


class Staging:
    """One writer's hold on a store.

    Parameters
    ----------
    store : Path
        The store's absolute path; the staging folder stands beside it.

    Raises
    ------
    StoreError
        If another process writes to the store, or the folder cannot be made.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self.folder = store.parent / f".{store.name}.partial"
        self._count = 0
        with write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            # A writer may be closed by another thread than the one that opened it.
            self._lock = FileLock(self.folder / _LOCK, timeout=0, thread_local=False)
            try:
                self._lock.acquire()
            except Timeout as error:
                raise StoreError(
                    f"another process writes to {store}; wait until it is done or stop it", path=store
                ) from error
        self._clean()

    def new_folder(self, *parts: str) -> Path:
        """Return an empty folder in staging."""
        folder = self.folder.joinpath(*parts)
        with write_errors(folder):
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
        return folder

    def move_in(self, staged: Path, target: Path) -> None:
        """Move a finished folder into the store; what stood there goes out first."""
        with write_errors(target):
            sync_tree(staged)
            trash = self._move_out(target)
            staged.rename(target)
            sync_folder(target.parent)
        if trash is not None:
            shutil.rmtree(trash, ignore_errors=True)

    def remove(self, target: Path) -> None:
        """Remove a folder of the store: in one step for readers, then from the disk."""
        with write_errors(target):
            trash = self._move_out(target)
            sync_folder(target.parent)
        if trash is not None:
            shutil.rmtree(trash, ignore_errors=True)

    def discard(self, staged: Path) -> None:
        """Remove a folder in staging, if it is still there."""
        shutil.rmtree(staged, ignore_errors=True)

    def replace(self, path: Path, data: bytes) -> None:
        """Replace a document of the store in one step."""
        replace_synced(path, data, self.folder / "document")

    def close(self) -> None:
        """Remove what is left in staging and give up the lock."""
        self._clean()
        # Unlinked while held: whoever waits on this file finds it nameless and starts over.
        (self.folder / _LOCK).unlink(missing_ok=True)
        self._lock.release()
        with suppress(OSError):  # another writer is already back in it
            self.folder.rmdir()

    def _move_out(self, target: Path) -> Path | None:
        if not target.exists():
            return None
        trash = self.new_folder("trash", str(self._count))
        self._count += 1
        return target.rename(trash / target.name)

    def _clean(self) -> None:
        for left in self.folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            elif left.name != _LOCK:
                left.unlink(missing_ok=True)
