"""Extraction into fewer bits: calibrated once, on a scan that does not depend on the order; measured; resumed."""

from __future__ import annotations

import numpy as np
import pytest

from featcache.calibrate import RECIPE, StoreCalibration, calibrate
from featcache.encode import encode
from featcache.errors import StaleFeatures
from featcache.extraction import ExtractOptions, extract
from featcache.head import LinearHead
from featcache.onnxfile import read_card
from featcache.prepare import prepare
from featcache.quantise import PRECISIONS, dequantise, get_precision, quantise, round_mantissa
from featcache.runtime.onnxruntime import OnnxEncoder
from featcache.scans import ScanSource, read_scan
from featcache.store import FeatureStore, verify

pytestmark = pytest.mark.usefixtures("_no_waiting_for_the_disk")
COARSE = [name for name, precision in PRECISIONS.items() if not precision.plain]


def options(precision):
    return ExtractOptions(device="cpu", threads=1, store_precision=precision)


@pytest.fixture
def place(fakes, tmp_path):
    """Return a folder with fm.onnx, and scans/ with three cases of which b is the brightest."""
    fakes.conv_encoder(tmp_path / "fm.onnx")
    for seed, case in enumerate("abc"):
        voxels = np.random.default_rng(seed).normal(size=(20, 17, 22)).astype(np.float32)
        voxels[:7] = 0
        fakes.write_scan(tmp_path / "scans" / f"{case}.nii.gz", voxels * (3 if case == "b" else 1))
    return tmp_path


def run(place, precision, inputs=None, out="features.zarr"):
    events = []
    scans = inputs or place / "scans"
    result = extract(
        place / "fm.onnx", scans, place / out, options=options(precision), on_event=events.append
    )
    return result, events


def live(place, case):
    """Return every level of a case as `encode` yields it."""
    card = read_card(place / "fm.onnx")
    scan = read_scan(ScanSource(case, (place / "scans" / f"{case}.nii.gz",)), unit=card.unit)
    slabs = {}
    for level, slab in encode(
        prepare(scan, card.preparation, None), OnnxEncoder(place / "fm.onnx", card, "cpu", 1)
    ):
        slabs.setdefault(level, []).append(slab)
    return {level: np.concatenate(parts, axis=3) for level, parts in slabs.items()}


def read(place, case, level, out="features.zarr"):
    found = FeatureStore.open(place / out).case(case).level(level)
    return found.read((0, 0, 0), found.grid.shape)


def contents(store):
    return {p.relative_to(store): p.read_bytes() for p in store.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", COARSE)
def test_what_is_stored_is_live_features_in_fewer_bits(place, name):
    result, _ = run(place, name)
    assert (result.done, result.failed) == (("a", "b", "c"), {})
    store, precision = FeatureStore.open(place / "features.zarr"), get_precision(name)
    calibration = calibrate("a", live(place, "a").items(), precision.bits) if precision.calibrated else None
    clipped = 0
    for case in "abc":
        for level, features in live(place, case).items():
            if calibration is None:
                expected = round_mantissa(features, precision.bits).astype(np.float32)
            else:
                numbers, beyond = quantise(features, calibration.levels[level])
                expected = dequantise(numbers, calibration.levels[level])
                clipped += beyond
                assert store.case(case).levels[level].stored_error.clipped == beyond
            np.testing.assert_array_equal(read(place, case, level), expected)
    assert (clipped > 0) == precision.calibrated  # b reaches farther than a
    assert store.root.recipe["store_precision"] == name
    assert store.root.recipe.get("calibration") == (RECIPE if precision.calibrated else None)
    assert not verify(store.path).findings
    assert [p.name for p in place.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["int6", "float16-m4"])
def test_agreement_of_the_recovered_head_is_measured_for_every_case(place, name):
    """The first one too, whose features wait until the head is known."""
    run(place, name)
    store = FeatureStore.open(place / "features.zarr")
    head = LinearHead.from_json(store.root.head)
    for case in "abc":
        errors = {level: info.stored_error for level, info in store.case(case).levels.items()}
        assert [level for level, error in errors.items() if error.head_agreement is not None] == ["l2"]
        pair = (live(place, case)["l2"], read(place, case, "l2"))
        same = np.equal(*(head.decide(values.reshape(len(values), -1)) for values in pair))
        assert errors["l2"].head_agreement == pytest.approx(same.mean(), abs=1e-6)
        assert errors["l2"].relative_sigma > 0


def test_the_first_case_by_id_calibrates_whatever_the_order(place):
    scans = [place / "scans" / f"{case}.nii.gz" for case in "abc"]
    _, events = run(place, "int6", scans[::-1])
    run(place, "int6", scans, "other.zarr")
    assert "stored integers were calibrated on case a" in [event.text for event in events]
    assert contents(place / "features.zarr") == contents(place / "other.zarr")


def test_a_bad_scan_does_not_calibrate(place, fakes):
    fakes.write_scan(place / "scans" / "a.nii.gz", np.full((20, 17, 22), np.nan, np.float32))
    result, _ = run(place, "int6")
    assert (result.done, list(result.failed)) == (("b", "c"), ["a"])
    root = FeatureStore.open(place / "features.zarr").root
    assert StoreCalibration.from_json(root.calibration).case == "b"


def test_features_that_are_not_finite_fail_their_case_and_do_not_calibrate(place, fakes):
    fakes.faulty_encoder(place / "fm.onnx", np.nan, above=7.0)
    bright = np.zeros((20, 17, 22), np.float32)
    bright[3, 3, 3] = 9
    fakes.write_scan(place / "scans" / "a.nii.gz", bright)
    for case in "bc":
        fakes.write_scan(place / "scans" / f"{case}.nii.gz", bright / 2)
    result, _ = run(place, "int4")
    assert (result.done, list(result.failed)) == (("b", "c"), ["a"])
    assert "1 NaN" in result.failed["a"]
    assert FeatureStore.open(place / "features.zarr").root.calibration["case"] == "b"


def test_a_later_run_keeps_the_calibration(place):
    scans = [place / "scans" / f"{case}.nii.gz" for case in "abc"]
    run(place, "int6", scans[1:])
    before = FeatureStore.open(place / "features.zarr").root.calibration
    assert before["case"] == "b"
    result, events = run(place, "int6", scans)
    assert (result.done, result.skipped) == (("a",), ("b", "c"))
    assert not [event for event in events if "calibrated" in event.text]
    store = FeatureStore.open(place / "features.zarr")
    assert store.root.calibration == before
    scale = np.float32(before["levels"]["l1"]["scale"])
    assert all(np.array_equal(store.case(c).level("l1").calibration.scale, scale) for c in "abc")


@pytest.mark.parametrize(
    ("first", "second"), [("float16", "int6"), ("int6", "int5"), ("float16-m5", "float16")]
)
def test_another_precision_is_refused_and_named(place, first, second):
    run(place, first)
    before = contents(place / "features.zarr")
    with pytest.raises(StaleFeatures, match=f'store_precision: found "{first}", asked for "{second}"'):
        run(place, second)
    assert contents(place / "features.zarr") == before


def test_float16_has_the_recipe_that_it_always_had(place):
    """Stores of before go on, and adapters of before do not warn."""
    run(place, "float16")
    root = FeatureStore.open(place / "features.zarr").root
    assert sorted(root.recipe) == [
        "blending",
        "compute_precision",
        "nan_to",
        "spacing",
        "store_precision",
        "window",
    ]
    assert (root.format_version, root.calibration) == (1, None)
    np.testing.assert_array_equal(
        read(place, "b", "l2"), live(place, "b")["l2"].astype(np.float16).astype(np.float32)
    )
