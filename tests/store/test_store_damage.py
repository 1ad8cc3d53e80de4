from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import CorruptStore, StoreError
from featcache.geometry import whole
from featcache.store import FeatureStore, StoreWriter, verify
from featcache.store.layout import FORMAT_VERSION
from featcache.store.seal import seal

SHARD = "cases/a/features/l1/0/c/0/0/0/0"
OBJECTS = [
    "zarr.json",
    "cases.json",
    "cases/zarr.json",
    "cases/a/zarr.json",
    "cases/a/features/zarr.json",
    "cases/a/features/l1/zarr.json",
    "cases/a/features/l1/0/zarr.json",
    SHARD,
    "cases/a/features/l2/0/c/0/0/0/0",
    "labels/zarr.json",
    "labels/a/zarr.json",
    "labels/a/labels/zarr.json",
    "labels/a/labels/0/zarr.json",
    "labels/a/labels/0/c/0/0/0",
]


def _flip(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def _damaged(data: bytes, damage: str) -> list[bytes | None]:
    if damage == "flipped":
        bits = np.random.default_rng(len(data)).choice(8 * len(data), 12, replace=False)
        return [_flip(data, int(bit)) for bit in bits] + [_flip(data, 0), _flip(data, 8 * len(data) - 1)]
    return {"lost": [None], "empty": [b""], "truncated": [data[:-1], data[: len(data) // 2]]}[damage]


def _read_all(path: Path) -> None:
    store = FeatureStore.open(path)
    case = store.case("a")
    for name, level in case.levels.items():
        case.level(name).read((0, 0, 0), level.grid.shape)
    found = case.labels()
    assert found is not None
    found.read()


@pytest.fixture
def copy(toy_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_store, tmp_path / "features.zarr"))


def test_the_table_holds_every_kind_of_object(toy_store: Path) -> None:
    present = {p.relative_to(toy_store).as_posix() for p in toy_store.rglob("*") if p.is_file()}
    assert set(OBJECTS) <= present
    b_and_l2 = {key for key in present if "/b/" in key or "/l2/" in key}
    assert present - b_and_l2 == set(OBJECTS) - b_and_l2


@pytest.mark.parametrize("damage", ["lost", "empty", "truncated", "flipped"])
@pytest.mark.parametrize("key", OBJECTS)
def test_damage_is_named_and_never_read(copy: Path, key: str, damage: str) -> None:
    _read_all(copy)
    data = (copy / key).read_bytes()
    for damaged in _damaged(data, damage):
        if damaged is None:
            (copy / key).unlink()
        else:
            (copy / key).write_bytes(damaged)
        findings = verify(copy).findings
        assert [finding.path for finding in findings] == [key]
        assert findings[0].problem
        assert findings[0].advice
        if key != "cases.json":  # a local reader lists the folders instead
            with pytest.raises(CorruptStore, match=r"features\.zarr"):
                _read_all(copy)
    (copy / key).write_bytes(data)
    _read_all(copy)
    assert verify(copy).findings == []


def test_damage_elsewhere_does_not_spoil_what_is_whole(copy: Path, toy: Any) -> None:
    (copy / SHARD).unlink()
    case = FeatureStore.open(copy).case("a")
    whole = toy.features("a", "l2")
    np.testing.assert_array_equal(case.level("l2").read((0, 0, 0), whole.shape[1:]), whole)
    with pytest.raises(CorruptStore, match="lost"):
        case.level("l1").read((0, 0, 0), (1, 1, 1))


def test_a_flipped_bit_names_the_shard(copy: Path) -> None:
    data = (copy / SHARD).read_bytes()
    (copy / SHARD).write_bytes(_flip(data, 4 * len(data)))
    with pytest.raises(CorruptStore, match=SHARD):
        FeatureStore.open(copy).case("a").level("l1").read((0, 0, 0), (40, 9, 10))


def test_an_array_that_was_open_notices(copy: Path) -> None:
    level = FeatureStore.open(copy).case("a").level("l1")
    level.read((0, 0, 0), (1, 1, 1))
    (copy / SHARD).unlink()
    with pytest.raises(CorruptStore, match="lost"):
        level.read((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("lost", ["cases/a", "labels/a/labels", "labels/a"])
def test_the_index_witnesses_what_is_gone(copy: Path, lost: str) -> None:
    shutil.rmtree(copy / lost)
    (finding,) = verify(copy).findings
    assert finding.path == ("labels/a/labels" if lost == "labels/a" else lost)
    assert "cases.json lists" in finding.problem


def test_a_writer_keeps_the_witness_until_the_case_is_back(copy: Path, toy: Any) -> None:
    shutil.rmtree(copy / "cases/a")
    with StoreWriter.open(copy, toy.root) as writer:
        toy.write_case(writer, "c")
        assert [finding.path for finding in verify(copy).findings] == ["cases/a"]
        toy.write_case(writer, "a")
    assert verify(copy).findings == []


def test_extra_files_are_found(copy: Path) -> None:
    for extra in ("notes.txt", "cases/a/features/l1/0/c/0/9/9/9", "labels/a/labels/x"):
        (copy / extra).parent.mkdir(parents=True, exist_ok=True)
        (copy / extra).write_bytes(b"x")
        (finding,) = verify(copy).findings
        assert (finding.path, "extra" in finding.problem) == (extra, True)
        (copy / extra).unlink()


def test_a_writer_repairs_what_is_constant_or_rebuildable(copy: Path, toy: Any) -> None:
    (copy / "cases.json").write_bytes(b"")
    (copy / "cases/zarr.json").unlink()
    (copy / "labels/zarr.json").write_bytes(b"{}")
    with StoreWriter.open(copy, toy.root):
        pass
    assert verify(copy).findings == []
    assert FeatureStore.open(copy).cases() == ["a", "b"]


def test_zeros_are_stored_and_their_loss_noticed(tmp_path: Path, toy: Any) -> None:
    path = tmp_path / "f.zarr"
    with StoreWriter.open(path, toy.root) as writer:
        from featcache.store import CaseInfo

        with writer.new_case(
            "a", CaseInfo(toy.native, (0, 0), toy.prepared, "HU", whole(toy.native))
        ) as case:
            case.level("l", toy.prepared, 2).append(np.zeros((2, *toy.prepared.shape), np.float32))
            case.commit()
        writer.write_labels(
            "a", np.zeros(toy.native.shape, int), toy.native, (0, 0), classes={}, annotated=[]
        )
    level = FeatureStore.open(path).case("a").level("l")
    assert not level.read((0, 0, 0), toy.prepared.shape).any()
    (path / "cases/a/features/l/0/c/0/0/0/0").unlink()
    (path / "labels/a/labels/0/c/0/0/0").unlink()
    assert len(verify(path).findings) == 2
    with pytest.raises(CorruptStore, match="lost"):
        level.read((0, 0, 0), (1, 1, 1))


def test_a_chunk_that_the_manifest_lacks_is_damage(copy: Path) -> None:
    case = FeatureStore.open(copy).case("a")
    del case.document.manifest[SHARD.removeprefix("cases/a/")]
    with pytest.raises(CorruptStore, match="manifest lacks"):
        case.level("l1").read((0, 0, 0), (1, 1, 1))


def test_newer_formats_are_refused(copy: Path, toy: Any) -> None:
    document = toy.root.to_json()
    document["attributes"]["featcache"]["format_version"] = FORMAT_VERSION + 1
    (copy / "zarr.json").write_bytes(seal(document))
    with pytest.raises(StoreError, match="newer featcache"):
        FeatureStore.open(copy)
    with pytest.raises(StoreError, match="newer featcache"):
        verify(copy)


def test_a_sealed_document_of_other_software_is_explained(copy: Path) -> None:
    slot = {"format_version": 1, "kind": "case", "native": {"shape": [1, 2]}}
    (copy / "cases/a/zarr.json").write_bytes(seal({"attributes": {"featcache": slot}}))
    with pytest.raises(CorruptStore, match="other software"):
        _ = FeatureStore.open(copy).case("a").info


def test_verify_counts_and_reports_progress(toy_store: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = verify(toy_store, lambda done, total: seen.append((done, total)))
    files = [p for p in toy_store.rglob("*") if p.is_file()]
    assert report.findings == []
    assert (report.n_objects, report.n_bytes) == (len(files), sum(p.stat().st_size for p in files))
    assert seen[-1] == (len(files), len(files))
