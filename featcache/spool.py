"""Slabs kept in files, so that what is encoded once can be gone through twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from featcache.quantise import Features
from featcache.store.files import write_errors


class Spool:
    """A case's slabs in a folder, as float32; memory holds one at a time.

    Parameters
    ----------
    folder : Path
        Empty; whoever made it removes it.
    slabs : iterable of (str, ndarray)
        Level name and features; gone through once, here.

    Raises
    ------
    StoreError
        If the disk is full.
    """

    def __init__(self, folder: Path, slabs: Iterable[tuple[str, Features]]) -> None:
        self._slabs: list[tuple[str, Path]] = []
        for name, slab in slabs:
            path = folder / f"{len(self._slabs)}.npy"
            with write_errors(path):
                np.save(path, slab)
            self._slabs.append((name, path))

    def __iter__(self) -> Iterator[tuple[str, Features]]:
        for name, path in self._slabs:
            yield name, np.load(path)
