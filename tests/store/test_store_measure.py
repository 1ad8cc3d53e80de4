"""What is measured is what the store writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.geometry import Grid, whole
from featcache.quantise import get_precision
from featcache.store import CaseInfo, FeatureStore, StoreWriter
from featcache.store.layout import chunk_edge, shard_shape
from featcache.store.measure import block_bytes, measure

GRID = Grid((70, 40, 34), np.eye(4))


def _features(channels: int) -> np.ndarray:
    features = np.zeros((channels, *GRID.shape), np.float32)
    features[:, 20:50] = np.random.default_rng(0).normal(size=(channels, 30, *GRID.shape[1:]))
    return features


@pytest.mark.parametrize(
    ("channels", "name"), [(3, "float16"), (70, "float16"), (5, "float32"), (3, "float16-m4"), (3, "int6")]
)
def test_chunks_add_up_to_the_shards_of_a_store(tmp_path: Path, toy: Any, channels: int, name: str) -> None:
    features, precision = _features(channels), get_precision(name)
    dtype = precision.dtype
    found = measure("a", {"l1": (GRID, channels)}, precision, lambda: [("l1", features)])
    calibration = found.calibrations.get("l1")
    assert (calibration is not None) == precision.calibrated
    with StoreWriter.open(tmp_path / "f", toy.root) as writer:
        info = CaseInfo(toy.native, (0, 0), toy.prepared, "HU", whole(toy.native))
        with writer.new_case("a", info) as case:
            case.level("l1", GRID, channels, name, calibration=calibration).append(features)
            case.commit()
    manifest = FeatureStore.open(tmp_path / "f").case("a").document.manifest
    shards = [size for key, (size, _) in manifest.items() if "/0/c/" in key]
    edge = chunk_edge(channels, dtype)
    assert found.chunks["l1"].shape == tuple(-(-n // edge) for n in GRID.shape)
    assert found.chunks["l1"].sum() + 4 * len(shards) == sum(shards)
    assert found.chunks["l1"].min() > 0
    assert shard_shape(channels, GRID.shape, dtype)[1] > edge or channels > 60, "several chunks in a shard"
    # Noise is where it was put.
    busy = found.chunks["l1"].sum(axis=(1, 2))
    assert busy[20 // edge + (20 % edge > 0)] > busy[-1]


def test_nothing_of_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    measure("a", {"l1": (GRID, 2)}, get_precision("float16"), lambda: [("l1", _features(2))])
    assert list(tmp_path.iterdir()) == []


def test_blocks_show_where_there_is_much() -> None:
    blocks = block_bytes(_features(8).astype(np.float16), 10)
    assert blocks.shape == (7, 4, 4)
    assert blocks[2:5].min() > 3 * blocks[5:].max()
