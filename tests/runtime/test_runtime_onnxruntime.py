"""The ONNX Runtime session: what it checks before and at every window."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from featcache.card import Golden
from featcache.encoder_tools import attach
from featcache.errors import EncoderError
from featcache.runtime.devices import cuda_device_count
from featcache.runtime.encoder import golden_input, golden_values
from featcache.runtime.onnxruntime import OnnxEncoder, create_session


@pytest.fixture
def model(fakes, tmp_path):
    path = tmp_path / "fm.onnx"
    return path, fakes.conv_encoder(path)


def window(*shape, seed=0):
    return np.random.default_rng(seed).random((1, *shape), np.float32)


def replace_output(card, index, **changes):
    outputs = list(card.outputs)
    outputs[index] = dataclasses.replace(outputs[index], **changes)
    return dataclasses.replace(card, outputs=tuple(outputs))


def test_every_level_and_the_heads_output_come_out(model):
    path, card = model
    encoder = OnnxEncoder(path, card, "cpu", 1)
    found = encoder(window(16, 12, 8))
    shapes = {name: value.shape for name, value in found.items()}
    assert shapes == {"l1": (4, 16, 12, 8), "l2": (6, 8, 6, 4), "l3": (8, 4, 3, 4), "logits": (3, 8, 6, 4)}
    assert all(value.dtype == np.float32 for value in found.values())
    assert encoder.device == "cpu"


def test_odd_sizes_follow_the_size_rule(model):
    path, card = model
    assert OnnxEncoder(path, card, "cpu")(window(9, 9, 9))["l3"].shape == (8, 3, 3, 5)
    floor = replace_output(card, 2, size="floor")
    with pytest.raises(
        EncoderError, match=r"'l3' .* has the shape \(1, 8, 3, 3, 5\); expected \(1, 8, 2, 2, 4\)"
    ):
        OnnxEncoder(path, floor, "cpu")(window(9, 9, 9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: replace_output(c, 1, channels=7),
            r"'l2' .* has the shape \(1, 6, 8, 8, 8\); expected \(1, 7,",
        ),
        (lambda c: replace_output(c, 1, stride=(4, 4, 4)), r"expected \(1, 6, 4, 4, 4\)"),
    ],
)
def test_an_output_that_is_not_as_the_card_says_is_named(model, change, message):
    path, card = model
    encoder = OnnxEncoder(path, change(card), "cpu", 1)
    with pytest.raises(EncoderError, match=message) as caught:
        encoder(window(16, 16, 16))
    assert "featcache encoder inspect" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: replace_output(c, 0, name="l9"),
        lambda c: dataclasses.replace(c, input=dataclasses.replace(c.input, name="volume")),
        lambda c: dataclasses.replace(c, head=dataclasses.replace(c.head, output="probabilities")),
    ],
)
def test_names_that_the_graph_does_not_have_are_refused_at_once(model, change):
    path, card = model
    with pytest.raises(
        EncoderError, match=r"the graph has the inputs \['image'\] and the outputs \['l1', 'l2'"
    ):
        OnnxEncoder(path, change(card), "cpu")


def test_a_window_that_the_model_refuses_is_named(fakes, tmp_path):
    path = tmp_path / "fm.onnx"
    card = fakes.conv_encoder(path, size=(16, 16, 16))
    with pytest.raises(EncoderError, match=r"fm\.onnx: the model failed on a window of \(8, 16, 16\) voxels"):
        OnnxEncoder(path, card, "cpu", 1)(window(8, 16, 16))


def test_what_is_no_model_is_refused(tmp_path):
    path = tmp_path / "fm.onnx"
    path.write_bytes(b"nothing")
    for place in (path, tmp_path / "none.onnx"):
        with pytest.raises(EncoderError, match="ONNX Runtime cannot load the model"):
            create_session(place, "cpu")


@pytest.mark.skipif(cuda_device_count() > 0, reason="there is a GPU")
def test_cuda_that_is_not_there_is_an_error_and_auto_is_the_cpu(model):
    path, card = model
    with pytest.raises(EncoderError, match=r"--device cuda: found 0 CUDA devices.*--device cpu"):
        OnnxEncoder(path, card, "cuda")
    assert OnnxEncoder(path, card, "auto").device == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(cuda_device_count() == 0, reason="needs a CUDA device")
def test_cuda_computes_the_same(model):
    path, card = model
    cpu, cuda = OnnxEncoder(path, card, "cpu"), OnnxEncoder(path, attach(path, card), "cuda")
    assert cuda.device == "cuda"
    values = window(16, 16, 16)
    for name, expected in cpu(values).items():
        np.testing.assert_allclose(cuda(values)[name], expected, atol=5e-3)


def test_golden_values_catch_another_model_and_a_wrong_one(fakes, model):
    path, card = model
    attached = attach(path, card)
    assert OnnxEncoder(path, attached, "cpu").card == attached
    other = path.with_name("other.onnx")
    fakes.conv_encoder(other, seed=1)
    with pytest.raises(
        EncoderError, match=r"other\.onnx: on cpu, output 'l\d' of the card's golden window differs"
    ):
        OnnxEncoder(other, attached, "cpu")
    values = dict(attached.golden.values)
    values["l2"] = tuple(v * 1.02 for v in values["l2"])
    golden = Golden(attached.golden.shape, values)
    with pytest.raises(EncoderError, match=r"'l2' of the card's golden window differs by 0\.02"):
        OnnxEncoder(path, dataclasses.replace(attached, golden=golden), "cpu")
    OnnxEncoder(
        path, dataclasses.replace(attached, golden=dataclasses.replace(golden, tolerance=0.05)), "cpu"
    )


def test_the_golden_input_is_what_it_always_was():
    """Golden values in published cards hang on this formula."""
    found = golden_input((5, 4, 3))
    assert found.shape == (1, 5, 4, 3)
    assert found.dtype == np.float32
    assert (found >= 0).all()
    assert (found <= 1).all()
    expected = [
        (x * 7 + y * 13 + z * 29 + x * y * z % 31) % 97 / 96 for x, y, z in [(0, 0, 0), (4, 3, 2), (1, 2, 1)]
    ]
    np.testing.assert_allclose([found[0, 0, 0, 0], found[0, 4, 3, 2], found[0, 1, 2, 1]], expected, rtol=1e-6)
    taken = golden_values({"a": np.arange(31, dtype=np.float32).reshape(1, 31, 1, 1)}, ["a"])
    assert taken == {"a": tuple(range(0, 31, 2))}


def test_a_session_has_no_more_threads_than_usable_cores(model, monkeypatch):
    monkeypatch.setattr("featcache.runtime.onnxruntime.usable_cores", lambda: 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    session, _ = create_session(model[0], "cpu")
    assert session.get_session_options().intra_op_num_threads == 1
    session, _ = create_session(model[0], "cpu", threads=2)
    assert session.get_session_options().intra_op_num_threads == 2
