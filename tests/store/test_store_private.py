from __future__ import annotations

import os
from pathlib import Path

import pytest

from featcache.errors import ScanReadError, StoreError
from featcache.store import PrivateRecord, SourceState, private, private_path

SEAL = "5" * 64


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii"
    path.write_bytes(b"voxels" * 100)
    return path


def _record(tmp_path: Path, source: Path | list[Path]) -> PrivateRecord:
    PrivateRecord.load(tmp_path / "features.zarr").add("a", SourceState.of(source), SEAL)
    return PrivateRecord.load(tmp_path / "features.zarr")


def test_it_lies_beside_the_store_and_is_the_owners(tmp_path: Path, source: Path) -> None:
    record = _record(tmp_path, source)
    assert record.path == private_path(tmp_path / "features.zarr") == tmp_path / "features.private.json"
    assert private_path(tmp_path / "v1.2").name == "v1.2.private.json"
    assert record.path.stat().st_mode & 0o077 == 0
    assert record.sources("a") == (str(source),)
    assert record.sources("b") is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["features.private.json", "scan.nii"]


def test_the_salt_stays(tmp_path: Path, source: Path) -> None:
    salt = _record(tmp_path, source).salt
    assert PrivateRecord.load(tmp_path / "features.zarr").salt == salt
    assert PrivateRecord.load(tmp_path / "other.zarr").salt != salt


def test_the_quick_way_reads_nothing(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = _record(tmp_path, source)
    monkeypatch.setattr(private, "sha256_of_file", lambda path: pytest.fail("read"))
    assert record.unchanged("a", source, SEAL)


def test_only_the_case_that_was_recorded_counts(tmp_path: Path, source: Path) -> None:
    record = _record(tmp_path, source)
    assert not record.unchanged("b", source, SEAL)
    assert not record.unchanged("a", source, None)
    assert not record.unchanged("a", source, "6" * 64)
    record.remove("a")
    assert not PrivateRecord.load(tmp_path / "features.zarr").unchanged("a", source, SEAL)


def test_a_touched_or_moved_source_is_unchanged(tmp_path: Path, source: Path) -> None:
    record = _record(tmp_path, source)
    os.utime(source, ns=(1, 1))
    assert record.unchanged("a", source, SEAL)
    moved = source.rename(tmp_path / "moved.nii")
    assert record.unchanged("a", moved, SEAL)


def test_other_bytes_are_a_change(tmp_path: Path, source: Path) -> None:
    record, times = _record(tmp_path, source), source.stat()
    source.write_bytes(b"Voxels" * 100)
    assert not record.unchanged("a", source, SEAL)
    # The same size and time stamp under the same name: a file that was moved here.
    other = tmp_path / "other"
    other.write_bytes(b"VOXELS" * 100)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(source)
    assert not record.unchanged("a", source, SEAL)


def test_several_files_are_one_source(tmp_path: Path) -> None:
    slices = [tmp_path / f"{i}.dcm" for i in range(3)]
    for i, path in enumerate(slices):
        path.write_bytes(bytes([i]) * 10)
    record = _record(tmp_path, slices)
    assert record.unchanged("a", slices[::-1], SEAL)
    assert not record.unchanged("a", slices[:2], SEAL)
    slices[1].write_bytes(b"\0" * 10)
    assert not record.unchanged("a", slices, SEAL)


def test_a_damaged_record_and_a_lost_source_are_named(tmp_path: Path, source: Path) -> None:
    record = _record(tmp_path, source)
    source.unlink()
    with pytest.raises(ScanReadError, match=r"scan\.nii"):
        record.unchanged("a", source, SEAL)
    with pytest.raises(ScanReadError, match=r"scan\.nii"):
        SourceState.of(source)
    for text in ("", "[]", '{"salt": "x", "cases": {"a": {}}}'):
        record.path.write_text(text)
        with pytest.raises(StoreError, match=r"features\.private\.json is damaged"):
            PrivateRecord.load(tmp_path / "features.zarr")
