"""ONNX files as bytes: cards in and beside them, fingerprints, damage."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from featcache.card import METADATA_KEY
from featcache.encoder_tools import attach
from featcache.errors import CardError, EncoderError
from featcache.onnxfile import card_path, encoder_id, inspect_model, read_card, read_metadata, write_card
from featcache.runtime.onnxruntime import OnnxEncoder


@pytest.fixture
def model(fakes, tmp_path):
    path = tmp_path / "fm.onnx"
    fakes.conv_encoder(path)
    return path


def set_metadata(path, **entries):
    """Write other software's metadata, as onnx itself does it."""
    loaded = onnx.load(path, load_external_data=False)
    for key, value in entries.items():
        loaded.metadata_props.add(key=key, value=value)
    onnx.save(loaded, path)


def without_card(path):
    loaded = onnx.load(path)
    del loaded.metadata_props[:]
    onnx.save(loaded, path)
    return path


def test_the_model_is_inspected_without_a_session(model):
    info = inspect_model(model)
    assert [(i.name, i.shape) for i in info.inputs] == [("image", (1, 1, "x", "y", "z"))]
    assert [o.name for o in info.outputs] == ["l1", "l2", "l3", "logits"]
    assert info.outputs[0].shape[:2] == (1, 4)
    assert (info.opset, info.external_files) == (17, ())


def test_a_card_written_is_read_back_and_the_model_still_runs(fakes, model):
    set_metadata(model, author="somebody")
    card = fakes.conv_encoder(model.with_name("other.onnx"), version="2")
    window = np.random.default_rng(0).random((1, 16, 16, 16), np.float32)
    before = OnnxEncoder(model, read_card(model), "cpu")(window)
    for _ in range(2):
        write_card(model, card)
    assert read_card(model) == card
    metadata = read_metadata(model)
    assert metadata["author"] == "somebody"
    assert set(metadata) == {"author", METADATA_KEY}
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == metadata
    assert len(onnx.load(model).metadata_props) == 2
    after = OnnxEncoder(model, card, "cpu")(window)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert sorted(p.name for p in model.parent.iterdir()) == ["fm.onnx", "other.onnx"]


def test_a_model_without_a_card_is_refused_with_the_way_to_one(model):
    without_card(model)
    with pytest.raises(CardError, match=r"no encoder card.*featcache encoder template .*fm\.onnx") as caught:
        read_card(model)
    assert "featcache encoder attach" in str(caught.value)
    assert caught.value.path == model


def test_a_card_beside_the_model_counts_and_must_agree(fakes, model):
    card = read_card(model)
    beside = card_path(model)
    assert beside.name == "fm.card.json"
    # Notepad puts a byte order mark before the text.
    beside.write_text(json.dumps(card.to_json()), "utf-8-sig")
    assert read_card(model) == card
    assert read_card(without_card(model)) == card
    attached = attach(model, card)
    assert read_card(model) == attached  # golden values inside, none beside: they agree
    beside.write_text(json.dumps(dataclasses.replace(card, version="2").to_json()))
    with pytest.raises(CardError, match="differs from"):
        read_card(model)
    beside.write_bytes(b"\xff\xfe{}")
    with pytest.raises(CardError, match=r"fm\.card\.json: the card cannot be read"):
        read_card(model)


def test_the_fingerprint_is_that_of_weights_and_card_and_nothing_else(fakes, model):
    card = read_card(model)
    first = encoder_id(model, card)
    assert len(first) == 64
    set_metadata(model, author="somebody")
    assert encoder_id(model, card) == first
    assert encoder_id(without_card(model), card) == first
    attached = attach(model, card)
    assert attached.golden is not None
    assert encoder_id(model, attached) == first
    renamed = model.rename(model.with_name("renamed.onnx"))
    assert encoder_id(renamed, read_card(renamed)) == first
    shifted = dataclasses.replace(card.outputs[1], offset=(0.5, 0.5, 0.5))
    outputs = (card.outputs[0], shifted, card.outputs[2])
    assert encoder_id(renamed, dataclasses.replace(card, outputs=outputs)) != first
    other = model.with_name("other.onnx")
    assert encoder_id(other, fakes.conv_encoder(other, seed=1)) != first


def external(fakes, path, seed):
    card = fakes.conv_encoder(path, seed=seed)
    loaded = onnx.load(path)
    onnx.save_model(
        loaded,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{path.stem}.data",
        size_threshold=16,
    )
    return card


def test_weights_in_another_file_belong_to_the_fingerprint(fakes, tmp_path):
    path = tmp_path / "fm.onnx"
    card = external(fakes, path, seed=0)
    data = tmp_path / "fm.data"
    assert inspect_model(path).external_files == (data,)
    first = encoder_id(path, card)
    write_card(path, dataclasses.replace(card, version="2"))
    assert encoder_id(path, card) == first
    assert OnnxEncoder(path, card, "cpu").device == "cpu"
    content = bytearray(data.read_bytes())
    content[5] ^= 1
    data.write_bytes(content)
    assert encoder_id(path, card) != first
    data.unlink()
    with pytest.raises(EncoderError, match=r"fm\.data: the model's weights lie in this file"):
        encoder_id(path, card)
    with pytest.raises(EncoderError, match=r"fm\.onnx: ONNX Runtime cannot load the model"):
        OnnxEncoder(path, card, "cpu")


def test_a_truncated_file_is_refused_wherever_it_ends(model, tmp_path):
    content = model.read_bytes()
    broken = tmp_path / "broken.onnx"
    for size in [0, 1, 2, 3, 10, *range(20, len(content), len(content) // 40), len(content) - 1]:
        broken.write_bytes(content[:size])
        with pytest.raises(EncoderError, match=r"broken\.onnx: not a"):
            inspect_model(broken)
        if size > 1:
            with pytest.raises((EncoderError, CardError), match=r"broken\.onnx"):
                read_card(broken)


@pytest.mark.parametrize(
    "content", [b"<html>not found</html>", b"\x80\x02}q\x00.", b"\x00" * 100, b"PK\x03\x04"]
)
def test_another_kind_of_file_is_refused(content, tmp_path):
    path = tmp_path / "fm.onnx"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match=r"fm\.onnx: not a"):
        inspect_model(path)


def test_damaged_metadata_is_named(model):
    content = model.read_bytes()
    at = content.index(METADATA_KEY.encode())
    model.write_bytes(content[: at - 2] + b"\xff\xff" + content[at:])
    with pytest.raises(EncoderError, match="metadata is damaged"):
        read_card(model)


def test_a_card_that_cannot_be_written_leaves_nothing_behind(model, tmp_path):
    card = read_card(model)
    content = model.read_bytes()
    model.write_bytes(content[:-100])
    with pytest.raises(EncoderError, match="not a whole ONNX file"):
        write_card(model, card)
    assert [p.name for p in tmp_path.iterdir()] == ["fm.onnx"]


def test_a_missing_file_is_named(tmp_path):
    for function in (inspect_model, read_card):
        with pytest.raises(EncoderError, match=r"none\.onnx: cannot read the model: No such file"):
            function(tmp_path / "none.onnx")
    with pytest.raises(EncoderError, match="cannot read the model"):
        inspect_model(tmp_path)
