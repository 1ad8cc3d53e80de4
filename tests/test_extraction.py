"""Extraction as a whole: resume, single failures, labels later, and what is stored equals live."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil

import nibabel as nib
import numpy as np
import onnx
import pytest
from onnx import helper

from featcache.card import Blending, Crop, EncoderInput, Intensity, Output, Preparation
from featcache.encode import encode, level_grid
from featcache.errors import CardError, EncoderError, ScanReadError, StaleFeatures, StoreError
from featcache.extraction import ExtractOptions, extract
from featcache.head import LinearHead
from featcache.labelling import add_labels
from featcache.onnxfile import read_card, write_card
from featcache.prepare import prepare
from featcache.runtime.onnxruntime import OnnxEncoder
from featcache.scans import ScanSource, read_scan
from featcache.store import FeatureStore, StoreWriter, verify

pytestmark = pytest.mark.usefixtures("_no_waiting_for_the_disk")
AFFINE = np.array([[-1.5, 0, 0, 20], [0, 0, 2, -15], [0, 1.2, 0.1, 7], [0, 0, 0, 1]], np.float32).astype(
    float
)
OPTIONS = ExtractOptions(device="cpu", threads=1)
PREPARATION = Preparation("RAS", (2.0, 1.5, 2.0), Intensity("window", 0, 100, (0, 1)), Crop(5, 2))


def voxels_of(seed, shape=(20, 14, 17)):
    rng = np.random.default_rng(seed)
    voxels = np.zeros(shape, np.int16)
    voxels[2:-3, 1:-1, 2:-2] = rng.integers(10, 100, (shape[0] - 5, shape[1] - 2, shape[2] - 4))
    return voxels


@pytest.fixture
def place(fakes, tmp_path):
    """Return a folder with fm.onnx, and scans/ with three cases."""
    fakes.conv_encoder(tmp_path / "fm.onnx", preparation=PREPARATION)
    for seed, case in enumerate("abc"):
        fakes.write_scan(tmp_path / "scans" / f"{case}.nii.gz", voxels_of(seed), AFFINE)
    return tmp_path


class Log(list):
    """Events, in order."""

    def kinds(self, case):
        return [event.kind for event in self if event.case == case and event.kind != "window"]

    def encoded(self):
        return [event.text for event in self if event.text.startswith("encoding on")]


def run(place, options=OPTIONS, **more):
    log = Log()
    result = extract(
        place / "fm.onnx",
        place / "scans",
        place / "features.zarr",
        options=options,
        on_event=log.append,
        **more,
    )
    return result, log


def digests(folder):
    """Return path -> (mtime, sha256) of all files below a folder."""
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read(store, case, level):
    found = FeatureStore.open(store).case(case).level(level)
    return found.read((0, 0, 0), found.grid.shape)


def live(place, case, spacing=None):
    """Return every level of a case as `encode` yields it, without a store."""
    card = read_card(place / "fm.onnx")
    scan = read_scan(ScanSource(case, (place / "scans" / f"{case}.nii.gz",)), unit=card.unit)
    volume = prepare(scan, card.preparation, spacing)
    slabs = {}
    for level, slab in encode(volume, OnnxEncoder(place / "fm.onnx", card, "cpu", 1)):
        slabs.setdefault(level, []).append(slab)
    return volume, {level: np.concatenate(parts, axis=3) for level, parts in slabs.items()}


def test_what_is_stored_is_what_encode_yields_up_to_rounding(place):
    result, log = run(place)
    assert (result.done, result.skipped, result.failed) == (("a", "b", "c"), (), {})
    store = FeatureStore.open(place / "features.zarr")
    assert store.cases() == ["a", "b", "c"]
    for case in "abc":
        volume, expected = live(place, case)
        stored = store.case(case)
        assert stored.info.prepared == volume.grid
        assert np.array_equal(stored.info.native.affine, AFFINE)
        assert (stored.info.codes, stored.info.unit) == ((1, 0), "a.u.")
        for level, features in expected.items():
            assert stored.level(level).grid == level_grid(volume.grid, read_card(place / "fm.onnx"), level)
            found = read(store.path, case, level)
            np.testing.assert_allclose(found, features, rtol=2**-11, atol=2**-24)
            assert not np.array_equal(found, features)  # else this shows nothing
    assert log.kinds("a") == ["start", "windows", "done"]
    windows = [event for event in log if event.kind == "windows"]
    assert [w.count for w in windows] == [sum(e.kind == "window" and e.case == c for e in log) for c in "abc"]
    assert [(w.index, w.total) for w in windows] == [(1, 3), (2, 3), (3, 3)]
    assert not verify(store.path).findings


def test_float32_is_stored_exactly(place):
    run(place, dataclasses.replace(OPTIONS, store_precision="float32"))
    _, expected = live(place, "b")
    assert all(np.array_equal(read(place / "features.zarr", "b", k), v) for k, v in expected.items())


def test_the_spacing_can_be_overridden(place):
    run(place, dataclasses.replace(OPTIONS, spacing=(3.0, 3.0, 3.0), store_precision="float32"))
    volume, expected = live(place, "a", (3.0, 3.0, 3.0))
    store = FeatureStore.open(place / "features.zarr")
    assert store.case("a").info.prepared == volume.grid
    assert store.root.recipe["spacing"] == [3.0, 3.0, 3.0]
    assert np.array_equal(read(store.path, "a", "l2"), expected["l2"])


def test_the_encoders_head_is_recovered_once(place, fakes):
    _, log = run(place)
    assert sum("head was recovered" in event.text for event in log) == 1
    head = LinearHead.from_json(FeatureStore.open(place / "features.zarr").root.head)
    np.testing.assert_allclose(head.weights, fakes.conv_weights()["w4"][:, :, 0, 0, 0], atol=1e-4)
    assert (head.level, head.classes) == ("l2", fakes.CLASSES)


def test_a_head_that_got_lost_is_recovered_from_one_case(place):
    run(place)
    root = FeatureStore.open(place / "features.zarr").root
    with StoreWriter.open(place / "features.zarr", root) as writer:
        writer.set_head(None)
    result, _ = run(place)
    assert (result.done, result.skipped) == (("a",), ("b", "c"))
    assert FeatureStore.open(place / "features.zarr").root.head == root.head


def test_complete_cases_are_skipped_without_an_encoder(place):
    run(place)
    before = digests(place / "features.zarr")
    result, log = run(place)
    assert (result.done, result.skipped) == ((), ("a", "b", "c"))
    assert log.encoded() == []
    assert log.kinds("a") == ["skip"]
    assert digests(place / "features.zarr") == before


def test_new_scans_are_added_and_moved_ones_are_known(place, fakes):
    run(place)
    fakes.write_scan(place / "scans" / "d.nii.gz", voxels_of(9), AFFINE)
    shutil.move(place / "scans", place / "elsewhere")
    os.utime(place / "elsewhere" / "a.nii.gz")
    result = extract(place / "fm.onnx", place / "elsewhere", place / "features.zarr", options=OPTIONS)
    assert (result.done, result.skipped) == (("d",), ("a", "b", "c"))


def test_a_changed_source_is_done_again(place, fakes):
    run(place)
    fakes.write_scan(place / "scans" / "b.nii.gz", voxels_of(77), AFFINE)
    result, log = run(place)
    assert (result.done, result.skipped) == (("b",), ("a", "c"))
    assert len(log.encoded()) == 1
    _, expected = live(place, "b")
    np.testing.assert_allclose(
        read(place / "features.zarr", "b", "l1"), expected["l1"], rtol=2**-11, atol=2**-24
    )
    assert not verify(place / "features.zarr").findings


def test_a_damaged_case_is_done_again(place):
    run(place)
    (place / "features.zarr" / "cases" / "b" / "zarr.json").write_text("{")
    result, _ = run(place)
    assert (result.done, result.skipped) == (("b",), ("a", "c"))
    assert not verify(place / "features.zarr").findings


def test_a_store_without_its_private_file_is_done_again(place):
    run(place)
    (place / "features.private.json").unlink()
    assert run(place)[0].done == ("a", "b", "c")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"spacing": (3.0, 3.0, 3.0)}, "spacing: found [2.0, 1.5, 2.0], asked for [3.0, 3.0, 3.0]"),
        ({"store_precision": "float32"}, 'store_precision: found "float16", asked for "float32"'),
        ({"nan_to": 0.0}, "nan_to: found null, asked for 0.0"),
    ],
)
def test_another_recipe_is_refused_and_the_difference_named(place, change, named):
    run(place)
    before = digests(place / "features.zarr")
    with pytest.raises(StaleFeatures, match="another recipe") as caught:
        run(place, dataclasses.replace(OPTIONS, **change))
    # What differs stands in parentheses, and nothing else.
    assert f"({named});" in str(caught.value)
    assert digests(place / "features.zarr") == before


def test_devices_and_threads_are_no_part_of_the_recipe(place):
    run(place)
    assert run(place, ExtractOptions(device="cpu", threads=2, assume_hu=True, annotated="present"))[
        0
    ].skipped == (
        "a",
        "b",
        "c",
    )


def test_another_encoder_is_refused(place, fakes):
    run(place)
    fakes.conv_encoder(place / "fm.onnx", seed=1, preparation=PREPARATION)
    with pytest.raises(StaleFeatures, match=r"another encoder.*the model itself differs"):
        run(place)
    card = fakes.conv_encoder(place / "fm.onnx", preparation=PREPARATION)
    write_card(place / "fm.onnx", dataclasses.replace(card, version="2"))
    with pytest.raises(StaleFeatures, match="another encoder") as caught:
        run(place)
    assert '(version: found "1", asked for "2");' in str(caught.value)


def test_a_model_without_a_card_makes_no_store(place, fakes):
    model = onnx.load(place / "fm.onnx")
    del model.metadata_props[:]
    onnx.save(model, place / "fm.onnx")
    with pytest.raises(CardError, match="no encoder card"):
        run(place)
    assert not (place / "features.zarr").exists()


def break_scan(place, kind, fakes):
    path = place / "scans" / "b.nii.gz"
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "nan":
        voxels = voxels_of(1).astype(np.float32)
        voxels[3, 3, 3] = np.nan
        fakes.write_scan(path, voxels, AFFINE)
    elif kind == "4d":
        fakes.write_scan(path, np.stack([voxels_of(1)] * 2, axis=3), AFFINE)
    else:
        fakes.write_scan(path, np.zeros((9, 9, 9), np.int16), AFFINE)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("truncated", "b.nii.gz"), ("nan", "NaN"), ("4d", "b.nii.gz"), ("empty", "empty foreground")],
)
def test_one_bad_scan_fails_alone(place, fakes, kind, message):
    break_scan(place, kind, fakes)
    result, log = run(place)
    assert (result.done, list(result.failed)) == (("a", "c"), ["b"])
    assert message in result.failed["b"]
    assert "b.nii.gz" in result.failed["b"]
    assert log.kinds("b") == ["start", "fail"]
    assert FeatureStore.open(place / "features.zarr").cases() == ["a", "c"]
    assert not verify(place / "features.zarr").findings
    fakes.write_scan(place / "scans" / "b.nii.gz", voxels_of(1), AFFINE)
    assert run(place)[0].done == ("b",)


def test_nan_can_be_replaced(place, fakes):
    break_scan(place, "nan", fakes)
    assert run(place, dataclasses.replace(OPTIONS, nan_to=0.0))[0].failed == {}


def test_all_may_fail(place, fakes):
    for case in "abc":
        (place / "scans" / f"{case}.nii.gz").write_bytes(b"")
    result, _ = run(place)
    assert (result.done, set(result.failed)) == ((), {"a", "b", "c"})
    assert FeatureStore.open(place / "features.zarr").cases() == []


def test_no_scans_at_all_is_an_error(place):
    shutil.rmtree(place / "scans")
    (place / "scans").mkdir()
    with pytest.raises(ScanReadError, match="scans"):
        run(place)


def test_a_ct_that_is_not_in_hounsfield_fails_unless_assumed(place, fakes):
    fakes.conv_encoder(place / "fm.onnx", preparation=PREPARATION, modality="CT")
    result, _ = run(place)
    assert set(result.failed) == {"a", "b", "c"}
    assert "Hounsfield" in result.failed["a"]
    assert run(place, dataclasses.replace(OPTIONS, assume_hu=True))[0].done == ("a", "b", "c")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "case b, level features, .*: 1 NaN and 0 infinite of"),
        (1e6, "case b, .*1 of .*beyond float16's"),
    ],
)
def test_features_that_cannot_be_stored_fail_their_case(place, fakes, value, message):
    fakes.faulty_encoder(place / "fm.onnx", value)
    bright = voxels_of(1)
    bright[5, 5, 5] = 200
    fakes.write_scan(place / "scans" / "b.nii.gz", bright, AFFINE)
    result, _ = run(place)
    assert (result.done, list(result.failed)) == (("a", "c"), ["b"])
    assert re.search(message, result.failed["b"])
    assert not verify(place / "features.zarr").findings
    again = extract(
        place / "fm.onnx",
        place / "scans",
        place / "other.zarr",
        options=dataclasses.replace(OPTIONS, store_precision="float32"),
    )
    # float32 holds 1e6 and nothing holds NaN.
    assert list(again.failed) == (["b"] if np.isnan(value) else [])
    if not np.isnan(value):
        assert read(place / "other.zarr", "b", "features").max() == np.float32(1e6)


def test_a_head_that_is_none_stops_the_run(place, fakes):
    fakes.conv_encoder(place / "fm.onnx", head="nonlinear", preparation=PREPARATION)
    with pytest.raises(EncoderError, match="no linear function"):
        run(place)
    assert FeatureStore.open(place / "features.zarr").cases() == []


def test_an_encoder_that_is_not_as_its_card_stops_the_run(place, fakes):
    card = fakes.conv_encoder(place / "fm.onnx", preparation=PREPARATION)
    wrong = dataclasses.replace(card.outputs[0], channels=5)
    write_card(place / "fm.onnx", dataclasses.replace(card, outputs=(wrong, *card.outputs[1:])))
    with pytest.raises(EncoderError, match="'l1'"):
        run(place)


def test_a_scan_that_the_encoder_refuses_fails_alone_once_others_passed(place, fakes):
    """A dynamic encoder that says no to small windows, which its card does not mention."""
    node = helper.make_node("Slice", ["image", "from", "to", "axes"], ["part"])
    add = helper.make_node("Add", ["part", "twelve"], ["check"])
    keep = helper.make_node("Identity", ["image"], ["features"])
    weights = {
        "from": np.int64([0]),
        "to": np.int64([12]),
        "axes": np.int64([2]),
        "twelve": np.zeros((1, 1, 12, 1, 1), np.float32),
    }
    fakes.save_model(place / "fm.onnx", [node, add, keep], {"features": 1, "check": 1}, weights)
    levels = [Output("features", 1, (1, 1, 1), (0, 0, 0)), Output("check", 1, (1, 1, 1), (0, 0, 0))]
    card = fakes.make_card(levels, input=EncoderInput("image", (12, 12, 12), True), blending=Blending("halo"))
    write_card(place / "fm.onnx", card)
    fakes.write_scan(place / "scans" / "b.nii.gz", voxels_of(1, (9, 9, 7)), AFFINE)
    result, _ = run(place)
    assert (result.done, list(result.failed)) == (("a", "c"), ["b"])
    assert "failed on a window of" in result.failed["b"]


def test_a_scan_smaller_than_a_window_is_padded(place, fakes):
    path = place / "fm.onnx"
    fakes.conv_encoder(
        path, head="none", preparation=PREPARATION, input=EncoderInput("image", (64, 64, 64), False)
    )
    options = dataclasses.replace(OPTIONS, store_precision="float32")
    assert run(place, options)[0].failed == {}
    volume, expected = live(place, "a")
    assert max(volume.grid.shape) < 64
    assert np.array_equal(read(place / "features.zarr", "a", "l3"), expected["l3"])
    assert expected["l3"].shape[1] == -(-volume.grid.shape[0] // 4)


def label_files(place, fakes, cases="ab", values=(1, 2)):
    for seed, case in enumerate(cases):
        label = np.random.default_rng(seed).choice([0, *values], (20, 14, 17)).astype(np.uint8)
        fakes.write_scan(place / "labels" / f"{case}.nii.gz", label, AFFINE)


def test_labels_are_found_and_kept_on_the_scans_grid(place, fakes):
    label_files(place, fakes)
    (place / "labels" / "labels.json").write_text(json.dumps({"liver": 1, "spleen": 2}))
    result, _ = run(place, labels=place / "labels")
    assert (result.labelled, result.failed) == (("a", "b"), {})
    labels = FeatureStore.open(place / "features.zarr").case("a").labels()
    assert np.array_equal(labels.grid.affine, AFFINE)
    expected = np.random.default_rng(0).choice([0, 1, 2], (20, 14, 17))
    assert np.array_equal(labels.read(), expected)


@pytest.mark.parametrize("how", ["extract", "add_labels"])
def test_labels_added_later_leave_features_alone(place, fakes, how):
    run(place)
    before = digests(place / "features.zarr" / "cases")
    label_files(place, fakes)

    def add():
        if how == "extract":
            result, log = run(place, labels=place / "labels")
            assert log.encoded() == []
            return result
        return add_labels(place / "features.zarr", place / "scans", place / "labels")

    assert add().labelled == ("a", "b")
    assert digests(place / "features.zarr" / "cases") == before
    written = digests(place / "features.zarr" / "labels")
    assert add().labelled == ()
    assert digests(place / "features.zarr" / "labels") == written
    label_files(place, fakes, values=(1, 3))
    assert add().labelled == ("a", "b")
    assert digests(place / "features.zarr" / "cases") == before
    assert FeatureStore.open(place / "features.zarr").case("a").labels().classes == {"1": 1, "3": 3}
    assert not verify(place / "features.zarr").findings


def test_labels_follow_a_scan_whose_affine_was_corrected(place, fakes):
    """Voxels as before, elsewhere: features and labels both have to move."""
    label_files(place, fakes)
    run(place, labels=place / "labels")
    for folder in ("scans", "labels"):
        for path in (place / folder).glob("*.nii.gz"):
            image = nib.load(path)
            voxels, affine = np.asarray(image.dataobj), image.affine.copy()
            affine[:3, 3] += 18
            fakes.write_scan(path, voxels, affine)
    result, _ = run(place, labels=place / "labels")
    assert result.labelled == ("a", "b")
    for name in ("a", "b"):
        case = FeatureStore.open(place / "features.zarr").case(name)
        assert case.labels().grid == case.info.native


def test_a_store_is_not_made_inside_of_a_store(place):
    run(place)
    with pytest.raises(StoreError, match=r"inner.*lies inside of the store.*features.zarr"):
        extract(place / "fm.onnx", place / "scans", place / "features.zarr" / "inner")
    assert not verify(place / "features.zarr").findings


def test_labels_that_do_not_fit_fail_their_case_and_keep_its_features(place, fakes):
    label_files(place, fakes)
    fakes.write_scan(place / "labels" / "a.nii.gz", np.ones((20, 14, 16), np.uint8), AFFINE)
    result, _ = run(place, labels=place / "labels")
    assert list(result.failed) == ["a"]
    assert "shape" in result.failed["a"]
    assert result.labelled == ("b",)
    assert FeatureStore.open(place / "features.zarr").cases() == ["a", "b", "c"]


def test_labels_of_a_scan_that_was_not_extracted_are_refused(place, fakes):
    run(place)
    fakes.write_scan(place / "scans" / "d.nii.gz", voxels_of(9), AFFINE)
    label_files(place, fakes, "ad")
    result = add_labels(place / "features.zarr", place / "scans", place / "labels")
    assert (result.labelled, list(result.failed)) == (("a",), ["d"])
    assert "extract it first" in result.failed["d"]
    shutil.rmtree(place / "labels")
    with pytest.raises(ScanReadError, match="no labels found"):
        add_labels(place / "features.zarr", place / "scans")


def test_no_path_and_no_digest_of_a_source_enters_the_store(place, fakes):
    label_files(place, fakes)
    run(place, labels=place / "labels")
    secrets = [str(place).encode(), b"nii.gz"]
    secrets += [hashlib.sha256(p.read_bytes()).hexdigest().encode() for p in (place / "scans").iterdir()]
    for path in (place / "features.zarr").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [s for s in secrets if s in content], path
    assert str(place) in (place / "features.private.json").read_text()
