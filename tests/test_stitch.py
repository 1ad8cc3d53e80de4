"""Stitching: the same as a dense accumulation, and the same as the whole volume where the halo is enough."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.card import Blending, EncoderInput, Intensity, Output, Preparation
from featcache.encode import count_windows, cut, encode, level_grid, storage_axes
from featcache.geometry import Grid, whole
from featcache.prepare import PreparedVolume
from featcache.runtime.onnxruntime import OnnxEncoder
from featcache.windows import plan_windows

LEVELS = (
    Output("l1", 2, (1, 1, 1), (0, 0, 0)),
    Output("l2", 1, (2, 2, 2), (0.5, 0.5, 0.5)),
    Output("l3", 1, (4, 4, 2), (0, 0, 0)),
)


class Moody:
    """An encoder that yields other features at every call, so that each window's share can be told."""

    def __init__(self, card):
        self.card = card
        self.seen = []

    def __call__(self, window):
        rng = np.random.default_rng(len(self.seen))
        x, y, z = window.shape[1:]
        outputs = {
            o.name: rng.normal(size=(o.channels, x // o.stride[0], y // o.stride[1], z // o.stride[2]))
            for o in self.card.outputs
        }
        self.seen.append({name: value.astype(np.float32) for name, value in outputs.items()})
        return self.seen[-1]


def volume_of(voxels):
    grid = Grid(voxels.shape, np.eye(4))
    return PreparedVolume(voxels[None].astype(np.float32), grid, whole(grid), ())


def stitched(volume, encoder):
    slabs = {}
    for level, slab in encode(volume, encoder):
        slabs.setdefault(level, []).append(slab)
    return {level: np.concatenate(parts, axis=3) for level, parts in slabs.items()}


def dense(plan, windows, output, shape, axes):
    """Return the weighted mean of all windows by plain accumulation over the padded volume, float64."""
    total = np.zeros(
        (output.channels, *(a.padded // s for a, s in zip(plan.axes, output.stride, strict=True)))
    )
    weights = np.zeros(total.shape[1:])
    for window, values in zip(itertools.chain(*plan.layers(axes[2])), windows, strict=True):
        shares = []
        for axis, (i, stride) in enumerate(zip(window.index, output.stride, strict=True)):
            axis_plan = plan.axes[axis]
            n = axis_plan.size // stride
            at = window.start[axis] + np.arange(n) * stride
            if plan.blending.kind == "halo":
                low, high = axis_plan.cores[i]
                shares.append(((at >= low) & (at < high)).astype(float))
            else:
                centre = window.start[axis] + (axis_plan.size - 1) / 2
                distance = (at + output.offset[axis] - centre) / (axis_plan.size / 8)
                shares.append(np.maximum(np.exp(-(distance**2) / 2), 1e-3))
        weight = shares[0][:, None, None] * shares[1][:, None] * shares[2]
        box = tuple(
            slice(a // s, a // s + n)
            for a, s, n in zip(window.start, output.stride, weight.shape, strict=True)
        )
        total[(slice(None), *box)] += weight * values[output.name]
        weights[box] += weight
    x, y, z = shape
    return (total / weights).transpose(0, *(1 + axis for axis in axes))[:, :x, :y, :z]


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 45)] * 3),
    window=st.tuples(*[st.integers(1, 4)] * 3),
    halo=st.tuples(*[st.integers(0, 5)] * 3),
    overlap=st.floats(0, 0.8),
    gaussian=st.booleans(),
    dynamic=st.booleans(),
    codes=st.sampled_from(["RAS", "LIA", "SPR"]),
)
def test_stitching_equals_a_dense_accumulation(fakes, shape, window, halo, overlap, gaussian, dynamic, codes):
    size = tuple(8 * w for w in window)
    halo = tuple(min(h, (w - 4) // 8 * 4) for h, w in zip(halo, size, strict=True))
    blending = Blending("gaussian", overlap=overlap) if gaussian else Blending("halo", halo)
    card = fakes.make_card(
        LEVELS,
        input=EncoderInput("image", size, dynamic),
        blending=blending,
        preparation=Preparation(codes, None, Intensity("none")),
    )
    encoder = Moody(card)
    volume = volume_of(np.zeros(shape))
    found = stitched(volume, encoder)
    plan = plan_windows(shape, card)
    assert len(encoder.seen) == plan.count == count_windows(shape, card)
    for output in LEVELS:
        grid = level_grid(volume.grid, card, output.name)
        assert found[output.name].shape == (output.channels, *grid.shape)
        assert found[output.name].dtype == np.float32
        expected = dense(plan, encoder.seen, output, grid.shape, storage_axes(card))
        np.testing.assert_allclose(found[output.name], expected, rtol=1e-4, atol=1e-5)


# Receptive field of the convolutional encoder: 1 voxel (l1), 2 (l2) and 4, 4, 4 (l3: 1 + 1 + 2).
WHOLE = EncoderInput("image", (64, 64, 64), True)


@pytest.mark.parametrize("shape", [(37, 21, 30), (40, 16, 47), (9, 33, 5)])
@pytest.mark.parametrize(("window", "codes"), [((16, 16, 16), "RAS"), ((24, 12, 20), "LIA")])
def test_a_halo_that_covers_the_receptive_field_equals_the_whole_volume(
    fakes, tmp_path, shape, window, codes
):
    path = tmp_path / "fm.onnx"
    volume = volume_of(np.random.default_rng(0).normal(size=shape))
    halo = Blending("halo", (4, 4, 4))
    more = {"head": "none", "preparation": Preparation(codes, None, Intensity("none"))}
    card = fakes.conv_encoder(path, input=EncoderInput("image", window, True), blending=halo, **more)
    whole = fakes.conv_encoder(path, input=WHOLE, **more)
    assert count_windows(shape, whole) == 1
    assert count_windows(shape, card) > 3
    cached = stitched(volume, OnnxEncoder(path, card, "cpu", 1))
    expected = stitched(volume, OnnxEncoder(path, whole, "cpu", 1))
    for level in ("l1", "l2", "l3"):
        np.testing.assert_allclose(cached[level], expected[level], atol=1e-5)
    # No halo is not enough: the comparison would notice.
    bare = fakes.conv_encoder(
        path, input=EncoderInput("image", window, True), blending=Blending("halo"), **more
    )
    assert np.abs(stitched(volume, OnnxEncoder(path, bare, "cpu", 1))["l1"] - expected["l1"]).max() > 1e-2


def test_what_lies_beyond_the_volume_is_the_pad_value():
    voxels = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    window = cut(voxels, (1, 0, 2), (2, 4, 4), -7.0)
    assert window.shape == (1, 2, 4, 4)
    np.testing.assert_array_equal(window[0, :1, :3, :2], voxels[0, 1:, :, 2:])
    assert (window == -7).sum() == window.size - 6


def test_slabs_come_as_soon_as_they_are_final(fakes):
    """The buffer holds one layer of windows: nothing waits for the scan's end."""
    card = fakes.make_card(
        LEVELS, input=EncoderInput("image", (16, 16, 16), True), blending=Blending("gaussian", overlap=0.5)
    )
    encoder = Moody(card)
    depth = []
    for level, slab in encode(volume_of(np.zeros((16, 16, 80))), encoder):
        if level == "l1":
            depth.append((len(encoder.seen), slab.shape[3]))
    assert depth == [(n, 8) for n in range(1, 9)] + [(9, 16)]
