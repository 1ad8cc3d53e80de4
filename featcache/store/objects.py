"""The two Zarr stores through which arrays are written and read: one records, the other checks.

Both stand on `zarr.abc.store.Store` itself: a wrapper that hands on what it does not override would let a
future fast path of zarr's by the checks.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from featcache.errors import CorruptStore, StoreError
from featcache.store.files import write_synced
from featcache.store.layout import DOCUMENT
from featcache.store.manifest import Part, size_problem


class _KeyedStore(Store):
    """What both have in common: no listing, no deletion, and only whole or ranged gets of one key."""

    supports_listing = False
    supports_deletes = False

    def __eq__(self, value: object) -> bool:
        return self is value

    __hash__ = None  # type: ignore[assignment]

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def delete(self, key: str) -> None:
        raise NotImplementedError

    def list(self) -> AsyncIterator[str]:
        raise NotImplementedError

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError


class RecordingStore(_KeyedStore):
    """Writes each object once, synced, and notes its size and SHA-256.

    Parameters
    ----------
    part : Part
        The array's part of a commit in staging; its manifest is filled.
    """

    supports_writes = True

    def __init__(self, part: Part) -> None:
        super().__init__(read_only=False)
        self._part = part

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        # Whole objects only are written, so there is never anything to read back and change.
        return None

    async def exists(self, key: str) -> bool:
        return False

    async def set(self, key: str, value: Buffer) -> None:
        key = f"{self._part.prefix}/{key}"
        data = value.as_numpy_array().data.cast("B")
        if key in self._part.manifest:
            raise StoreError(f"{self._part.folder / key} would be written twice; each object is written once")
        self._part.manifest[key] = (len(data), "")
        self._part.manifest[key] = (len(data), await asyncio.to_thread(self._write, key, data))

    def _write(self, key: str, data: memoryview) -> str:
        write_synced(self._part.folder / key, data)
        return hashlib.sha256(data).hexdigest()


class ManifestStore(_KeyedStore):
    """Reads the objects of a manifest, and nothing else.

    Parameters
    ----------
    part : Part
        The array's part of a sealed commit.
    """

    supports_writes = False

    def __init__(self, part: Part) -> None:
        super().__init__(read_only=True)
        self._part = part
        self._files = LocalStore(part.folder, read_only=True)

    async def exists(self, key: str) -> bool:
        return f"{self._part.prefix}/{key}" in self._part.manifest

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object's bytes, or None for a document that is not in the manifest.

        Raises
        ------
        CorruptStore
            If the object is lost or of the wrong size, if it is a document with another SHA-256, or if it
            is a chunk that the manifest lacks: zarr would read it as fill values.
        """
        is_chunk = key.startswith("c/")
        key = f"{self._part.prefix}/{key}"
        if key not in self._part.manifest:
            if is_chunk:
                raise self._corrupt(key, "the manifest lacks it")
            return None
        size, digest = self._part.manifest[key]
        try:
            found: int | None = await self._files.getsize(key)
            problem = size_problem(found, size)
            value = None if problem else await self._files.get(key, prototype, byte_range)
        except (FileNotFoundError, NotADirectoryError):
            raise self._corrupt(key, str(size_problem(None, size))) from None
        except OSError as error:
            path = self._part.folder / key
            raise StoreError(f"{path} cannot be read: {error.strerror}", path=path) from error
        if problem or value is None:
            raise self._corrupt(key, problem or str(size_problem(None, size)))
        whole = key.endswith(DOCUMENT) and byte_range is None
        if whole and hashlib.sha256(value.to_bytes()).hexdigest() != digest:
            raise self._corrupt(key, f"changed: {size} bytes as expected, but another SHA-256")
        return value

    def _corrupt(self, key: str, problem: str) -> CorruptStore:
        path = self._part.folder / key
        return CorruptStore(f"{path}: {problem}; run `featcache verify` to see all damage", path=path)
