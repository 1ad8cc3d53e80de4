"""Dice, NSD and HD95 equal MONAI's wherever those are finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from adapters.metrics import dice_case, score_case

CLASSES, TOLERANCE = 3, 1.5
SPACINGS = [(1.0, 1.0, 1.0), (0.8, 0.8, 2.5)]


def _blobs(random: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Labels with rough borders that reach the volume's edge at times; a class may be absent."""
    fields = [
        ndimage.gaussian_filter(random.normal(size=shape), random.uniform(0.7, 3)) for _ in range(CLASSES)
    ]
    fields = [np.full(shape, random.uniform(0.3, 1.2)), *(field / field.std() for field in fields)]
    return np.argmax(np.stack(fields), 0).astype(np.uint8)


def _edge_cases() -> list[tuple[np.ndarray, np.ndarray]]:
    empty = np.zeros((6, 7, 8), np.uint8)
    voxel, other, full, plate = (empty.copy() for _ in range(4))
    voxel[2, 3, 4] = other[5, 6, 7] = 1
    full[:] = 2
    plate[:, :, 3] = 3
    masks = [empty, voxel, other, full, plate]
    return [(a, b) for a in masks for b in masks]


def _pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    shapes = [(16, 13, 11), (9, 20, 5)]
    unlike = [(_blobs(random, shape), _blobs(random, shape)) for shape in shapes for _ in range(4)]
    alike = [(a, np.roll(a, 1, axis)) for axis, (a, _) in enumerate(unlike[:3])]
    return unlike + alike + _edge_cases()


def _one_hot(labels: np.ndarray) -> torch.Tensor:
    hot = torch.nn.functional.one_hot(torch.from_numpy(labels.astype(np.int64)), CLASSES + 1)
    return hot.movedim(-1, 0)[None].float()


@pytest.mark.filterwarnings("ignore")  # MONAI warns of its own arguments and of empty classes
@pytest.mark.parametrize("spacing", SPACINGS)
def test_ours_equal_monais(spacing: tuple[float, float, float]) -> None:
    compared = {"dice": 0, "nsd": 0, "hd95_mm": 0}
    for predicted, truth in _pairs():
        known = [True] * CLASSES
        ours = score_case(predicted, truth, known, spacing, TOLERANCE)
        a, b = _one_hot(predicted), _one_hot(truth)
        options = {"include_background": False, "spacing": spacing}
        theirs = {
            "dice": compute_dice(a, b, include_background=False),
            "nsd": compute_surface_dice(a, b, [TOLERANCE] * CLASSES, **options),
            "hd95_mm": compute_hausdorff_distance(a, b, percentile=95, **options),
        }
        for name, values in theirs.items():
            for mine, value in zip(ours, values[0].tolist(), strict=True):
                if math.isfinite(value) and (mine.outcome == "scored" or name == "dice"):
                    assert getattr(mine, name) == pytest.approx(value, abs=1e-4), (name, mine)
                    compared[name] += 1
        for mine, fast in zip(ours, dice_case(predicted, truth, known), strict=True):
            assert (mine.outcome, mine.dice) == (fast.outcome, pytest.approx(fast.dice))
    assert min(compared.values()) > 30
