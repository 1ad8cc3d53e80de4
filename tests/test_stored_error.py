"""The error meter against the formulas of docs/store-format.md, on whole arrays."""

from __future__ import annotations

import numpy as np
import pytest

from featcache.head import LinearHead
from featcache.stored_error import ErrorMeter, StoredError


def meter_of(computed, stored, thickness=(3, 1, 4), clipped=0, head=None):
    """Return a meter that saw both in slabs, channel by channel."""
    meter, z = ErrorMeter(len(computed)), 0
    for depth in thickness:
        for c in range(len(computed)):
            piece = computed[c : c + 1, ..., z : z + depth]
            meter.add(piece, stored[c : c + 1, ..., z : z + depth])
            meter.add_channel(c, piece, clipped)
        if head is not None:
            pair = [values[..., z : z + depth].reshape(len(computed), -1) for values in (computed, stored)]
            meter.add_decisions(*(head.decide(values) for values in pair))
        z += depth
    assert z == computed.shape[3]
    return meter


@pytest.mark.parametrize("mean", [0.0, 3.0, 1e3])
def test_figures_are_those_of_the_whole(mean):
    rng = np.random.default_rng(0)
    computed = (rng.normal(size=(3, 4, 5, 8)) + mean * np.arange(3)[:, None, None, None]).astype(np.float32)
    stored = computed + rng.normal(scale=0.05, size=computed.shape).astype(np.float32)
    error = meter_of(computed, stored, clipped=2).result(full=True)
    difference = (stored - computed).astype(np.float64)
    deviation = computed - computed.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
    assert error.relative_rms == pytest.approx(
        np.sqrt((difference**2).mean() / (computed**2.0).mean()), rel=1e-4
    )
    assert error.relative_sigma == pytest.approx(
        np.sqrt((difference**2).mean() / (deviation**2).mean()), rel=1e-3
    )
    assert error.max_abs == np.abs(stored - computed).max()
    assert error.clipped == 2 * 3 * 3
    assert error.head_agreement is None


def test_plain_floats_keep_their_two_figures():
    values = np.ones((1, 2, 2, 8), np.float32)
    assert meter_of(values, values * 2).result(full=False).to_json() == {"relative_rms": 1.0, "max_abs": 1.0}


def test_constant_features_have_no_spread():
    values = np.full((1, 2, 2, 8), 3.0, np.float32)
    assert meter_of(values, values).result(full=True) == StoredError(0.0, 0.0, 0.0, 0, None)


@pytest.mark.parametrize("multilabel", [False, True])
def test_agreement_is_the_share_of_voxels_with_the_same_decision(multilabel):
    rng = np.random.default_rng(1)
    computed = rng.normal(size=(4, 5, 6, 8)).astype(np.float32)
    stored = computed + rng.normal(scale=0.3, size=computed.shape).astype(np.float32)
    weights, bias = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    head = LinearHead("l1", ("a", "b", "c"), weights, bias, multilabel, 1.0)
    logits = [np.einsum("kc,cxyz->kxyz", weights, v) + bias[:, None, None, None] for v in (computed, stored)]
    if multilabel:
        same = ((logits[0] > 0) == (logits[1] > 0)).all(axis=0)
    else:
        same = logits[0].argmax(axis=0) == logits[1].argmax(axis=0)
    found = meter_of(computed, stored, head=head).result(full=True).head_agreement
    assert found == pytest.approx(same.mean())
    assert 0.3 < found < 0.99


def test_unknown_fields_of_later_writers_are_left_out():
    document = {"relative_rms": 0.1, "max_abs": 1.0, "clipped": 3, "something": "else"}
    assert StoredError.from_json(document) == StoredError(0.1, 1.0, None, 3, None)
    with pytest.raises(KeyError):
        StoredError.from_json({"relative_rms": 0.1})
