from __future__ import annotations

import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featcache.errors import FeaturesNotFound, GeometryError, StoreError
from featcache.geometry import Grid, whole
from featcache.store import CaseInfo, FeatureStore, RootDocument, StoreWriter, layout, verify

ROOT = RootDocument("e", "r", {"name": "toy"}, {}, "test")


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
@given(
    shape=st.tuples(*[st.integers(1, 27)] * 3),
    channels=st.integers(1, 5),
    dtype=st.sampled_from(["float16", "float32"]),
    thickness=st.lists(st.integers(1, 13), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_any_slabs_in_any_box_out(
    shape: tuple[int, int, int], channels: int, dtype: str, thickness: list[int], seed: int, data: Any
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(scale=10.0 ** rng.integers(-3, 4), size=(channels, *shape)).astype(np.float32)
    stored = values.astype(dtype).astype(np.float32)
    grid = Grid(shape, np.diag([2.0, 3, 4, 1]))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # Small chunks and shards, so that small arrays have many.
        patch.setattr(layout, "CHUNK_BYTES", 1)
        patch.setattr(layout, "SHARD_BYTES", 3 * 8**3 * channels * 4)
        path = Path(folder) / "features.zarr"
        info = CaseInfo(grid, (0, 1), grid, "HU", whole(grid))
        with StoreWriter.open(path, ROOT) as writer, writer.new_case("a", info) as case:
            level, z, i = case.level("l", grid, channels, dtype), 0, 0
            while z < shape[2]:
                depth = min(thickness[i % len(thickness)], shape[2] - z)
                level.append(values[..., z : z + depth])
                z, i = z + depth, i + 1
            case.commit()
        level_read = FeatureStore.open(path).case("a").level("l")
        start = [data.draw(st.integers(0, n - 1)) for n in shape]
        size = [data.draw(st.integers(1, n - a)) for n, a in zip(shape, start, strict=True)]
        x, y, z3 = (slice(a, a + n) for a, n in zip(start, size, strict=True))
        box = level_read.read(start, size)
        assert box.dtype == np.float32
        np.testing.assert_array_equal(box, stored[:, x, y, z3])
        np.testing.assert_array_equal(level_read.read((0, 0, 0), shape), stored)
        found = level_read.info.stored_error
        assert found.max_abs == pytest.approx(np.abs(stored - values).max(), abs=1e-12)
        expected = np.sqrt(np.mean((stored - values) ** 2) / np.mean(values**2))
        assert found.relative_rms == pytest.approx(expected, rel=1e-3, abs=1e-12)
        assert (level_read.chunk, level_read.channels, str(level_read.dtype)) == (8, channels, dtype)
        assert verify(path).findings == []


def test_case_keeps_grids_codes_and_steps(toy_store: Path, toy: Any) -> None:
    case = FeatureStore.open(toy_store).case("a")
    assert case.info.native == toy.native
    assert case.info.codes == (1, 2)
    assert case.info.prepared == toy.prepared
    assert (case.info.unit, case.info.steps) == ("HU", [{"step": "clip"}])
    assert set(case.levels) == {"l1", "l2"}
    assert case.level("l2").grid == toy.levels["l2"][2]
    assert case.levels["l2"].stored_error.relative_rms == 0.0


def test_store_lists_and_keeps_its_root(toy_store: Path, toy: Any) -> None:
    store = FeatureStore.open(str(toy_store))
    assert store.root == toy.root
    assert store.cases() == store.labelled() == ["a", "b"]
    assert store.labelled("other") == []
    assert not list(toy_store.parent.glob(".*"))  # nothing stays beside the store


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, 255], "uint8"), ([0, 256], "uint16"), ([0, 65536], "int32"), ([-1, 3], "int32"), ([7, 7], "uint8")],
)
def test_labels_use_the_smallest_type(tmp_path: Path, toy: Any, values: list[int], dtype: str) -> None:
    grid = Grid((2, 130, 1), np.diag([1.0, 2, 3, 1]))
    array = np.resize(np.array(values), grid.shape)
    with StoreWriter.open(tmp_path / "f.zarr", toy.root) as writer:
        toy.write_case(writer, "a")
        writer.write_labels("a", array, grid, (2, 0), classes={"x": 7}, annotated=[], name="more")
    found = FeatureStore.open(tmp_path / "f.zarr").case("a").labels("more")
    assert found is not None
    assert (found.read().dtype, found.grid, found.codes) == (np.dtype(dtype), grid, (2, 0))
    np.testing.assert_array_equal(found.read(), array)
    assert (found.classes, found.annotated, found.group) == ({"x": 7}, (), None)
    assert FeatureStore.open(tmp_path / "f.zarr").case("a").labels() is None
    assert verify(tmp_path / "f.zarr").findings == []


def test_plain_zarr_reads_the_same(toy_store: Path, toy: Any) -> None:
    array = zarr.open_array(toy_store, path="cases/a/features/l1/0", mode="r")
    np.testing.assert_array_equal(np.asarray(array[...]), toy.features("a", "l1").astype(np.float16))


def test_one_level_serves_many_threads_and_pickles(toy_store: Path, toy: Any) -> None:
    level = FeatureStore.open(toy_store).case("b").level("l1")
    expected = toy.features("b", "l1").astype(np.float16)
    with ThreadPoolExecutor(4) as pool:
        boxes = list(pool.map(lambda x: level.read((x, 0, 0), (4, 9, 10)), range(36)))
    for x, box in enumerate(boxes):
        np.testing.assert_array_equal(box, expected[:, x : x + 4])
    again = pickle.loads(pickle.dumps(level))
    np.testing.assert_array_equal(again.read((0, 0, 0), (2, 2, 2)), expected[:, :2, :2, :2])


@pytest.mark.parametrize(
    ("start", "size"),
    [
        ((0, 0, 0), (41, 1, 1)),
        ((-1, 0, 0), (2, 1, 1)),
        ((0, 9, 0), (1, 1, 1)),
        ((0, 0, 0), (1, 0, 1)),
        ((0,), (1,)),
    ],
)
def test_boxes_must_lie_inside(toy_store: Path, start: tuple[int, ...], size: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="no box"):
        FeatureStore.open(toy_store).case("a").level("l1").read(start, size)


def test_what_is_not_there_is_named(toy_store: Path) -> None:
    store = FeatureStore.open(toy_store)
    with pytest.raises(FeaturesNotFound, match="no case 'c'; it has 2: a, b"):
        store.case("c")
    with pytest.raises(FeaturesNotFound, match="no level 'l3'; it has l1, l2"):
        store.case("a").level("l3")
    with pytest.raises(StoreError, match="case id"):
        store.case("../a")


def test_describe(toy_store: Path) -> None:
    found = FeatureStore.open(toy_store).describe()
    assert found["encoder"] == {"name": "toy", "id": "e" * 64}
    assert found["head"] is None
    assert found["levels"] == ["l1", "l2"]
    assert found["classes"] == ["cord", "liver", "spleen"]
    case = found["cases"][0]
    assert case["levels"]["l1"]["shape"] == [40, 9, 10]
    assert case["labels"]["labels"]["annotated"] == ["liver"]
    folders = [toy_store / "cases" / "a", toy_store / "labels" / "a" / "labels"]
    on_disk = sum(p.stat().st_size for f in folders for p in f.rglob("*") if p.is_file())
    commits = sum((f / "zarr.json").stat().st_size for f in folders)
    assert case["bytes"] == on_disk - commits


def test_a_level_whose_name_begins_like_another_is_counted_alone(tmp_path: Path) -> None:
    grid = Grid((9, 9, 9), np.eye(4))
    info = CaseInfo(grid, (1, 0), grid, "HU", whole(grid))
    with StoreWriter.open(tmp_path / "f", ROOT) as writer, writer.new_case("a", info) as case:
        for name in ("features", "features_s2"):
            case.level(name, grid, 2).append(np.ones((2, 9, 9, 9), np.float32))
        case.commit()
    levels = FeatureStore.open(tmp_path / "f").describe()["cases"][0]["levels"]
    for name, level in levels.items():
        files = (tmp_path / "f" / "cases" / "a" / "features" / name).rglob("*")
        assert level["bytes"] == sum(path.stat().st_size for path in files if path.is_file())


def test_find(toy_store: Path, tmp_path: Path) -> None:
    assert FeatureStore.find(toy_store.parent) == toy_store
    assert FeatureStore.find(toy_store) == toy_store
    with pytest.raises(StoreError, match="featcache extract"):
        FeatureStore.find(tmp_path)
    for name in ("one", "two"):
        with StoreWriter.open(tmp_path / name, ROOT):
            pass
    with pytest.raises(StoreError, match="one, two"):
        FeatureStore.find(tmp_path)


def test_open_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        FeatureStore.open(tmp_path / "none")
    with pytest.raises(StoreError, match="not a feature store"):
        FeatureStore.open(tmp_path)
    (tmp_path / "zarr.json").write_bytes(layout.GROUP)
    with pytest.raises(StoreError, match="not a feature store"):
        FeatureStore.open(tmp_path)
