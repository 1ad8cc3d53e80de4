"""OpenVINO computes the same as ONNX Runtime, and refuses what it cannot do."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from featcache.encoder_tools import attach
from featcache.errors import EncoderError
from featcache.extraction import ExtractOptions, extract
from featcache.runtime import open_encoder
from featcache.store import FeatureStore

sys.modules.setdefault("openvino_telemetry", None)  # it tells its makers of every import
openvino = pytest.importorskip("openvino")
BFLOAT16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
needs_bfloat16 = pytest.mark.skipif(not BFLOAT16, reason="this CPU has no bfloat16")


@pytest.fixture
def model(fakes, tmp_path):
    path = tmp_path / "fm.onnx"
    return path, attach(path, fakes.conv_encoder(path))


def windows():
    random = np.random.default_rng(0)
    return [random.random((1, *shape), np.float32) for shape in ((16, 12, 8), (9, 9, 9), (16, 12, 8))]


def largest_difference(found, expected):
    assert found.keys() == expected.keys()
    return max(float(np.abs(found[name] - expected[name]).max() / expected[name].std()) for name in expected)


def test_it_computes_the_same_window_by_window(model):
    ours, theirs = open_encoder(*model), open_encoder(*model, runtime="openvino")
    found = [theirs(w) for w in windows()]  # a later window must not change what an earlier one gave
    for window, values in zip(windows(), found, strict=True):
        assert largest_difference(values, ours(window)) < 1e-4
    assert all(v.dtype == np.float32 for v in found[0].values())


@needs_bfloat16
def test_bfloat16_differs_a_little(model):
    ours, theirs = open_encoder(*model), open_encoder(*model, runtime="openvino", precision="bfloat16")
    assert 1e-4 < largest_difference(theirs(windows()[0]), ours(windows()[0])) < 0.1


def test_options_that_do_not_go_together(model, monkeypatch):
    with pytest.raises(EncoderError, match="--runtime openvino computes on the CPU; found --device cuda"):
        open_encoder(*model, runtime="openvino", device="cuda")
    with pytest.raises(EncoderError, match=r"bfloat16: ONNX Runtime .* expected --runtime openvino"):
        open_encoder(*model, precision="bfloat16")
    old = SimpleNamespace(get_property=lambda device, name: ["FP32"])
    monkeypatch.setattr(openvino, "Core", lambda: old)
    with pytest.raises(EncoderError, match="this CPU has no bfloat16"):
        open_encoder(*model, runtime="openvino", precision="bfloat16")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        EncoderError, match=r"not installed; install featcache with its extra, featcache\[openvino\]"
    ):
        open_encoder(*model, runtime="openvino")


def test_nothing_is_reported_to_anybody():
    code = (
        "import sys; from pathlib import Path; from featcache.runtime.openvino import _openvino;"
        "_openvino(Path('x')).Core(); print([m for m in sys.modules if 'openvino_telemetry.' in m])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_what_is_no_model_is_refused(model):
    path, card = model
    bad = path.with_name("bad.onnx")
    bad.write_bytes(b"nothing")
    with pytest.raises(EncoderError, match=r"bad\.onnx: OpenVINO cannot load the model"):
        open_encoder(bad, card, runtime="openvino")


@pytest.fixture
def scans(fakes, tmp_path):
    for name in ("a", "b"):
        voxels = np.random.default_rng(ord(name)).normal(size=(14, 12, 16)).astype(np.float32)
        fakes.write_scan(tmp_path / "scans" / f"{name}.nii.gz", voxels)
    return tmp_path / "scans"


def test_float32_features_go_on_in_a_store_of_the_other_runtime(model, scans, tmp_path):
    store = tmp_path / "features.zarr"
    extract(model[0], scans / "a.nii.gz", store)
    extract(model[0], scans, store, options=ExtractOptions(runtime="openvino"))
    assert FeatureStore.open(store).cases() == ["a", "b"]


@needs_bfloat16
def test_what_bfloat16_costs_is_measured_once_and_recorded(model, scans, tmp_path):
    options = ExtractOptions(runtime="openvino", compute_precision="bfloat16")
    extract(model[0], scans, tmp_path / "features.zarr", options=options)
    store = FeatureStore.open(tmp_path / "features.zarr")
    assert store.root.recipe["compute_precision"] == "bfloat16"
    steps = [store.case(case).info.steps[-1] for case in store.cases()]
    assert steps[0].startswith("encoded in bfloat16; against float32 on ")
    assert all(f"{name} 0.0" in steps[0] for name in store.case("a").levels)
    assert steps[1] == "encoded in bfloat16"
