"""Where things lie in a store: names, folders, chunk and shard shapes, constant documents.

docs/store-format.md is the specification.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import StoreError
from featcache.geometry import Grid, Triple, spacing

FORMAT_VERSION = 2
"""The newest that is read. A document carries the first version that can say what it says."""
DOCUMENT = "zarr.json"
INDEX = "cases.json"
CASES = "cases"
LABELS = "labels"
FEATURES = "features"

CHUNK_BYTES = 4 * 2**20
SHARD_BYTES = 128 * 2**20
CHUNK_EDGES = (32, 24, 16, 8)
LABEL_CHUNK = 128

GROUP = json.dumps({"attributes": {}, "node_type": "group", "zarr_format": 3}, indent=1).encode() + b"\n"
"""The constant bytes of every group that carries nothing."""


def check_name(name: str, what: str = "case id") -> str:
    """Return `name` if it may name a case, a level or a label set.

    Raises
    ------
    StoreError
        Unless it is made of letters, digits, ``_``, ``-`` and ``.``, does not begin with a dot, has at
        most 200 bytes and is not ``zarr.json``.
    """
    fits = re.fullmatch(r"[\w.-]+", name) and not name.startswith(".") and len(name.encode()) <= 200
    if not fits or name == DOCUMENT:
        raise StoreError(
            f"{what} {name!r}: expected letters, digits, '_', '-' and '.', not beginning with a dot, "
            f"at most 200 bytes, not {DOCUMENT!r}; rename it"
        )
    return name


def case_folder(store: Path, case: str) -> Path:
    """Return the folder of a case."""
    return store / CASES / check_name(case)


def labels_folder(store: Path, case: str, name: str) -> Path:
    """Return the folder of a label set."""
    return store / LABELS / check_name(case) / check_name(name, "label set")


def level_prefix(level: str) -> str:
    """Return the key of a level's group, relative to the case's folder."""
    return f"{FEATURES}/{check_name(level, 'level')}"


def chunk_edge(channels: int, dtype: str) -> int:
    """Return e, the edge of an inner chunk of all channels x e^3, in voxels of the level."""
    voxel = channels * _value_bytes(dtype)
    return next((e for e in CHUNK_EDGES if voxel * e**3 <= CHUNK_BYTES), CHUNK_EDGES[-1])


def shard_shape(channels: int, shape: Triple, dtype: str) -> tuple[int, int, int, int]:
    """Return the shape of a shard: one inner chunk deep along z, many wide along x and y.

    The widths divide the number of chunks: a shard that stuck out of the array would hold chunks that
    nobody reads, and damage in them would go unnoticed until `verify`.
    """
    edge = chunk_edge(channels, dtype)
    most = max(1, SHARD_BYTES // (channels * edge**3 * _value_bytes(dtype)))
    wide, high = (_divisors(-(-n // edge)) for n in shape[:2])
    a, b = max(
        ((a, b) for a in wide for b in high if a * b <= most),
        key=lambda pair: (pair[0] * pair[1], -abs(pair[0] - pair[1])),
    )
    return channels, a * edge, b * edge, edge


def _value_bytes(dtype: str) -> int:
    """Return the size of a value; integers count as the float16 that they stand for, so that chunks are the same."""
    return max(2, np.dtype(dtype).itemsize)


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def multiscale_group(name: str, grid: Grid, axes: str, featcache: dict[str, Any]) -> dict[str, Any]:
    """Return the document of an OME-NGFF 0.5 multiscale group with the one scale ``0``.

    Parameters
    ----------
    name : str
        Shown by viewers.
    grid : Grid
        Its spacing and origin become scale and translation, mm. NGFF 0.5 (section "multiscales") knows
        neither rotations nor flips; the affine that counts stands in `featcache` or in the commit.
    axes : str
        ``"cxyz"`` or ``"xyz"``.
    featcache : dict
        Our own attributes.
    """
    extra = len(axes) - 3
    transformations = [
        {"type": "scale", "scale": [1.0] * extra + list(spacing(grid))},
        {"type": "translation", "translation": [0.0] * extra + grid.affine[:3, 3].tolist()},
    ]
    multiscale = {
        "name": name,
        "axes": [
            {"name": a, "type": "channel"} if a == "c" else {"name": a, "type": "space", "unit": "millimeter"}
            for a in axes
        ],
        "datasets": [{"path": "0", "coordinateTransformations": transformations}],
    }
    attributes = {"featcache": featcache, "ome": {"version": "0.5", "multiscales": [multiscale]}}
    return {"attributes": attributes, "node_type": "group", "zarr_format": 3}
