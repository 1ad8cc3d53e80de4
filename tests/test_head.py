"""The encoder's own head, recovered from its outputs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from featcache.card import Head, Output
from featcache.errors import EncoderError
from featcache.head import REQUIRED_R2, HeadSampler, LinearHead, given_head
from featcache.runtime.onnxruntime import OnnxEncoder


@pytest.fixture
def windows():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(1, 16, 16, 16)).astype(np.float32) for _ in range(4)]


def recovered(fakes, tmp_path, windows, kind):
    path = tmp_path / "fm.onnx"
    card = fakes.conv_encoder(path, head=kind)
    encoder = OnnxEncoder(path, card, "cpu", 1)
    sampler = HeadSampler(card, len(windows))
    for window in windows:
        sampler.add(encoder(window))
    return sampler.fit()


@pytest.mark.parametrize("kind", ["linear", "sigmoid"])
def test_recovered_weights_are_the_encoders_own(fakes, tmp_path, windows, kind):
    head = recovered(fakes, tmp_path, windows, kind)
    truth = fakes.conv_weights()
    np.testing.assert_allclose(head.weights, truth["w4"][:, :, 0, 0, 0], atol=1e-4)
    np.testing.assert_allclose(head.bias, truth["b4"], atol=1e-4)
    assert (head.level, head.classes, head.multilabel) == ("l2", fakes.CLASSES, kind == "sigmoid")
    assert REQUIRED_R2 <= head.r2 <= 1


def test_softmax_gives_the_weights_up_to_the_backgrounds(fakes, tmp_path, windows):
    head = recovered(fakes, tmp_path, windows, "softmax")
    truth = fakes.conv_weights()
    weights = truth["w4"][:, :, 0, 0, 0]
    np.testing.assert_allclose(head.weights, weights - weights[0], atol=1e-4)
    np.testing.assert_allclose(head.bias, truth["b4"] - truth["b4"][0], atol=1e-4)


def test_an_output_that_is_no_linear_function_is_refused(fakes, tmp_path, windows):
    with pytest.raises(
        EncoderError, match=r"'logits' is no linear function of level 'l2': R² 0\.\d+, expected"
    ):
        recovered(fakes, tmp_path, windows, "nonlinear")


def sampler_for(fakes, activation="none", n_classes=2, windows=1):
    classes = tuple("abcdef"[:n_classes])
    head = Head("l1", classes, activation, activation == "sigmoid", "logits")
    card = fakes.make_card([Output("l1", 5, (1, 1, 1), (0, 0, 0))], head=head)
    return HeadSampler(card, windows)


def linear_window(rng, shape=(8, 8, 8), noise=0.0):
    features = rng.normal(size=(5, *shape)).astype(np.float32)
    weights = np.array([[1, 2, 3, 4, 5], [5, 0, 0, -1, 0]], np.float32)
    logits = np.einsum("kc,cxyz->kxyz", weights, features)
    logits[1] += noise * rng.normal(size=shape)
    return {"l1": features, "logits": logits.astype(np.float32)}


def test_the_worst_class_decides(fakes):
    """One class of two with R² 0.96 (noise .2 of the deviation): no head."""
    sampler = sampler_for(fakes)
    sampler.add(linear_window(np.random.default_rng(0), noise=1.0))
    with pytest.raises(EncoderError, match=r"R² 0\.9[5-7]"):
        sampler.fit()


def test_r2_is_that_of_voxels_that_were_not_fitted(fakes):
    """Fifty channels of noise explain forty voxels of noise, but no others."""
    rng = np.random.default_rng(0)
    head = Head("l1", ("a", "b"), output="logits")
    sampler = HeadSampler(fakes.make_card([Output("l1", 50, (1, 1, 1), (0, 0, 0))], head=head))
    sampler.add(
        {
            "l1": rng.normal(size=(50, 5, 5, 5)).astype(np.float32),
            "logits": rng.normal(size=(2, 5, 5, 5)).astype(np.float32),
        }
    )
    with pytest.raises(EncoderError, match="R² -"):
        sampler.fit()


def test_constant_and_dead_channels_do_no_harm(fakes):
    rng = np.random.default_rng(0)
    window = linear_window(rng)
    window["l1"][3] = 0
    window["logits"] = window["l1"][:2] * 2 + 1
    sampler = sampler_for(fakes)
    sampler.add(window)
    head = sampler.fit()
    np.testing.assert_allclose(head.weights, [[2, 0, 0, 0, 0], [0, 2, 0, 0, 0]], atol=1e-5)
    np.testing.assert_allclose(head.bias, [1, 1], atol=1e-5)


def test_an_output_on_another_grid_or_with_other_classes_is_refused(fakes):
    window = linear_window(np.random.default_rng(0))
    for wrong in (window["logits"][:, ::2], window["logits"][:1], window["logits"][0]):
        with pytest.raises(EncoderError, match=r"has the shape .*expected \(2, 8, 8, 8\)"):
            sampler_for(fakes).add(window | {"logits": wrong})


def test_saturated_probabilities_are_left_out_and_said_to_be_too_few(fakes):
    rng = np.random.default_rng(0)
    window = linear_window(rng)
    hard = (window["logits"] > 0).astype(np.float32)
    sampler = sampler_for(fakes, "sigmoid")
    sampler.add(window | {"logits": hard})
    with pytest.raises(EncoderError, match="0 usable voxels of the first scan are too few for 5 channels"):
        sampler.fit()
    # Half of the voxels saturated: the others are enough.
    soft = 1 / (1 + np.exp(-window["logits"].astype(np.float64)))
    soft[:, ::2] = hard[:, ::2]
    sampler = sampler_for(fakes, "sigmoid")
    sampler.add(window | {"logits": soft.astype(np.float32)})
    np.testing.assert_allclose(sampler.fit().weights, [[1, 2, 3, 4, 5], [5, 0, 0, -1, 0]], atol=1e-2)


def test_a_constant_or_nan_output_is_refused(fakes):
    window = linear_window(np.random.default_rng(0))
    for value in (3.0, np.nan):
        sampler = sampler_for(fakes)
        sampler.add(window | {"logits": np.full_like(window["logits"], value)})
        with pytest.raises(EncoderError, match="no linear function"):
            sampler.fit()


def test_memory_does_not_grow_with_the_number_of_windows(fakes):
    sampler = sampler_for(fakes, windows=1000)
    rng = np.random.default_rng(0)
    window = linear_window(rng, (16, 16, 16))
    for _ in range(1000):
        sampler.add(window)
    held = sum(part.nbytes for part in (*sampler._features, *sampler._logits))
    assert held <= 60_000 * (5 * 4 + 2 * 8)
    assert sampler.fit().r2 > REQUIRED_R2


def test_the_sample_is_seeded(fakes, tmp_path, windows):
    first, second = (recovered(fakes, tmp_path, windows, "sigmoid") for _ in range(2))
    assert np.array_equal(first.weights, second.weights)


def test_a_head_survives_json_bit_for_bit(fakes, tmp_path, windows):
    head = recovered(fakes, tmp_path, windows, "linear")
    back = LinearHead.from_json(json.loads(json.dumps(head.to_json())))
    assert np.array_equal(back.weights, head.weights)
    assert np.array_equal(back.bias, head.bias)
    assert (back.level, back.classes, back.multilabel, back.r2) == ("l2", fakes.CLASSES, False, head.r2)


def test_a_head_given_in_the_card_is_taken_as_it_is(fakes):
    levels = [Output("l1", 2, (1, 1, 1), (0, 0, 0))]
    head = Head("l1", ("background", "liver"), weights=((1, 2), (3, 4)), bias=(5, 6))
    found = given_head(fakes.make_card(levels, head=head))
    assert found is not None
    assert found.weights.tolist() == [[1, 2], [3, 4]]
    assert (found.bias.tolist(), found.r2) == ([5, 6], 1.0)
    assert given_head(fakes.make_card(levels)) is None
