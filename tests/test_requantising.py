"""A store made smaller without the encoder: as extracted at that precision, resumable, never finer."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import sys
import time

import numpy as np
import pytest

from featcache.errors import StaleFeatures, StoreError
from featcache.extraction import ExtractOptions, extract
from featcache.quantise import PRECISIONS, get_precision
from featcache.requantising import requantise
from featcache.store import FeatureStore, StoreWriter, verify

COARSE = [name for name, precision in PRECISIONS.items() if not precision.plain]
CASES = ["a", "b", "c"]


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def made(fakes, tmp_path_factory):
    """Return a folder with fm.onnx, scans/, labels/ and their float16 store, which no test may change."""
    place = tmp_path_factory.mktemp("requantise")
    fakes.conv_encoder(place / "fm.onnx")
    for seed, case in enumerate(CASES):
        rng = np.random.default_rng(seed)
        fakes.write_scan(place / "scans" / f"{case}.nii.gz", rng.normal(size=(22, 15, 41)).astype(np.float32))
        if case != "c":
            fakes.write_scan(
                place / "labels" / f"{case}.nii.gz", rng.integers(0, 3, (22, 15, 41)).astype(np.uint8)
            )
    run(place, "float16", "float16.zarr")
    with StoreWriter.open(place / "float16.zarr", FeatureStore.open(place / "float16.zarr").root) as writer:
        labels = FeatureStore.open(place / "float16.zarr").case("a").labels()
        writer.write_labels(
            "a",
            labels.read() > 1,
            labels.grid,
            labels.codes,
            classes={"x": 1},
            annotated=["x"],
            group="p",
            name="two",
        )
    return place


@pytest.fixture
def source(made, tmp_path):
    """Return a copy of the float16 store."""
    return shutil.copytree(made / "float16.zarr", tmp_path / "features.zarr")


def run(place, precision, out):
    options = ExtractOptions(device="cpu", threads=1, store_precision=precision)
    result = extract(place / "fm.onnx", place / "scans", place / out, options=options)
    assert result.failed == {}


def read(store, case, level):
    found = FeatureStore.open(store).case(case).level(level)
    return found.read((0, 0, 0), found.grid.shape)


@pytest.mark.parametrize("name", COARSE)
def test_it_is_what_an_extraction_stores_up_to_float16(made, tmp_path, name):
    out = tmp_path / "small.zarr"
    result = requantise(made / "float16.zarr", out, name)
    assert (list(result.done), result.failed) == (CASES, {})
    if not (made / f"{name}.zarr").exists():
        run(made, name, f"{name}.zarr")
    small, direct = FeatureStore.open(out), FeatureStore.open(made / f"{name}.zarr")
    for case in CASES:
        for level in ("l1", "l2", "l3"):
            ours, theirs = read(out, case, level), read(direct.path, case, level)
            if not get_precision(name).calibrated:
                np.testing.assert_array_equal(ours, theirs)
                continue
            calibrations = [s.case(case).level(level).calibration for s in (small, direct)]
            assert calibrations[0].to_json() == calibrations[1].to_json()
            steps = np.abs(ours - theirs) / calibrations[0].scale[:, None, None, None]
            assert steps.max() < 1.01
            # Few values lie so near to a border that float16 moves them across.
            assert (steps > 0.01).mean() < 0.03
    error = small.case("b").levels["l2"].stored_error
    assert error.relative_sigma == pytest.approx(
        direct.case("b").levels["l2"].stored_error.relative_sigma, rel=0.02
    )
    assert error.head_agreement > 0.7
    assert not verify(out).findings


def test_labels_grids_and_head_come_along(made, tmp_path):
    result = requantise(made / "float16.zarr", tmp_path / "small.zarr", "int6")
    old, new = FeatureStore.open(made / "float16.zarr"), FeatureStore.open(tmp_path / "small.zarr")
    assert result.labelled == ("a", "b")
    assert contents(old.path / "labels") == contents(new.path / "labels")
    assert new.labelled("two") == ["a"]
    assert new.root.head == old.root.head
    assert new.root.encoder_id == old.root.encoder_id
    for case in CASES:
        assert new.case(case).info == old.case(case).info
        assert {n: (v.grid, v.channels) for n, v in new.case(case).levels.items()} == {
            n: (v.grid, v.channels) for n, v in old.case(case).levels.items()
        }
    held = sum(len(data) for data in contents(old.path / "cases").values())
    assert sum(len(data) for data in contents(new.path / "cases").values()) < held / 2


def test_the_recipe_says_where_it_came_from(made, tmp_path):
    requantise(made / "float16.zarr", tmp_path / "small.zarr", "int6")
    old, new = (FeatureStore.open(p).root for p in (made / "float16.zarr", tmp_path / "small.zarr"))
    assert new.recipe["requantised_from"] == {"recipe_id": old.recipe_id, "store_precision": "float16"}
    assert new.recipe["store_precision"] == "int6"
    assert new.recipe_id != old.recipe_id
    assert new.calibration["case"] == "a"


def test_complete_cases_are_skipped_and_changed_ones_done_again(source, tmp_path, made):
    out = tmp_path / "small.zarr"
    requantise(source, out, "int5")
    before = contents(out)
    again = requantise(source, out, "int5")
    assert (again.done, list(again.skipped), again.labelled) == ((), CASES, ())
    assert contents(out) == before
    shutil.rmtree(source / "cases" / "b")
    shutil.copytree(source / "cases" / "c", source / "cases" / "b")
    (out / "cases" / "c" / "zarr.json").write_text("{")
    again = requantise(source, out, "int5")
    assert (again.done, again.skipped) == (("b", "c"), ("a",))
    np.testing.assert_array_equal(read(out, "b", "l1"), read(out, "c", "l1"))
    assert not verify(out).findings


def test_labels_that_changed_are_copied_again(source, tmp_path):
    out = tmp_path / "small.zarr"
    requantise(source, out, "int5")
    with StoreWriter.open(source, FeatureStore.open(source).root) as writer:
        labels = FeatureStore.open(source).case("b").labels()
        writer.write_labels(
            "b", labels.read() * 0, labels.grid, labels.codes, classes={"x": 1}, annotated=["x"]
        )
    assert requantise(source, out, "int5").labelled == ("b",)
    assert FeatureStore.open(out).case("b").labels().classes == {"x": 1}


def test_a_damaged_case_fails_alone(source, tmp_path):
    shard = next(p for p in (source / "cases/b/features/l1/0/c").rglob("*") if p.is_file())
    shard.write_bytes(shard.read_bytes()[:-1])
    result = requantise(source, tmp_path / "small.zarr", "int6")
    assert (result.done, list(result.failed)) == (("a", "c"), ["b"])
    assert "truncated" in result.failed["b"]
    assert FeatureStore.open(tmp_path / "small.zarr").cases() == ["a", "c"]
    assert not verify(tmp_path / "small.zarr").findings


@pytest.mark.parametrize(
    ("held", "asked", "words"),
    [
        ("float16", "float32", "is stored as float16, asked for float32; .* choose one of float16-m7"),
        ("float16", "float16", "asked for float16; "),
        ("int6", "int8", "is stored as int6, asked for int8; .*begin with the float16 store"),
        ("int6", "int4", "rounding twice adds up"),
        ("float16-m5", "float16-m3", "rounding twice adds up"),
    ],
)
def test_never_from_coarse_to_fine_and_never_twice(made, tmp_path, held, asked, words):
    store = made / "float16.zarr"
    if held != "float16":
        store = tmp_path / f"{held}.zarr"
        requantise(made / "float16.zarr", store, held)
    with pytest.raises(StoreError, match=words):
        requantise(store, tmp_path / "out.zarr", asked)
    assert not (tmp_path / "out.zarr").exists()


def test_from_float32(made, tmp_path):
    if not (made / "float32.zarr").exists():
        run(made, "float32", "float32.zarr")
    requantise(made / "float32.zarr", tmp_path / "half.zarr", "float16")
    half = FeatureStore.open(tmp_path / "half.zarr")
    assert half.root.format_version == 1
    for level in ("l1", "l3"):
        np.testing.assert_array_equal(read(half.path, "b", level), read(made / "float16.zarr", "b", level))
    run(made, "int6", "int6.zarr")
    requantise(made / "float32.zarr", tmp_path / "six.zarr", "int6")
    for level in ("l1", "l3"):
        np.testing.assert_array_equal(
            read(tmp_path / "six.zarr", "b", level), read(made / "int6.zarr", "b", level)
        )


def test_another_precision_does_not_go_into_the_same_store(made, tmp_path):
    requantise(made / "float16.zarr", tmp_path / "small.zarr", "int6")
    with pytest.raises(StaleFeatures, match='store_precision: found "int6", asked for "int5"'):
        requantise(made / "float16.zarr", tmp_path / "small.zarr", "int5")
    with pytest.raises(StaleFeatures, match="another recipe"):
        requantise(made / "float16.zarr", made / "float16.zarr", "int5")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_leaves_no_half_case_and_is_completed(made, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker")
    reference = tmp_path / "reference" / "small.zarr"
    reference.parent.mkdir()
    requantise(made / "float16.zarr", reference, "int6")
    expected, context = contents(reference), multiprocessing.get_context("spawn")
    seen = set()
    for kill in range(3):
        out = tmp_path / str(kill) / "small.zarr"
        out.parent.mkdir()
        process = context.Process(target=requantise, args=(made / "float16.zarr", out, "int6"))
        process.start()
        # Killed as soon as there are `kill` complete cases: while it makes the next one, or while it begins.
        while process.exitcode is None and len(list((out / "cases").glob("*/zarr.json"))) < kill:
            time.sleep(1e-3)
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        process.close()
        whole = FeatureStore.open(out).cases() if out.exists() else []
        for case in whole:
            prefix = f"cases/{case}/"
            there = {k: v for k, v in contents(out).items() if k.startswith(prefix)}
            assert there == {k: v for k, v in expected.items() if k.startswith(prefix)}
        seen.add(len(whole))
        result = requantise(made / "float16.zarr", out, "int6")
        assert sorted((*result.done, *result.skipped)) == CASES
        assert contents(out) == expected
        assert [p.name for p in out.parent.iterdir() if p.name.startswith(".")] == []
    assert min(seen) < len(CASES), "every kill came too late: nothing was tested"
