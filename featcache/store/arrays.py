"""Zarr arrays of a store: how they are created, opened and read. The only caller of the zarr library."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from numcodecs import Blosc, Zstd
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ZstdCodec

from featcache.errors import CorruptStore
from featcache.geometry import Triple
from featcache.store.layout import LABEL_CHUNK, chunk_edge, shard_shape
from featcache.store.manifest import Part, object_problem
from featcache.store.objects import ManifestStore, RecordingStore

ZarrArray = zarr.Array[Any]
_BLOSC_LEVEL, _ZSTD_LEVEL = 1, 6


def create_features(part: Part, channels: int, shape: Triple, dtype: str) -> ZarrArray:
    """Return a new, empty array (C, X, Y, Z) whose shards are written by whole assignments."""
    edge = chunk_edge(channels, dtype)
    return zarr.create_array(
        RecordingStore(part),
        shape=(channels, *shape),
        dtype=dtype,
        chunks=(channels, edge, edge, edge),
        shards=shard_shape(channels, shape, dtype),
        filters=(),
        serializer=_bytes(dtype),
        # The last codec is the outermost: a flipped bit is found before anything is decompressed.
        compressors=(_compressor(dtype), Crc32cCodec()),
        fill_value=0,
        dimension_names=("c", "x", "y", "z"),
        # Without this, chunks of zeros are left out and look like lost ones.
        config={"write_empty_chunks": True},
    )


def create_channel_values(part: Part, values: NDArray[np.float32]) -> None:
    """Write a small array (C,), float32: one value a channel."""
    array = zarr.create_array(
        RecordingStore(part),
        shape=values.shape,
        dtype="float32",
        chunks=values.shape,
        filters=(),
        serializer=_bytes("float32"),
        compressors=(Crc32cCodec(),),
        fill_value=0,
        dimension_names=("c",),
        config={"write_empty_chunks": True},
    )
    array[...] = values


def create_labels(part: Part, shape: Triple, dtype: str) -> ZarrArray:
    """Return a new, empty array (X, Y, Z)."""
    return zarr.create_array(
        RecordingStore(part),
        shape=shape,
        dtype=dtype,
        chunks=tuple(min(LABEL_CHUNK, n) for n in shape),
        filters=(),
        serializer=_bytes(dtype),
        compressors=(ZstdCodec(level=1), Crc32cCodec()),
        fill_value=0,
        dimension_names=("x", "y", "z"),
        config={"write_empty_chunks": True},
    )


def compressed_bytes(features: NDArray[Any]) -> int:
    """Return what stored numbers take as an inner chunk of their own, without its checksum."""
    itemsize, values = features.dtype.itemsize, np.ascontiguousarray(features)
    if itemsize == 1:
        return len(Zstd(_ZSTD_LEVEL).encode(values))
    return len(Blosc("zstd", _BLOSC_LEVEL, Blosc.BITSHUFFLE).encode(values))


def _bytes(dtype: str) -> BytesCodec:
    return BytesCodec(endian="little" if np.dtype(dtype).itemsize > 1 else None)


def _compressor(dtype: str) -> BloscCodec | ZstdCodec:
    """Return what packs features best: integers of few bits are a sixth smaller whole than as bit planes."""
    itemsize = np.dtype(dtype).itemsize
    if itemsize == 1:
        return ZstdCodec(level=_ZSTD_LEVEL)
    return BloscCodec(typesize=itemsize, cname="zstd", clevel=_BLOSC_LEVEL, shuffle="bitshuffle")


def open_array(part: Part) -> ZarrArray:
    """Return an array for reading.

    Raises
    ------
    CorruptStore
        If its document is damaged.
    """
    try:
        return zarr.open_array(ManifestStore(part), mode="r", zarr_format=3)
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise CorruptStore(f"{part.path} is no readable Zarr v3 array: {error}", path=part.path) from error


def read_box(array: ZarrArray, part: Part, start: Sequence[int], size: Sequence[int]) -> NDArray[Any]:
    """Return the voxels of a box, with all channels where the array has them.

    Parameters
    ----------
    array : zarr.Array
        From `open_array`.
    part : Part
        What it was opened with.
    start, size : sequence of 3 int
        The box, within bounds.

    Raises
    ------
    CorruptStore
        If an object of the box is lost, truncated or has a wrong checksum.
    """
    box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    whole = (slice(None),) * (array.ndim - 3)
    try:
        return np.asarray(array[whole + box])
    except (ValueError, RuntimeError, LookupError, TypeError) as error:
        damage = _damage(array, part, start, size) or f"{part.path}: {error}"
        raise CorruptStore(f"{damage}; run `featcache verify` to see all damage", path=part.path) from error


def read_channel_values(part: Part, channels: int) -> NDArray[np.float32]:
    """Return a small array (C,), float32, that `create_channel_values` wrote.

    Raises
    ------
    CorruptStore
        If it is lost or damaged.
    """
    array = open_array(part)
    try:
        values = np.asarray(array[...])
    except (ValueError, RuntimeError, LookupError, TypeError) as error:
        raise CorruptStore(
            f"{part.path}: {error}; run `featcache verify` to see all damage", path=part.path
        ) from error
    if values.shape != (channels,):
        raise CorruptStore(
            f"{part.path}: values of shape {values.shape}, expected one for each of {channels} channels",
            path=part.path,
        )
    return values.astype(np.float32, copy=False)


def _damage(array: ZarrArray, part: Part, start: Sequence[int], size: Sequence[int]) -> str | None:
    """Return which object of a box is damaged: zarr's own error does not say."""
    piece = (array.shards or array.chunks)[-3:]
    ranges = [range(a // p, (a + n - 1) // p + 1) for a, n, p in zip(start, size, piece, strict=True)]
    channel = "c/0" if array.ndim == 4 else "c"
    for x, y, z in itertools.product(*ranges):
        key = f"{part.prefix}/{channel}/{x}/{y}/{z}"
        if problem := object_problem(part.folder / key, part.manifest[key]):
            return f"{part.folder / key}: {problem}"
    return None
