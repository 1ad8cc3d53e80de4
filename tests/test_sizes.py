"""What features take, from their input: known answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from featcache.card import Output
from featcache.encode import encode, level_grid
from featcache.geometry import Grid, whole
from featcache.prepare import PreparedVolume
from featcache.sizes import (
    REACHES,
    Content,
    Rate,
    busy_features,
    contents,
    fit_rate,
    raw_bytes,
    stitching_bytes,
)
from featcache.stitch import Stitcher
from featcache.windows import plan_windows


def test_raw_bytes_are_those_of_the_arrays(fakes, tmp_path):
    from featcache.runtime.onnxruntime import OnnxEncoder

    card = fakes.conv_encoder(tmp_path / "fm.onnx", head="none")
    grid = Grid((19, 22, 17), np.eye(4))
    volume = PreparedVolume(np.zeros((1, *grid.shape), np.float32), grid, whole(grid), ())
    encoder = OnnxEncoder(tmp_path / "fm.onnx", card, "cpu", 1)
    made = sum(slab.astype(np.float16).nbytes for _, slab in encode(volume, encoder))
    assert raw_bytes(grid, card, "float16") == made
    assert raw_bytes(grid, card, "float32") == 2 * made


def test_busy_is_what_differs_from_a_neighbour_and_what_sees_it():
    voxels = np.zeros((12, 12, 12), np.float32)
    voxels[6, 6, 6] = 1
    maps = busy_features(voxels, Output("l", 1, (1, 1, 1), (0, 0, 0)))
    assert maps[0].sum() == 7  # the voxel and its six neighbours
    for busy, reach in zip(maps, REACHES, strict=True):
        assert busy[6, 6, min(7 + reach, 11)]
        assert not busy[6, 6, : max(5 - reach, 0)].any()
    coarse = busy_features(voxels, Output("l", 1, (4, 4, 5), (0, 0, 0)))
    assert coarse[0].shape == (3, 3, 3)
    assert np.argwhere(coarse[0]).tolist() == [[1, 1, 1]]
    assert all((a <= b).all() for a, b in itertools.pairwise(maps))


def test_contents_count_every_level(fakes, tmp_path):
    card = fakes.conv_encoder(tmp_path / "fm.onnx", head="none")
    found = contents(np.random.default_rng(0).random((9, 9, 9), np.float32), card)
    assert {name: c.features for name, c in found.items()} == {"l1": 729, "l2": 125, "l3": 45}
    assert all(c.busy == (c.features,) * len(REACHES) for c in found.values())
    assert contents(np.ones((9, 9, 9), np.float32), card)["l1"].busy == (0,) * len(REACHES)


def test_planted_rates_and_their_reach_are_found():
    voxels = np.zeros((40, 36, 44), np.float32)
    voxels[10:30, 8:20, 12:37] = np.random.default_rng(0).random((20, 12, 25))
    maps = busy_features(voxels, Output("l", 1, (1, 1, 1), (0, 0, 0)))
    for reach, busy in enumerate(maps):
        blocks = np.zeros((5, 5, 6), np.int64)
        for x, y, z in np.ndindex(blocks.shape):
            part = busy[8 * x : 8 * x + 8, 8 * y : 8 * y + 8, 8 * z : 8 * z + 8]
            blocks[x, y, z] = 50 * part.sum() + 3 * (~part).sum()
        rate = fit_rate(maps, blocks, 8, int(blocks.sum()))
        assert rate.reach == reach
        assert (rate.busy, rate.quiet) == pytest.approx((50, 3))
        content = Content(busy.size, tuple(int(b.sum()) for b in maps))
        assert content.expected_bytes(rate) == pytest.approx(blocks.sum(), rel=1e-6)
        doubled = fit_rate(maps, blocks, 8, 2 * int(blocks.sum()))
        assert doubled.busy == pytest.approx(100)


def test_rates_are_one_where_nothing_tells_them_apart_and_never_negative():
    busy = [np.ones((8, 8, 8), np.bool_)] * len(REACHES)
    rate = fit_rate(busy, np.full((1, 1, 1), 1024), 8, 1024)
    assert (rate.busy, rate.quiet) == (2, 2)
    half = np.zeros((16, 8, 8), np.bool_)
    half[8:, :, :4] = True
    rate = fit_rate([half] * len(REACHES), np.array([[[100]], [[10]]]), 8, 110)
    assert rate.busy == 0
    assert rate.quiet > 0


def test_contents_together_and_scaled():
    both = Content.together([Content(100, (10, 20, 30, 40)), Content(300, (30, 40, 50, 60))])
    assert both == Content(400, (40, 60, 80, 100))
    assert both.share == 0.1
    assert both.scaled(200) == Content(200, (20, 30, 40, 50))
    assert both.scaled(200).expected_bytes(Rate(2, 1, 3)) == 2 * 50 + 150


def test_stitching_holds_at_least_its_buffers_and_does_not_grow_with_length(fakes, tmp_path):
    card = fakes.conv_encoder(tmp_path / "fm.onnx", head="none")

    def buffers(grid):
        plan = plan_windows(grid.shape, card)
        stitchers = [Stitcher(plan, o, level_grid(grid, card, o.name).shape) for o in card.outputs]
        return sum(stitcher._buffer.nbytes for stitcher in stitchers)

    grid, longer, wider = (Grid(shape, np.eye(4)) for shape in ((40, 40, 60), (40, 40, 180), (80, 40, 60)))
    assert stitching_bytes(grid, card, "float16") > buffers(grid)
    assert stitching_bytes(longer, card, "float16") == stitching_bytes(grid, card, "float16")
    assert stitching_bytes(wider, card, "float16") > 1.8 * stitching_bytes(grid, card, "float16")
