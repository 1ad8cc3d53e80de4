"""What the first case's features make of scale and offset."""

from __future__ import annotations

import json

import numpy as np
import pytest

from featcache.calibrate import RECIPE, StoreCalibration, calibrate
from featcache.quantise import dequantise, quantise

SHAPE = (6, 7, 8)


def body(seed=0, air=-0.3):
    """Return one level of three channels, most of it air: two that vary, and one that is constant."""
    rng = np.random.default_rng(seed)
    values = np.full((3, *SHAPE), air, np.float32)
    values[:2, 2:, 2:, 2:] = rng.normal(size=(2, 4, 5, 6))
    values[1] *= 100
    return values


@pytest.mark.parametrize("bits", [4, 5, 6, 8])
def test_the_range_has_room_and_the_most_common_value_is_kept(bits):
    values = body()
    found = calibrate("a", [("l1", values)], bits).levels["l1"]
    numbers, clipped = quantise(values, found)
    again = dequantise(numbers, found)
    assert clipped == 0
    low, high = found.offset, found.offset + found.scale * found.highest
    width = values.max(axis=(1, 2, 3)) - values.min(axis=(1, 2, 3))
    np.testing.assert_allclose((high - low)[:2], 1.75 * width[:2], rtol=1e-3)
    assert (low[:2] < values.min(axis=(1, 2, 3))[:2]).all()
    assert (high[:2] > values.max(axis=(1, 2, 3))[:2]).all()
    # A bin of the histogram is a 4096th of the range; half a step is 10 to 200 times as much.
    air = np.abs(again - values)[:2, 0, 0, 0]
    assert (air <= width[:2] / 2048).all()
    assert (air < found.scale[:2] / 12).all()


def test_a_rectified_channel_keeps_its_zeros():
    values = np.maximum(np.random.default_rng(1).normal(size=(1, *SHAPE)), 0).astype(np.float32)
    found = calibrate("a", [("l1", values)], 5).levels["l1"]
    zeros = dequantise(quantise(values, found)[0], found)[values == 0]
    assert np.abs(zeros).max() <= values.max() / 4096


def test_a_constant_channel_is_exact_and_can_vary_elsewhere():
    values = body(air=0.0)
    found = calibrate("a", [("l1", values)], 6).levels["l1"]
    assert found.scale[2] == pytest.approx(np.median(found.scale[:2]))
    assert (dequantise(quantise(values, found)[0], found)[2] == 0).all()
    other = np.full((3, 1, 1, 1), 0.0, np.float32)
    other[2] = [[[float(found.scale[2]) * 3]]]
    numbers, clipped = quantise(other, found)
    assert clipped == 0
    np.testing.assert_allclose(dequantise(numbers, found)[2], other[2], rtol=1e-6)


def test_all_constant():
    found = calibrate("a", [("l1", np.full((2, *SHAPE), 7.0, np.float32))], 4).levels["l1"]
    assert found.scale.tolist() == [1.0, 1.0]
    numbers, clipped = quantise(np.full((2, *SHAPE), 7.0, np.float32), found)
    assert clipped == 0
    assert (dequantise(numbers, found) == 7.0).all()


def test_slabs_count_as_the_whole_and_levels_apart():
    one, two = body(1), body(2) * 5
    slabs = [("l1", one[..., :3]), ("l2", two[..., :1]), ("l1", one[..., 3:]), ("l2", two[..., 1:])]
    cut = calibrate("a", slabs, 6)
    for name, values in (("l1", one), ("l2", two)):
        whole = calibrate("a", [(name, values)], 6).levels[name]
        assert np.array_equal(cut.levels[name].scale, whole.scale)
        assert np.array_equal(cut.levels[name].offset, whole.offset)


def test_it_survives_json():
    found = calibrate("case_1", [("l1", body())], 6)
    again = StoreCalibration.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    assert (again.case, list(again.levels)) == ("case_1", ["l1"])
    assert np.array_equal(again.levels["l1"].scale, found.levels["l1"].scale)
    json.dumps(RECIPE)
