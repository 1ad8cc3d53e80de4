"""Quantising and dequantising arrays: the stated formula, the stated error, nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.errors import StoreError
from featcache.quantise import (
    PRECISIONS,
    Calibration,
    dequantise,
    get_precision,
    quantise,
    round_mantissa,
)

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def calibration(bits, scale=(0.5, 2.0), offset=(-1.0, 10.0)):
    return Calibration(bits, np.float32(scale), np.float32(offset))


@quick
@given(bits=st.sampled_from([4, 5, 6, 8]), seed=st.integers(0, 2**32 - 1), power=st.integers(-4, 4))
def test_inside_of_the_range_the_error_is_at_most_half_a_step(bits, seed, power):
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.5, 2, 3).astype(np.float32) * np.float32(10.0**power)
    offset = (rng.normal(size=3) * 10.0**power).astype(np.float32)
    found = Calibration(bits, scale, offset)
    steps = rng.uniform(0, 2**bits - 1, (3, 4, 5, 6))
    values = (offset[:, None, None, None] + scale[:, None, None, None] * steps).astype(np.float32)
    numbers, clipped = quantise(values, found)
    assert (numbers.dtype, numbers.max() < 2**bits, clipped) == (np.uint8, True, 0)
    error = np.abs(dequantise(numbers, found) - values).reshape(3, -1).max(axis=1)
    rounding = 4 * np.finfo(np.float32).eps * (np.abs(offset) + scale * 2**bits)
    assert (error <= scale / 2 + rounding).all()
    assert (error > scale / 8).all()  # the step is used: a finer one would show here


def test_what_lies_outside_is_clipped_and_counted():
    values = np.float32([[-1.2, -1.26, 6.5, 6.74, 6.76, 1e30], [9.1, 8.9, 40, 41.1, -1e30, 20]])
    numbers, clipped = quantise(values, calibration(4))
    assert numbers.tolist() == [[0, 0, 15, 15, 15, 15], [0, 0, 15, 15, 0, 5]]
    # Half a step beyond the ends still rounds to them.
    assert clipped == 3 + 3
    assert dequantise(numbers, calibration(4))[:, 2].tolist() == [6.5, 40.0]


def test_numbers_survive_a_round_trip():
    found = calibration(8, (0.1, 3e-4), (-3.3, 100.0))
    numbers = np.arange(256, dtype=np.uint8)[None].repeat(2, 0)
    values = dequantise(numbers, found)
    assert values.dtype == np.float32
    assert np.array_equal(quantise(values, found)[0], numbers)


def test_the_argument_is_left_alone():
    values = np.ones((2, 3), np.float32)
    for precision in PRECISIONS.values():
        numbers, _ = precision.encode(values, calibration(precision.bits) if precision.calibrated else None)
        before = numbers.copy()
        precision.decode(numbers, calibration(precision.bits) if precision.calibrated else None)
        assert np.array_equal(numbers, before)
    assert (values == 1).all()


def reference(value: float, bits: int) -> float:
    """Round to `bits` mantissa bits by arithmetic, ties to even; from float16's smallest normal number up."""
    exponent = np.floor(np.log2(abs(value)))
    unit = 2.0 ** (exponent - bits)
    return float(np.round(value / unit) * unit)


@pytest.mark.parametrize("bits", [10, 7, 5, 4, 3])
def test_every_float16_rounds_to_the_nearest_of_few_bits(bits):
    patterns = np.arange(0x0400, 0x7C00, dtype=np.uint16)  # all positive normal ones
    values = patterns.view(np.float16).astype(np.float32)
    limit = next(p for p in PRECISIONS.values() if p.dtype == "float16" and p.bits == bits).limit
    values = values[values <= limit]
    found = round_mantissa(values, bits)
    assert found.dtype == np.float16
    assert np.array_equal(found.astype(np.float64), [reference(v, bits) for v in values.astype(np.float64)])
    assert np.array_equal(round_mantissa(-values, bits), -found)
    assert np.isfinite(found).all()
    assert not (found.view(np.uint16) & ((1 << (10 - bits)) - 1)).any()


@quick
@given(bits=st.sampled_from([7, 5, 4, 3]), seed=st.integers(0, 2**32 - 1))
def test_rounding_a_stored_float16_is_rounding_the_value(bits, seed):
    values = np.random.default_rng(seed).normal(scale=10, size=500).astype(np.float32)
    stored = values.astype(np.float16).astype(np.float32)
    assert np.array_equal(round_mantissa(values, bits), round_mantissa(stored, bits))


def test_zero_subnormals_and_the_limit_of_few_bits():
    tiny = np.float32([0.0, -0.0, 2**-24, 5 * 2**-18, 61440.0, -61440.0])
    assert round_mantissa(tiny, 3).tolist() == [0, 0, 0, 2**-16, 61440, -61440]
    assert [get_precision(n).limit for n in ("float16", "float16-m3")] == [65504.0, 61440.0]
    # Above the limit, rounding may reach infinity: callers refuse such values.
    assert np.isinf(round_mantissa(np.float32([65504.0]), 3)).all()


def test_plain_floats_are_cast_and_nothing_else():
    values = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    for dtype in ("float16", "float32"):
        numbers, clipped = get_precision(dtype).encode(values, None)
        assert (numbers.dtype, clipped) == (np.dtype(dtype), 0)
        assert np.array_equal(numbers, values.astype(dtype))


def test_a_calibration_survives_json():
    found = calibration(6, (0.1, 1e-30), (-1 / 3, 3e38))
    again = Calibration.from_json(json.loads(json.dumps(found.to_json())))
    assert again.bits == 6
    assert np.array_equal(again.scale, found.scale)
    assert np.array_equal(again.offset, found.offset)
    assert again.scale.dtype == again.offset.dtype == np.float32


@pytest.mark.parametrize(
    ("bits", "scale", "offset"),
    [(6, [0.0], [1.0]), (6, [-1.0], [1.0]), (6, [1.0], [np.nan]), (6, [1.0, 2.0], [1.0]), (9, [1.0], [1.0])],
)
def test_a_calibration_that_is_none_is_refused(bits, scale, offset):
    with pytest.raises(StoreError, match="expected finite"):
        calibration(bits, scale, offset)


def test_unknown_precisions_are_refused_with_those_there_are():
    with pytest.raises(StoreError, match=r"'int7': expected one of float32, float16, .*int4"):
        get_precision("int7")


def test_names_tell_type_and_bits():
    for name, precision in PRECISIONS.items():
        assert precision.name == name
        assert precision.plain == (name in ("float32", "float16"))
        assert precision.format_version == (1 if precision.plain else 2)
    order = list(PRECISIONS)
    assert order.index("float32") < order.index("float16") < order.index("float16-m7") < order.index("int8")
