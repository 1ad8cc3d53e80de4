"""Windows: they cover the volume, start on the grid of strides, and their weights sum to one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.card import Blending, EncoderInput, Output
from featcache.errors import CardError
from featcache.windows import plan_windows

STRIDES = [
    ((1, 1, 1), (0, 0, 0)),
    ((2, 2, 2), (0.5, 0.5, 0.5)),
    ((4, 4, 2), (0, 0, 0)),
    ((8, 4, 4), (3.5, 1.5, 0)),
]


@st.composite
def plans(draw, make_card):
    """Draw a card and the shape of a volume."""
    levels = draw(st.lists(st.sampled_from(STRIDES), min_size=1, max_size=3, unique=True))
    outputs = [Output(f"l{i}", 1, stride, offset) for i, (stride, offset) in enumerate(levels)]
    multiple = draw(st.sampled_from([(1, 1, 1), (3, 1, 2), (8, 8, 8)]))
    step = [math.lcm(multiple[a], *(stride[a] for stride, _ in levels)) for a in range(3)]
    window = [draw(st.integers(1, 6)) * s for s in step]
    if draw(st.booleans()):
        widest = [(w - s) // (2 * s) * s for w, s in zip(window, step, strict=True)]
        blending = Blending("halo", tuple(draw(st.integers(0, w)) for w in widest))
    else:
        blending = Blending("gaussian", overlap=draw(st.floats(0, 0.9)))
    inputs = EncoderInput("image", tuple(window), draw(st.booleans()), multiple=multiple)
    shape = draw(st.tuples(*[st.integers(1, 60)] * 3))
    return make_card(outputs, input=inputs, blending=blending), shape


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_windows_cover_the_volume_and_weights_sum_to_one(fakes, data):
    card, shape = data.draw(plans(fakes.make_card))
    plan = plan_windows(shape, card)
    for axis in range(3):
        n, axis_plan, step = shape[axis], plan.axes[axis], card.window_step[axis]
        window = card.input.window[axis]
        assert axis_plan.size == (min(window, axis_plan.padded) if card.input.dynamic else window)
        assert axis_plan.size % step == 0
        assert 0 <= axis_plan.padded - n < max(step, 1 if card.input.dynamic else window)
        assert all(start % step == 0 for start in axis_plan.starts)
        assert list(axis_plan.starts) == sorted(set(axis_plan.starts))
        assert axis_plan.starts[0] == 0
        assert axis_plan.starts[-1] + axis_plan.size == axis_plan.padded
        for output in card.outputs:
            spans = plan.spans(output, axis)
            total = np.zeros(axis_plan.padded // output.stride[axis])
            for span, start in zip(spans, axis_plan.starts, strict=True):
                assert span.start - span.skip == start // output.stride[axis]
                assert span.skip + len(span.weights) <= axis_plan.size // output.stride[axis]
                total[span.start : span.stop] += span.weights
            np.testing.assert_allclose(total, 1, atol=1e-5)
    layers = list(plan.layers())
    assert sum(map(len, layers)) == plan.count
    assert [layer[0].start[2] for layer in layers] == list(plan.axes[2].starts)
    for axis in range(3):
        layers = list(plan.layers(axis))
        assert [{w.start[axis] for w in layer} for layer in layers] == [{s} for s in plan.axes[axis].starts]
        assert len({w.index for layer in layers for w in layer}) == plan.count


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_feature_is_taken_from_inside_the_halo(fakes, data):
    card, shape = data.draw(plans(fakes.make_card).filter(lambda drawn: drawn[0].blending.kind == "halo"))
    for axis, plan in enumerate(plan_windows(shape, card).axes):
        halo = card.blending.halo[axis]
        for start, (low, high) in zip(plan.starts, plan.cores, strict=True):
            assert low < high
            assert low == 0 or low - start >= halo
            assert high == plan.padded or start + plan.size - high >= halo


def test_windows_do_not_depend_on_memory_and_are_few(fakes):
    output = Output("l1", 1, (4, 4, 2), (0, 0, 0))
    card = fakes.make_card(
        [output], input=EncoderInput("image", (96, 96, 96), True), blending=Blending("gaussian")
    )
    plan = plan_windows((200, 96, 50), card)
    assert [axis.starts for axis in plan.axes] == [(0, 72, 104), (0,), (0,)]
    assert plan.size == (96, 96, 50)
    assert plan.count == 3


def test_the_overlap_is_not_widened_by_rounding(fakes):
    """160 * (1 - 0.8) is 31.999... in floating point, and two steps of 16 all the same."""
    card = fakes.make_card(
        [Output("l1", 1, (16, 16, 16), (0, 0, 0))],
        input=EncoderInput("image", (160, 160, 160), True),
        blending=Blending("gaussian", overlap=0.8),
    )
    assert plan_windows((240, 10, 10), card).axes[0].starts == (0, 32, 64, 80)


def test_the_gaussian_weighs_a_feature_by_where_it_lies(fakes):
    """The weight falls off from the window's centre, in input voxels, whatever the level's offset is."""
    levels = [Output("edge", 1, (4, 4, 4), (0, 0, 0)), Output("middle", 1, (4, 4, 4), (1.5, 1.5, 1.5))]
    card = fakes.make_card(
        levels, input=EncoderInput("image", (16, 16, 16), True), blending=Blending("gaussian", overlap=0.5)
    )
    plan = plan_windows((24, 16, 16), card)
    first, second = (plan.spans(level, 0) for level in levels)
    # Voxel 12, four input voxels left of the second window's centre, four and a half right of the first's.
    assert first[0].weights[3] < first[1].weights[1]
    # A centred feature grid is symmetric: both windows' shares are each other's mirror.
    np.testing.assert_allclose(second[0].weights, second[1].weights[::-1], rtol=1e-6)


def test_a_halo_without_a_core_is_refused_by_the_card(fakes):
    for halo, fits in (((4, 6, 4), True), ((4, 7, 4), False)):
        output = [Output("l1", 1, (2, 4, 1), (0, 0, 0))]
        arguments = {"input": EncoderInput("image", (16, 20, 16), True), "blending": Blending("halo", halo)}
        if fits:
            fakes.make_card(output, **arguments)
            continue
        with pytest.raises(CardError, match="axis 1"):
            fakes.make_card(output, **arguments | {"input": EncoderInput("image", (16, 16, 16), True)})
