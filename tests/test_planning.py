"""A plan against what the extraction of the same arguments then really does."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from featcache import planning, scouting, trial
from featcache.card import Blending, Crop, EncoderInput, Intensity, Preparation
from featcache.errors import StaleFeatures
from featcache.extraction import ExtractOptions, extract
from featcache.planning import plan
from featcache.store import FeatureStore

pytestmark = pytest.mark.usefixtures("_no_waiting_for_the_disk")
OPTIONS = ExtractOptions(device="cpu", threads=1)
AFFINE = np.diag([-1.0, 1.5, 2.0, 1.0])
AS_IT_IS = Intensity("window", 0, 100, (0, 1))


def body(seed, shape, air=0.3):
    """Return noise in a box, with constant air around."""
    voxels = np.zeros(shape, np.int16)
    inside = tuple(slice(int(n * air / 2), n - int(n * air / 2)) for n in shape)
    size = [s.stop - s.start for s in inside]
    voxels[inside] = np.random.default_rng(seed).integers(10, 100, size)
    return voxels


@pytest.fixture
def place(fakes, tmp_path):
    """Return a folder with scans of different sizes in scans/."""
    shapes = {"a": ((64, 50, 44), 0.25), "b": ((80, 60, 70), 0.35), "c": ((70, 70, 40), 0.3)}
    for seed, (case, (shape, air)) in enumerate(shapes.items()):
        fakes.write_scan(tmp_path / "scans" / f"{case}.nii.gz", body(seed, shape, air), AFFINE)
    return tmp_path


def planned(place, options=OPTIONS, **more):
    return plan(place / "fm.onnx", place / "scans", place / "features.zarr", options=options, **more)


def extracted(place, options=OPTIONS):
    """Return windows and bytes, by case, of a real extraction."""
    windows, counts = {}, {}

    def listen(event):
        if event.kind == "window":
            windows[event.case] = windows.get(event.case, 0) + 1

    result = extract(
        place / "fm.onnx", place / "scans", place / "features.zarr", options=options, on_event=listen
    )
    for case in result.done:
        folder = place / "features.zarr" / "cases" / case / "features"
        counts[case] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return result, windows, counts


def reads(monkeypatch):
    """Return the list in which every reading of a scan's voxels is noted."""
    read, load = [], scouting.load
    monkeypatch.setattr(
        scouting, "load", lambda source, *rest: read.append(source.case) or load(source, *rest)
    )
    return read


PLAIN = {
    "input": EncoderInput("image", (48, 48, 48), True),
    "preparation": Preparation("RAS", None, AS_IT_IS),
}
KINDS = {
    "as it is": {},
    "cropped": {"preparation": Preparation("RAS", None, AS_IT_IS, Crop(5, 2))},
    "cropped, LIA, resampled": {"preparation": Preparation("LIA", (1.2, 1.4, 1.6), AS_IT_IS, Crop(5, 2))},
    "gaussian": {"blending": Blending("gaussian", overlap=0.5)},
    "one window": {"input": EncoderInput("image", (96, 96, 96), True)},
    "fixed windows": {"input": EncoderInput("image", (48, 48, 48), False)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_windows_are_exact_and_bytes_nearly(place, fakes, kind):
    fakes.conv_encoder(place / "fm.onnx", head="none", **(PLAIN | KINDS[kind]))
    found = planned(place)
    result, windows, counts = extracted(place)
    assert result.done == ("a", "b", "c")
    assert {case.case: case.windows for case in found.cases} == windows
    assert found.windows == sum(windows.values())
    for case in found.cases:
        assert case.bytes == pytest.approx(counts[case.case], rel=0.15), case.case
    assert found.bytes == pytest.approx(sum(counts.values()), rel=0.1)
    assert not found.upper_bound


@pytest.mark.parametrize("name", ["float16-m4", "int6"])
def test_fewer_bits_take_less(place, fakes, name):
    fakes.conv_encoder(place / "fm.onnx", head="none", **PLAIN)
    few = dataclasses.replace(OPTIONS, store_precision=name)
    found = planned(place, few)
    assert found.bytes < 0.75 * planned(place).bytes
    assert found.bytes == pytest.approx(sum(extracted(place, few)[2].values()), rel=0.15)


def test_float32_takes_more(place, fakes):
    fakes.conv_encoder(place / "fm.onnx", head="none", **PLAIN)
    wide = dataclasses.replace(OPTIONS, store_precision="float32")
    found = planned(place, wide)
    assert found.bytes > 1.5 * planned(place).bytes
    assert found.bytes == pytest.approx(sum(extracted(place, wide)[2].values()), rel=0.1)


def test_complete_cases_do_not_count_and_need_no_encoder(place, fakes, monkeypatch):
    fakes.conv_encoder(place / "fm.onnx")
    fresh = planned(place)
    extracted(place)
    fakes.write_scan(place / "scans" / "b.nii.gz", body(9, (40, 40, 40)), AFFINE)
    found = planned(place)
    assert [case.state for case in found.cases] == ["done", "todo", "done"]
    assert [case.windows > 0 for case in found.cases] == [False, True, False]
    assert found.sample == "b"
    assert 0 < found.bytes < fresh.bytes
    extracted(place)
    monkeypatch.setattr("featcache.extraction.open_encoder", None)
    nothing = planned(place)
    assert (nothing.windows, nothing.bytes, nothing.seconds, nothing.device) == (0, 0, 0.0, "")
    assert nothing.fits


def test_a_lost_head_costs_one_case(place, fakes):
    from featcache.store import StoreWriter

    fakes.conv_encoder(place / "fm.onnx")
    extracted(place)
    with StoreWriter.open(place / "features.zarr", FeatureStore.open(place / "features.zarr").root) as writer:
        writer.set_head(None)
    found = planned(place)
    assert [case.case for case in found.cases if case.state == "todo"] == ["a"]
    assert extracted(place)[0].done == ("a",)


@pytest.mark.parametrize("crop", [None, Crop(5, 2)])
def test_scans_that_would_fail_are_named_as_the_run_names_them(place, fakes, crop):
    fakes.conv_encoder(place / "fm.onnx", preparation=Preparation("RAS", None, AS_IT_IS, crop))
    (place / "scans" / "a.nii.gz").write_bytes(b"nothing")
    if crop is not None:
        fakes.write_scan(place / "scans" / "b.nii.gz", np.zeros((9, 9, 9), np.int16), AFFINE)
    found = planned(place)
    failed = extracted(place)[0].failed
    assert {case.case: case.problem for case in found.cases if case.state == "unfit"} == failed
    assert len(failed) == (1 if crop is None else 2)
    assert found.windows > 0


def test_all_may_be_unfit(place, fakes):
    fakes.conv_encoder(place / "fm.onnx")
    for path in (place / "scans").iterdir():
        path.write_bytes(b"")
    found = planned(place)
    assert {case.state for case in found.cases} == {"unfit"}
    assert (found.windows, found.device) == (0, "")


def test_quick_reads_a_few_scans_and_is_an_upper_bound(place, fakes, monkeypatch):
    fakes.conv_encoder(
        place / "fm.onnx", head="none", preparation=Preparation("RAS", None, AS_IT_IS, Crop(5, 0))
    )
    for number in range(12):
        fakes.write_scan(place / "scans" / f"d{number}.nii.gz", body(number, (30, 30, 30)), AFFINE)
    read = reads(monkeypatch)
    exact = planned(place)
    assert len(set(read)) == 15
    read.clear()
    quick = planned(place, quick=True)
    assert len(read) == 5 + 1
    assert quick.upper_bound
    assert not exact.upper_bound
    for bound, case in zip(quick.cases, exact.cases, strict=True):
        assert bound.windows >= case.windows
    assert quick.windows > exact.windows
    assert quick.bytes > exact.bytes


def test_without_a_crop_headers_and_a_few_scans_are_enough(place, fakes, monkeypatch):
    fakes.conv_encoder(place / "fm.onnx", head="none", **PLAIN)
    for number in range(9):
        shape = (40 + number, 36, 44)
        fakes.write_scan(place / "scans" / f"d{number}.nii.gz", body(number, shape), AFFINE)
    read = reads(monkeypatch)
    found = planned(place)
    assert len(set(read)) == 4
    assert planned(place, quick=True).windows == found.windows
    assert not planned(place, quick=True).upper_bound
    _, windows, counts = extracted(place)
    assert {case.case: case.windows for case in found.cases} == windows
    assert found.bytes == pytest.approx(sum(counts.values()), rel=0.1)


def test_of_scans_whose_voxels_are_damaged_others_tell(place, fakes):
    """Headers are whole, so only the few that are read can show it; one that is whole is found all the same."""
    fakes.conv_encoder(place / "fm.onnx", head="none", **PLAIN)
    for case in "bc":
        path = place / "scans" / f"{case}.nii.gz"
        path.write_bytes(path.read_bytes()[:-40])
    found = planned(place)
    assert found.sample == "a"
    assert found.bytes > 0


def test_nothing_is_written(place, fakes):
    fakes.conv_encoder(place / "fm.onnx")
    before = sorted(place.rglob("*"))
    planned(place)
    assert sorted(place.rglob("*")) == before


def test_another_recipe_is_refused_as_by_the_run(place, fakes):
    fakes.conv_encoder(place / "fm.onnx")
    extracted(place)
    with pytest.raises(StaleFeatures, match="another recipe"):
        planned(place, dataclasses.replace(OPTIONS, store_precision="float32"))


def test_a_full_disk_does_not_fit(place, fakes, monkeypatch):
    fakes.conv_encoder(place / "fm.onnx")
    found = planned(place)
    assert found.fits
    monkeypatch.setattr(planning, "free_bytes", lambda out: found.bytes // 2)
    assert not planned(place).fits


def test_the_plan_as_json(place, fakes):
    fakes.conv_encoder(place / "fm.onnx")
    found = planned(place)
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["windows"] == sum(case["windows"] for case in document["cases"])
    assert document["memory"] == max(case["memory"] for case in document["cases"])
    assert document["seconds"] > sum(case["seconds"] for case in document["cases"]) > 0
    assert document["store"] == str(place / "features.zarr")


def test_memory_grows_with_what_is_held(place, fakes, monkeypatch):
    """With the same peak of a window, a wider scan needs more for stitching; where no peak is known, none is told."""
    fakes.conv_encoder(place / "fm.onnx")
    monkeypatch.setattr(trial, "resident_bytes", lambda: 10**8)
    monkeypatch.setattr(trial, "peak_bytes", lambda: 2 * 10**8)
    found = {case.case: case.memory for case in planned(place).cases}
    assert found["b"] > found["a"] > 2 * 10**8
    monkeypatch.setattr(trial, "peak_bytes", lambda: None)
    unknown = planned(place)
    assert unknown.memory is None
    assert {case.memory for case in unknown.cases} == {None}


def test_progress_is_told(place, fakes):
    fakes.conv_encoder(place / "fm.onnx")
    told = []
    planned(place, on_scan=lambda *step: told.append(step))
    assert told == [(0, 3, "a"), (1, 3, "b"), (2, 3, "c")]
