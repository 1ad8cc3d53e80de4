"""From a vendor's ONNX file to a card: inspect, template, attach."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from onnx import helper

from featcache.card import FILL_IN, Output
from featcache.card_json import card_from_json, parse_card
from featcache.encoder_tools import attach, probe_model, template
from featcache.errors import CardError, EncoderError
from featcache.onnxfile import read_card

FILLED = {
    "version": "1",
    "licence": "MIT",
    "modality": "CT",
    "preparation.orientation": "RAS",
    "preparation.spacing": [1.5, 1.5, 1.5],
    "preparation.intensity": {"kind": "window", "low": -175, "high": 250, "output": [0, 1]},
    "preparation.crop": None,
    "blending": {"kind": "gaussian"},
    "outputs[1].offset": [0, 0, 0],
    "outputs[2].offset": [0, 0, 0],
    "head.activation": "none",
    "head.classes": ["background", "liver", "spleen"],
}


def fill(document, field, value):
    *parents, last = field.replace("[", ".").replace("]", "").split(".")
    place = document
    for key in parents:
        place = place[int(key) if key.isdigit() else key]
    place[last] = value


@pytest.fixture
def model(fakes, tmp_path):
    path = tmp_path / "fm.onnx"
    fakes.conv_encoder(path)
    return path


def test_a_probe_tells_channels_and_strides(model):
    probe = probe_model(model)
    found = [(o.name, o.channels, o.stride, o.size) for o in probe.outputs]
    assert found == [
        ("l1", 4, (1, 1, 1), "ceil"),
        ("l2", 6, (2, 2, 2), "ceil"),
        ("l3", 8, (4, 4, 2), "ceil"),
        ("logits", 3, (2, 2, 2), "ceil"),
    ]
    assert (probe.dynamic, probe.multiple, probe.window) == (True, (1, 1, 1), (64, 64, 64))


def test_a_fixed_window_is_probed_as_it_is(fakes, tmp_path):
    path = tmp_path / "fm.onnx"
    fakes.conv_encoder(path, size=(32, 32, 16), head="none")
    probe = probe_model(path)
    assert (probe.dynamic, probe.window) == (False, (32, 32, 16))
    assert [o.stride for o in probe.outputs] == [(1, 1, 1), (2, 2, 2), (4, 4, 2)]
    document = template(path)
    assert document["input"] == {
        "name": "image",
        "window": [32, 32, 16],
        "dynamic": False,
        "multiple": [1, 1, 1],
    }
    assert document["head"] is None


def u_net(fakes, path):
    """Write a model that halves, doubles and adds: sizes must be even, and pooling rounds down."""
    nodes = [
        helper.make_node("MaxPool", ["image"], ["low"], kernel_shape=[2] * 3, strides=[2] * 3),
        helper.make_node("Resize", ["low", "", "scales"], ["up"], mode="nearest"),
        helper.make_node("Add", ["up", "image"], ["features"]),
    ]
    fakes.save_model(path, nodes, {"features": 1, "low": 1}, {"scales": np.float32([1, 1, 2, 2, 2])})


def test_what_sizes_must_be_multiples_of_is_found(fakes, tmp_path):
    path = tmp_path / "fm.onnx"
    u_net(fakes, path)
    assert probe_model(path).multiple == (2, 2, 2)


def test_a_model_that_rounds_down_is_noticed(fakes, tmp_path):
    path = tmp_path / "fm.onnx"
    pool = helper.make_node("MaxPool", ["image"], ["low"], kernel_shape=[4, 4, 2], strides=[4, 4, 2])
    fakes.save_model(path, [pool], {"low": 1}, {})
    (output,) = probe_model(path).outputs
    assert (output.stride, output.size) == ((4, 4, 2), "floor")


def test_the_template_marks_all_that_a_person_must_add(model):
    document = json.loads(json.dumps(template(model)))
    assert document["outputs"][0]["offset"] == [0.0, 0.0, 0.0]
    assert document["input"]["window"] == [128, 128, 128]
    assert "[0.5, 0.5, 0.5]" in document["outputs"][1]["offset"]
    assert (document["head"]["output"], document["head"]["level"]) == ("logits", "l2")
    with pytest.raises(CardError) as caught:
        parse_card(json.dumps(document), "fm.card.json")
    listed = str(caught.value).split("person: ")[1].split(", ")
    assert listed == sorted(FILLED)


def test_a_filled_template_is_a_card_and_every_gap_is_named(model):
    document = template(model)
    for field, value in FILLED.items():
        fill(document, field, value)
    card = card_from_json(document)
    assert card.outputs[2] == Output("l3", 8, (4, 4, 2), (0, 0, 0))
    assert attach(model, card) == read_card(model)
    for field in FILLED:
        gap = json.loads(json.dumps(document))
        fill(gap, field, f"{FILL_IN}: something")
        with pytest.raises(CardError, match="filled in by a person: ") as caught:
            card_from_json(gap)
        assert str(caught.value).endswith(f": {field}")


def test_attach_adds_golden_values_and_writes_nothing_if_the_model_contradicts(model):
    card = read_card(model)
    attached = attach(model, card)
    assert attached.golden is not None
    assert set(attached.golden.values) == {"l1", "l2", "l3"}
    assert read_card(model) == attached
    assert attach(model, attached) == attached
    assert attach(model, card, golden=False).golden is None
    content = model.read_bytes()
    wrong = dataclasses.replace(card.outputs[0], channels=5)
    with pytest.raises(EncoderError, match="expected"):
        attach(model, dataclasses.replace(card, outputs=(wrong, *card.outputs[1:])))
    assert model.read_bytes() == content


def test_attach_refuses_a_model_that_yields_nan(fakes, tmp_path):
    path = tmp_path / "fm.onnx"
    card = fakes.faulty_encoder(path, float("nan"), above=0.5)
    with pytest.raises(EncoderError, match=r"output 'features' holds NaN or infinite values"):
        attach(path, card)


def identity(fakes, path, size, op="Identity"):
    node = helper.make_node(op, ["image"], ["features"])
    fakes.save_model(path, [node], {"features": 1}, {}, size)


def test_a_model_that_is_no_encoder_of_volumes_is_refused(fakes, tmp_path):
    path = tmp_path / "fm.onnx"
    identity(fakes, path, ("y", "z"))
    with pytest.raises(EncoderError, match=r"expected one input of rank 5"):
        probe_model(path)
    for op in ("GlobalAveragePool", "Flatten"):
        identity(fakes, path, ("x", "y", "z"), op)
        with pytest.raises(EncoderError, match=r"fm\.onnx: .*expected a dense output of rank 5"):
            probe_model(path)


def test_a_pooled_vector_beside_dense_levels_is_left_out(fakes, tmp_path):
    path = tmp_path / "fm.onnx"
    nodes = [
        helper.make_node("Relu", ["image"], ["features"]),
        helper.make_node("GlobalAveragePool", ["image"], ["embedding"]),
    ]
    fakes.save_model(path, nodes, {"features": 1, "embedding": 1}, {})
    assert [o.name for o in probe_model(path).outputs] == ["features"]


def test_a_model_that_no_window_passes_is_refused(fakes, tmp_path):
    path = tmp_path / "fm.onnx"
    reshape = helper.make_node("Reshape", ["image", "shape"], ["features"])
    fakes.save_model(path, [reshape], {"features": 1}, {"shape": np.int64([1, 1, 7, 7, 7])})
    with pytest.raises(EncoderError, match=r"no probe window of .* passed"):
        probe_model(path)
