"""Levels of few bits: any Zarr reader follows the documented formula, damage is found, old software refuses."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from featcache.calibrate import calibrate
from featcache.errors import CorruptStore, EncoderError, StoreError
from featcache.geometry import Grid, whole
from featcache.head import LinearHead
from featcache.quantise import PRECISIONS, dequantise, get_precision, quantise, round_mantissa
from featcache.store import CaseInfo, FeatureStore, StoreWriter, documents, layout, verify

PAGE = Path(__file__).parents[2] / "docs" / "store-format.md"
COARSE = [name for name, precision in PRECISIONS.items() if not precision.plain]
INTEGERS = [name for name, precision in PRECISIONS.items() if precision.calibrated]
GRID = Grid((19, 10, 21), np.diag([2.0, 3, 4, 1]))
RNG = np.random.default_rng(3)
VALUES = (RNG.normal(size=(3, *GRID.shape)) * np.float32([1, 30, 0])[:, None, None, None] + 0.5).astype(
    np.float32
)
VALUES[:, :9] = np.float32([-0.7, 12, 0.5])[:, None, None, None]  # a box of background
HEAD = LinearHead(
    "l1", ("air", "liver"), np.float32([[1, 0, 0], [0, 0.03, 0]]), np.float32([0, 0]), False, 1.0
)


def root_of(toy: Any, name: str, *, head: bool = False) -> Any:
    """Return the toy root of a store of this precision, calibrated on VALUES where it needs that."""
    precision = get_precision(name)
    found = calibrate("a", [("l1", VALUES)], precision.bits).to_json() if precision.calibrated else None
    return dataclasses.replace(
        toy.root,
        recipe={"store_precision": name},
        head=HEAD.to_json() if head else None,
        calibration=found,
        format_version=precision.format_version,
    )


def write(
    path: Path, toy: Any, name: str, values: np.ndarray = VALUES, *, head: bool = False
) -> FeatureStore:
    """Write a store with case "a", in slabs that do not fit its chunks."""
    root = root_of(toy, name, head=head)
    slabs = [("l1", values[..., a:b]) for a, b in itertools.pairwise((0, 5, 6, 17, 21))]
    with StoreWriter.open(path, root) as writer:
        with writer.new_case("a", CaseInfo(GRID, (1, 0), GRID, "HU", whole(GRID))) as case:
            case.write({"l1": (GRID, 3)}, slabs, get_precision(name), writer.root)
            case.commit()
        toy.write_labels(writer, "a")
    return FeatureStore.open(path)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the level into many chunks and shards, none of which its shape is a multiple of."""
    monkeypatch.setattr(layout, "CHUNK_BYTES", 1)
    monkeypatch.setattr(layout, "SHARD_BYTES", 3 * 8**3 * 3 * 2)


def expected(name: str) -> np.ndarray:
    precision = get_precision(name)
    if not precision.calibrated:
        return round_mantissa(VALUES, precision.bits).astype(np.float32)
    found = calibrate("a", [("l1", VALUES)], precision.bits).levels["l1"]
    return dequantise(quantise(VALUES, found)[0], found)


@pytest.mark.parametrize("name", COARSE)
def test_what_is_read_is_what_the_formula_says(tmp_path: Path, toy: Any, name: str) -> None:
    store = write(tmp_path / "f.zarr", toy, name)
    level = store.case("a").level("l1")
    read = level.read((0, 0, 0), GRID.shape)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, expected(name))
    assert not np.array_equal(read, VALUES)
    # A box across the borders of chunks is the same box of the whole.
    np.testing.assert_array_equal(level.read((7, 3, 6), (3, 7, 11)), read[:, 7:10, 3:10, 6:17])
    assert level.info.precision.name == name
    assert store.case("a").labels() is not None
    assert verify(store.path).findings == []


@pytest.mark.parametrize("name", INTEGERS)
def test_plain_zarr_and_the_documented_formula_read_the_same(tmp_path: Path, toy: Any, name: str) -> None:
    store = write(tmp_path / "f.zarr", toy, name)
    folder = store.path / "cases/a/features/l1"
    stored, scale, offset = (zarr.open_array(folder / key, mode="r") for key in ("0", "scale", "offset"))
    assert (stored.dtype, scale.dtype, offset.dtype) == ("uint8", "float32", "float32")
    assert scale.shape == offset.shape == (3,)
    assert np.asarray(stored[...]).max() < 2 ** get_precision(name).bits
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert "features.zarr/cases/case_1/features/l1" in code
    names: dict[str, Any] = {"zarr": zarr}
    exec(code.replace("features.zarr/cases/case_1/features/l1", str(folder)), names)
    assert names["value"].dtype == np.float32
    read = store.case("a").level("l1").read((0, 0, 0), GRID.shape)
    np.testing.assert_array_equal(names["value"], read)


@pytest.mark.parametrize("name", ["float16-m3", "int5"])
@pytest.mark.parametrize("head", [False, True])
def test_the_error_is_that_of_what_is_read(tmp_path: Path, toy: Any, name: str, head: bool) -> None:
    store = write(tmp_path / "f.zarr", toy, name, head=head)
    error = store.case("a").levels["l1"].stored_error
    difference = (store.case("a").level("l1").read((0, 0, 0), GRID.shape) - VALUES).astype(np.float64)
    deviation = VALUES - VALUES.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
    assert error.max_abs == pytest.approx(np.abs(difference).max(), rel=1e-6)
    assert error.relative_sigma == pytest.approx(
        np.sqrt((difference**2).mean() / (deviation**2).mean()), rel=1e-3
    )
    assert error.clipped == 0
    assert (error.head_agreement is None) == (not head)
    if head:
        logits = (
            np.einsum("kc,cxyz->kxyz", HEAD.weights, VALUES),
            np.einsum("kc,cxyz->kxyz", HEAD.weights, VALUES + difference.astype(np.float32)),
        )
        same = logits[0].argmax(axis=0) == logits[1].argmax(axis=0)
        assert error.head_agreement == pytest.approx(same.mean(), abs=1e-4)
        assert same.mean() < 1


def test_values_beyond_the_calibrated_range_are_clipped_and_counted(tmp_path: Path, toy: Any) -> None:
    beyond = VALUES.copy()
    beyond[0, 0, 0, :4] = 1e6
    beyond[1, 18, 9, 20] = -1e6
    store = write(tmp_path / "f.zarr", toy, "int6", beyond)
    assert store.case("a").levels["l1"].stored_error.clipped == 5
    level = store.case("a").level("l1")
    assert level.calibration is not None
    top = level.calibration.offset[0] + 63 * level.calibration.scale[0]
    assert level.read((0, 0, 0), (1, 1, 1))[0, 0, 0, 0] == top
    described = store.describe()
    assert described["cases"][0]["levels"]["l1"]["stored_error"]["clipped"] == 5
    assert (described["calibration"], described["format_version"]) == ("a", 2)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("int6", np.nan, "1 NaN and 0 infinite of"),
        ("int4", np.inf, "0 NaN and 1 infinite of"),
        ("float16-m3", 61441.0, "1 of 6270 features lie beyond float16-m3's ±61440"),
    ],
)
def test_what_cannot_be_stored_is_refused(
    tmp_path: Path, toy: Any, name: str, value: float, words: str
) -> None:
    bad = VALUES.copy()
    bad[2, 4, 4, 12] = value
    with pytest.raises(EncoderError, match=f"case a, level l1, slices 6 to 16: {words}"):
        write(tmp_path / "f.zarr", toy, name, bad)
    assert FeatureStore.open(tmp_path / "f.zarr").cases() == []


def test_integers_need_their_calibration(tmp_path: Path, toy: Any) -> None:
    with StoreWriter.open(tmp_path / "f.zarr", root_of(toy, "int6")) as writer:
        info = CaseInfo(GRID, (1, 0), GRID, "HU", whole(GRID))
        with writer.new_case("a", info) as case, pytest.raises(StoreError, match=r"None; expected \(6, 3\)"):
            case.level("l1", GRID, 3, "int6")
        five = calibrate("a", [("l1", VALUES)], 5).levels["l1"]
        with (
            writer.new_case("a", info) as case,
            pytest.raises(StoreError, match=r"\(5, 3\); expected \(6, 3\)"),
        ):
            case.level("l1", GRID, 3, "int6", calibration=five)
        with writer.new_case("a", info) as case, pytest.raises(StoreError, match="expected one of"):
            case.level("l1", GRID, 3, "int7")


def test_every_flipped_bit_is_found(tmp_path: Path, toy: Any) -> None:
    store = write(tmp_path / "f.zarr", toy, "int5")
    files = [p for p in (store.path / "cases/a/features/l1").rglob("*") if p.is_file()]
    assert {"0", "scale", "offset"} <= {
        p.relative_to(store.path / "cases/a/features/l1").parts[0] for p in files
    }
    for path in files:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
        assert [f.path for f in verify(store.path).findings] == [path.relative_to(store.path).as_posix()]
        with pytest.raises(CorruptStore):
            FeatureStore.open(store.path).case("a").level("l1").read((0, 0, 0), GRID.shape)
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    assert verify(store.path).findings == []


@pytest.mark.parametrize("what", ["scale", "offset"])
def test_a_lost_scale_or_offset_raises(tmp_path: Path, toy: Any, what: str) -> None:
    store = write(tmp_path / "f.zarr", toy, "int8")
    (store.path / "cases/a/features/l1" / what / "c/0").unlink()
    with pytest.raises(CorruptStore, match=what):
        store.case("a").level("l1").read((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("name", ["float16-m5", "int6"])
def test_software_that_knows_version_1_refuses(
    tmp_path: Path, toy: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would read integers as features, or stumble over the record of the error."""
    store = write(tmp_path / "f.zarr", toy, name)
    case = store.case("a")
    monkeypatch.setattr(documents, "FORMAT_VERSION", 1)
    with pytest.raises(StoreError, match="store format 2, this featcache reads up to 1; install a newer"):
        FeatureStore.open(store.path)
    with pytest.raises(StoreError, match="store format 2"):
        _ = case.info


def test_plain_floats_stay_in_version_1(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "FORMAT_VERSION", 1)
    for name in ("float16", "float32"):
        store = write(tmp_path / f"{name}.zarr", toy, name, head=True)
        slot = json.loads((store.path / "cases/a/zarr.json").read_bytes())["attributes"]["featcache"]
        assert set(slot["levels"]["l1"]) == {"grid", "channels", "dtype", "stored_error"}
        assert set(slot["levels"]["l1"]["stored_error"]) == {"relative_rms", "max_abs"}
        root = json.loads((store.path / "zarr.json").read_bytes())["attributes"]["featcache"]
        assert (root["format_version"], "calibration" in root) == (1, False)


def test_chunks_are_those_of_float16(tmp_path: Path, toy: Any) -> None:
    """Adapters draw their voxels by chunks: the same ones from a store of few bits."""
    for channels in (1, 64, 65, 256, 768):
        assert layout.chunk_edge(channels, "uint8") == layout.chunk_edge(channels, "float16")
        shape = (190, 160, 99)
        assert layout.shard_shape(channels, shape, "uint8") == layout.shard_shape(channels, shape, "float16")
