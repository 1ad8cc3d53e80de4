"""A disk without room is refused before anything is encoded, and one that fills up leaves whole cases."""

from __future__ import annotations

import dataclasses
import errno
import os
import re

import numpy as np
import pytest

from featcache import extraction, room
from featcache.card import Crop, Intensity, Preparation
from featcache.errors import StoreError
from featcache.extraction import ExtractOptions, extract
from featcache.geometry import Grid
from featcache.sizes import raw_bytes
from featcache.store import FeatureStore, files, verify

OPTIONS = ExtractOptions(device="cpu", threads=1)
SHAPE = (30, 24, 28)
CROP = Preparation("RAS", None, Intensity("none"), Crop(5, 0))


@pytest.fixture
def place(fakes, tmp_path, _no_waiting_for_the_disk):
    """Return a folder with fm.onnx and three scans whose middle half, along one axis, is foreground."""
    fakes.conv_encoder(tmp_path / "fm.onnx", head="none")
    for seed, case in enumerate("abc"):
        voxels = np.zeros(SHAPE, np.int16)
        voxels[8:23] = np.random.default_rng(seed).integers(10, 100, (15, *SHAPE[1:]))
        fakes.write_scan(tmp_path / "scans" / f"{case}.nii.gz", voxels)
    return tmp_path


def run(place, **more):
    events = []
    result = extract(
        place / "fm.onnx",
        place / "scans",
        place / "features.zarr",
        options=OPTIONS,
        on_event=events.append,
        **more,
    )
    return result, events


def raw(place):
    from featcache.onnxfile import read_card

    return 3 * raw_bytes(Grid(SHAPE, np.eye(4)), read_card(place / "fm.onnx"), "float16")


def free(monkeypatch, count):
    monkeypatch.setattr(room, "free_bytes", lambda out: round(count))


def no_encoder(monkeypatch):
    monkeypatch.setattr(extraction, "open_encoder", None)


def test_too_small_a_disk_is_refused_before_anything_is_made(place, monkeypatch):
    free(monkeypatch, 0.45 * raw(place))
    no_encoder(monkeypatch)
    with pytest.raises(StoreError) as caught:
        run(place)
    message = str(caught.value)
    assert re.search(
        r"features\.zarr: the disk has \d+ kB free; the features of 3 scans need about \d+ kB", message
    )
    for words in ("compressed to half", "Free some space", "--out", "--spacing", "featcache plan"):
        assert words in message
    assert not (place / "features.zarr").exists()


def test_a_disk_that_holds_compressed_features_will_do(place, monkeypatch):
    free(monkeypatch, 0.55 * raw(place))
    assert run(place)[0].done == ("a", "b", "c")


def test_a_crop_is_taken_into_account(place, fakes, monkeypatch):
    fakes.conv_encoder(place / "fm.onnx", head="none", preparation=CROP)
    free(monkeypatch, 0.3 * raw(place))  # half is cropped away, and half of that compressed
    assert run(place)[0].done == ("a", "b", "c")
    free(monkeypatch, 0.2 * raw(place))
    with pytest.raises(StoreError, match="free"):
        extract(place / "fm.onnx", place / "scans", place / "other.zarr", options=OPTIONS)


def test_a_scan_that_cannot_be_read_is_left_to_its_turn(place, fakes, monkeypatch):
    fakes.conv_encoder(place / "fm.onnx", head="none", preparation=CROP)
    (place / "scans" / "a.nii.gz").write_bytes(b"nothing")
    free(monkeypatch, 0.3 * raw(place))
    assert list(run(place)[0].failed) == ["a"]


def test_where_there_is_room_no_voxel_is_read(place, fakes, monkeypatch):
    fakes.conv_encoder(place / "fm.onnx", head="none", preparation=CROP)
    monkeypatch.setattr(room, "read_scan", None)
    assert run(place)[0].done == ("a", "b", "c")


def test_the_stores_own_cases_tell_how_well_features_compress(place, monkeypatch):
    (place / "scans" / "c.nii.gz").rename(place / "c.nii.gz")
    run(place)
    (place / "c.nii.gz").rename(place / "scans" / "c.nii.gz")
    store = FeatureStore.open(place / "features.zarr")
    taken = [sum(size for size, _ in store.case(case).document.manifest.values()) for case in "ab"]
    no_encoder(monkeypatch)
    free(monkeypatch, 0.95 * np.mean(taken))
    with pytest.raises(StoreError, match=r"features of 1 scans need about .*as its cases do"):
        run(place)
    assert store.cases() == ["a", "b"]
    monkeypatch.undo()
    free(monkeypatch, 1.05 * np.mean(taken))
    assert run(place)[0].done == ("c",)


def test_a_store_without_cases_is_asked_about_too(place, fakes, monkeypatch):
    for case in "abc":
        (place / "scans" / f"{case}.nii.gz").rename(place / f"{case}.nii.gz")
        (place / "scans" / f"{case}.nii.gz").write_bytes(b"")
    run(place)
    for case in "abc":
        (place / f"{case}.nii.gz").rename(place / "scans" / f"{case}.nii.gz")
    free(monkeypatch, 0.45 * raw(place))
    with pytest.raises(StoreError, match="compressed to half"):
        run(place)


def test_a_complete_store_needs_no_room(place, monkeypatch):
    run(place)
    free(monkeypatch, 0)
    assert run(place)[0].skipped == ("a", "b", "c")


def test_of_many_scans_some_headers_are_read(place, fakes, monkeypatch):
    from featcache.onnxfile import read_card
    from featcache.scans import ScanSource

    monkeypatch.setattr(room, "_LOOKED_AT", 4)
    looked = []
    monkeypatch.setattr(
        room, "read_header", lambda source: looked.append(source.case) or Grid(SHAPE, np.eye(4))
    )
    sources = [ScanSource(f"s{n}", (place / f"s{n}.nii.gz",)) for n in range(30)]
    free(monkeypatch, 4 * raw(place))
    with pytest.raises(StoreError, match="features of 30 scans"):
        room.check_room(place / "x.zarr", sources, read_card(place / "fm.onnx"), OPTIONS)
    assert looked == ["s0", "s8", "s16", "s24"]


@pytest.mark.parametrize("after", [25, 40, 60])
def test_a_disk_that_fills_up_ends_the_run_between_two_cases(place, monkeypatch, after):
    calls = 0

    def full(descriptor):
        nonlocal calls
        calls += 1
        if calls >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(
            StoreError, match=r"the disk is full: .*features.*complete cases are kept"
        ) as caught:
            run(place)
    assert caught.value.path is not None
    whole = FeatureStore.open(place / "features.zarr").cases()
    assert whole in ([], ["a"], ["a", "b"])
    assert not verify(place / "features.zarr").findings
    result, _ = run(place)
    assert sorted((*result.done, *result.skipped)) == ["a", "b", "c"]
    assert set(result.skipped) <= set(whole)
    assert not verify(place / "features.zarr").findings


def test_float32_needs_twice_as_much(place, monkeypatch):
    free(monkeypatch, 0.8 * raw(place))
    with pytest.raises(StoreError, match="float32"):
        extract(
            place / "fm.onnx",
            place / "scans",
            place / "wide.zarr",
            options=dataclasses.replace(OPTIONS, store_precision="float32"),
        )
