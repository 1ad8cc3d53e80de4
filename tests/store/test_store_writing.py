from __future__ import annotations

import asyncio
import errno
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.core.buffer import default_buffer_prototype

from featcache.errors import (
    CorruptStore,
    EncoderError,
    FeaturesNotFound,
    GeometryError,
    StaleFeatures,
    StoreError,
)
from featcache.geometry import Grid, whole
from featcache.store import CaseInfo, FeatureStore, StoreWriter, files, verify
from featcache.store.manifest import Part
from featcache.store.objects import RecordingStore
from featcache.stored_error import StoredError

SMALL = Grid((3, 4, 5), np.eye(4))


def _info(toy: Any) -> CaseInfo:
    return CaseInfo(toy.native, (0, 0), toy.prepared, "HU", whole(toy.native))


def _level(writer: StoreWriter, toy: Any, dtype: str = "float16") -> Any:
    return writer.new_case("a", _info(toy)).level("l1", SMALL, 2, dtype)


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (np.nan, "float16", "1 NaN and 0 infinite of 120"),
        (-np.inf, "float32", "0 NaN and 1 infinite of 120"),
        (65505.0, "float16", "1 of 120 features lie beyond.*65505.*--store-precision float32"),
        (-7e4, "float16", "largest magnitude 70000"),
    ],
)
def test_values_that_cannot_be_stored(tmp_path: Path, toy: Any, value: float, dtype: str, words: str) -> None:
    slab = np.ones((2, 3, 4, 5), np.float32)
    slab[1, 2, 3, 4] = value
    with StoreWriter.open(tmp_path / "f", toy.root) as writer:
        level = _level(writer, toy, dtype)
        with pytest.raises(EncoderError, match=f"case a, level l1.*{words}"):
            level.append(slab)


def test_extreme_values_that_can_be_stored(tmp_path: Path, toy: Any) -> None:
    slab = np.full((2, 3, 4, 5), 65504.0, np.float32)
    with StoreWriter.open(tmp_path / "f", toy.root) as writer:
        level = _level(writer, toy)
        level.append(slab)
        assert level.close().stored_error == StoredError(0.0, 0.0)
        level = _level(writer, toy, "float32")
        level.append(slab * 1e30)
        assert level.close().stored_error.max_abs == 0.0


def test_slabs_must_fit(tmp_path: Path, toy: Any) -> None:
    with StoreWriter.open(tmp_path / "f", toy.root) as writer:
        level = _level(writer, toy)
        for shape in [(2, 3, 4, 6), (1, 3, 4, 5), (2, 3, 5, 5), (2, 3, 4)]:
            with pytest.raises(GeometryError, match="does not fit"):
                level.append(np.zeros(shape, np.float32))
        level.append(np.zeros((2, 3, 4, 4), np.float32))
        with pytest.raises(GeometryError, match="4 of 5 slices"):
            level.close()


def test_a_case_that_is_not_committed_leaves_nothing(tmp_path: Path, toy: Any) -> None:
    path = tmp_path / "f.zarr"
    with StoreWriter.open(path, toy.root) as writer:
        with writer.new_case("a", _info(toy)) as case:
            case.level("l1", SMALL, 2).append(np.zeros((2, 3, 4, 4), np.float32))
            with pytest.raises(GeometryError, match="4 of 5 slices"):
                case.commit()
        assert not (tmp_path / ".f.zarr.partial" / "cases" / "a").exists()
        with pytest.raises(StoreError, match="no level"), writer.new_case("a", _info(toy)) as case:
            case.commit()
    assert FeatureStore.open(path).cases() == []
    assert verify(path).findings == []


def test_commit_returns_the_seal(tmp_path: Path, toy: Any) -> None:
    with StoreWriter.open(tmp_path / "f", toy.root) as writer:
        seal = toy.write_case(writer, "a")
        assert FeatureStore.open(tmp_path / "f").case("a").seal == seal
        assert toy.write_case(writer, "a") == seal  # the same features make the same bytes
        assert toy.write_case(writer, "b") != seal


def test_replacing_a_case_keeps_its_labels(tmp_path: Path, toy: Any) -> None:
    with StoreWriter.open(tmp_path / "f", toy.root) as writer:
        toy.write_case(writer, "a")
        toy.write_labels(writer, "a")
        with writer.new_case("a", _info(toy)) as case:
            case.level("other", SMALL, 1).append(np.ones((1, 3, 4, 5), np.float32))
            case.commit()
    case = FeatureStore.open(tmp_path / "f").case("a")
    assert set(case.levels) == {"other"}
    assert case.labels() is not None
    assert verify(tmp_path / "f").findings == []


def test_labels_come_and_go_without_touching_features(tmp_path: Path, toy: Any) -> None:
    path = tmp_path / "f"
    with StoreWriter.open(path, toy.root) as writer:
        toy.write_case(writer, "a")
        before = {p: p.stat().st_mtime_ns for p in (path / "cases").rglob("*")}
        toy.write_labels(writer, "a")
        toy.write_labels(writer, "a", name="second", annotated=[])
        toy.write_labels(writer, "a", annotated=["cord"])
        case = FeatureStore.open(path).case("a")
        assert case.label_names() == ["labels", "second"]
        found = case.labels()
        assert found is not None
        assert found.annotated == ("cord",)
        writer.remove_labels("a")
        assert FeatureStore.open(path).case("a").label_names() == ["second"]
        writer.remove_labels("a", "second")
        assert not (path / "labels/a").exists()
        with pytest.raises(FeaturesNotFound, match="no labels 'second'"):
            writer.remove_labels("a", "second")
        assert {p: p.stat().st_mtime_ns for p in (path / "cases").rglob("*")} == before
    assert verify(path).findings == []


def test_labels_that_do_not_fit(tmp_path: Path, toy: Any) -> None:
    with StoreWriter.open(tmp_path / "f", toy.root) as writer:
        with pytest.raises(FeaturesNotFound, match="extract it first"):
            toy.write_labels(writer, "a")
        toy.write_case(writer, "a")
        with pytest.raises(StoreError, match="annotated classes"):
            toy.write_labels(writer, "a", annotated=["lung"])
        with pytest.raises(GeometryError, match="shape"):
            writer.write_labels("a", np.zeros((1, 2, 3), int), toy.native, (0, 0), classes={}, annotated=[])
        for array, words in [
            (np.zeros(toy.native.shape), "float64"),
            (np.full(toy.native.shape, 2**40), "int32"),
        ]:
            with pytest.raises(StoreError, match=words):
                writer.write_labels("a", array, toy.native, (0, 0), classes={}, annotated=[])


def test_remove_case(tmp_path: Path, toy: Any) -> None:
    with StoreWriter.open(tmp_path / "f", toy.root) as writer:
        for case in ("a", "b"):
            toy.write_case(writer, case)
            toy.write_labels(writer, case)
        writer.remove_case("a")
        with pytest.raises(FeaturesNotFound, match="no case 'a'"):
            writer.remove_case("a")
    assert FeatureStore.open(tmp_path / "f").cases() == ["b"]
    assert not (tmp_path / "f/labels/a").exists()
    assert verify(tmp_path / "f").findings == []


def test_head_is_kept_when_a_store_is_opened_again(tmp_path: Path, toy: Any) -> None:
    with StoreWriter.open(tmp_path / "f", toy.root) as writer:
        writer.set_head({"r2": 0.9995, "weights": [[1.0, 2.5]]})
        with pytest.raises(StoreError, match="finite"):
            writer.set_head({"r2": float("nan")})
    with StoreWriter.open(tmp_path / "f", toy.root) as writer:
        assert writer.root.head == {"r2": 0.9995, "weights": [[1.0, 2.5]]}
    described = FeatureStore.open(tmp_path / "f").describe()["head"]
    assert described == {"level": None, "classes": None, "r2": 0.9995}
    assert verify(tmp_path / "f").findings == []


@pytest.mark.parametrize("name", ["encoder", "recipe"])
def test_another_encoder_or_recipe_is_refused(toy_store: Path, toy: Any, name: str) -> None:
    other = {
        "encoder": replace(toy.root, encoder_id="f" * 64, card={**toy.root.card, "version": "2"}),
        "recipe": replace(toy.root, recipe_id="b" * 64, recipe={"window": [64] * 3, "blending": "halo"}),
    }[name]
    words = {
        "encoder": 'version: found "1", asked for "2"',
        "recipe": "window: found .32, 32, 32., asked for .64",
    }
    with pytest.raises(StaleFeatures, match=words[name]) as caught:
        StoreWriter.open(toy_store, other)
    assert "blending" not in str(caught.value)
    assert "--out" in str(caught.value)
    assert not list(toy_store.parent.glob(".*"))


def test_folders_that_hold_something_else_are_left_alone(tmp_path: Path, toy: Any) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "me.png").write_bytes(b"x")
    for path in (folder, folder / "me.png"):
        with pytest.raises(StoreError, match=path.name):
            StoreWriter.open(path, toy.root)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["me.png", "photos"]


def test_a_store_without_its_root_is_not_overwritten(toy_store: Path, tmp_path: Path, toy: Any) -> None:
    path = shutil.copytree(toy_store, tmp_path / "f.zarr")
    (path / "zarr.json").unlink()
    with pytest.raises(CorruptStore, match="lost"):
        StoreWriter.open(path, toy.root)


def test_an_empty_folder_becomes_a_store(tmp_path: Path, toy: Any) -> None:
    with StoreWriter.open(tmp_path / "new" / "f", toy.root):
        pass
    (tmp_path / "empty").mkdir()
    with StoreWriter.open(tmp_path / "empty", toy.root):
        pass
    assert FeatureStore.open(tmp_path / "empty").cases() == []


def test_one_writer_at_a_time(tmp_path: Path, toy: Any) -> None:
    with StoreWriter.open(tmp_path / "f", toy.root) as writer:
        with pytest.raises(StoreError, match="another process writes to"):
            StoreWriter.open(tmp_path / "f", toy.root)
        toy.write_case(writer, "a")  # the refused one has cleaned nothing away
    with StoreWriter.open(tmp_path / "f", toy.root):
        pass


def test_an_object_is_written_once(tmp_path: Path) -> None:
    store = RecordingStore(Part(tmp_path, {}, "0"))
    value = default_buffer_prototype().buffer.from_bytes(b"abc")
    asyncio.run(store.set("c/0", value))
    with pytest.raises(StoreError, match="written twice"):
        asyncio.run(store.set("c/0", value))


@pytest.mark.parametrize("after", [0, 2, 5, 8])
def test_a_full_disk(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    path, count = tmp_path / "f.zarr", [0]

    def full(descriptor: int) -> None:
        count[0] += 1
        if count[0] > after:
            raise OSError(errno.ENOSPC, "No space left on device")

    with StoreWriter.open(path, toy.root) as writer:
        toy.write_case(writer, "a")
        with monkeypatch.context() as patch:
            patch.setattr(files.os, "fsync", full)
            with pytest.raises(StoreError, match=r"disk is full: .*f\.zarr.*complete cases are kept"):
                toy.write_case(writer, "b")
            count[0] = 0
            with pytest.raises(StoreError, match="disk is full"):
                toy.write_labels(writer, "a")
        staging = tmp_path / ".f.zarr.partial"
        assert not any(p.is_file() for p in staging.rglob("*") if p.name not in ("lock", "document"))
        toy.write_case(writer, "b")
        toy.write_labels(writer, "a")
    assert FeatureStore.open(path).cases() == ["a", "b"]
    assert verify(path).findings == []


def test_a_kill_at_any_sync_leaves_whole_cases_only(
    tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copy the disk at every sync of a run; each copy is what a kill at that moment leaves behind."""
    live, path = tmp_path / "live", Path("out/features.zarr")
    copies: list[Path] = []

    def copy_disk(descriptor: int) -> None:
        copies.append(Path(shutil.copytree(live, tmp_path / f"copy{len(copies)}")))

    def run(root: Path) -> str:
        with StoreWriter.open(root / path, toy.root) as writer:
            done = FeatureStore.open(root / path).cases()
            for case in ("a", "b"):
                if case not in done:
                    toy.write_case(writer, case)
            toy.write_labels(writer, "a")
        return FeatureStore.open(root / path).case("b").seal

    (live / "out").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", copy_disk)
        seal = run(live)
    assert len(copies) > 30
    states = set()
    for number, copy in enumerate(copies):
        if (copy / path).exists():
            store = FeatureStore.open(copy / path)
            states.add((*store.cases(), *store.labelled()))
            assert verify(copy / path).findings == []
        else:
            states.add(None)  # type: ignore[arg-type]
        if number % 4:  # resuming each takes too long
            continue
        assert run(copy) == seal
        assert [p.name for p in (copy / "out").iterdir()] == ["features.zarr"]
        assert verify(copy / path).findings == []
    assert states == {None, (), ("a",), ("a", "b"), ("a", "b", "a")}
