"""Surface metrics against brute force and against cases with a known answer; empty classes counted."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from adapters.metrics import Score, diagonal, dice, score_case
from adapters.surface import border, hausdorff, normalised_surface_distance, surface_distances
from featcache.errors import GeometryError, TaskError

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.9, 3.0)]


def _cube(shape: tuple[int, int, int], start: tuple[int, int, int], size: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return mask


def _slow_border(mask: np.ndarray) -> list[tuple[int, ...]]:
    """Voxels with a face neighbour that is no voxel of the mask, one at a time."""
    inside = {tuple(int(i) for i in index) for index in np.argwhere(mask)}
    steps = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    return sorted(
        index
        for index in inside
        if any(tuple(a + b for a, b in zip(index, s, strict=True)) not in inside for s in steps)
    )


def _slow_distances(
    a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]
) -> tuple[list[float], list[float]]:
    points = [
        [tuple(i * s for i, s in zip(p, spacing, strict=True)) for p in _slow_border(m)] for m in (a, b)
    ]
    there = [min(math.dist(p, q) for q in points[1]) for p in points[0]]
    back = [min(math.dist(p, q) for q in points[0]) for p in points[1]]
    return there, back


def _random_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A blob and a noisy, shifted copy with specks; both reach the edge of the volume at times."""
    rng = np.random.default_rng(seed)
    shape = (9, 8, 7)
    a = _cube(shape, tuple(rng.integers(0, 4, 3)), tuple(rng.integers(2, 6, 3)))
    b = np.roll(a, rng.integers(-1, 2, 3), (0, 1, 2)) ^ (rng.random(shape) < 0.03)
    b[tuple(rng.integers(0, 7, 3))] = True
    return a, b


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(8))
def test_brute_force_agrees(seed: int, spacing: tuple[float, float, float]) -> None:
    a, b = _random_pair(seed)
    slow = _slow_distances(a, b, spacing)
    fast = surface_distances(a, b, spacing)
    np.testing.assert_allclose(fast[0], slow[0], atol=1e-9)
    np.testing.assert_allclose(fast[1], slow[1], atol=1e-9)
    within = [d <= 1.5 for d in itertools.chain(*slow)]
    assert normalised_surface_distance(fast, 1.5) == pytest.approx(sum(within) / len(within))
    assert hausdorff(fast, 100) == pytest.approx(max(*slow[0], *slow[1]))
    # The same numbers in the scan as in the box that score_case cuts out of it.
    (found,) = score_case(b.astype(np.uint8), a.astype(np.uint8), [True], spacing, 1.5)
    assert found.nsd == pytest.approx(sum(within) / len(within))
    assert found.hd95_mm == pytest.approx(max(np.percentile(d, 95) for d in slow))
    assert found.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_a_cube_has_its_shell_as_border() -> None:
    mask = _cube((9, 9, 9), (2, 2, 2), (5, 5, 5))
    expected = mask ^ _cube((9, 9, 9), (3, 3, 3), (3, 3, 3))
    np.testing.assert_array_equal(border(mask), expected)


def test_the_volumes_edge_is_outside() -> None:
    full = np.ones((4, 4, 4), bool)
    assert border(full).sum() == 4**3 - 2**3


@pytest.mark.parametrize(("axis", "step"), [(0, 0.5), (1, 2.0), (2, 3.0)])
def test_shifted_slabs_are_one_spacing_apart(axis: int, step: float) -> None:
    """Two plates one voxel thick, shifted by two voxels: every distance is twice that axis' spacing."""
    shape, size = [12, 12, 12], [12, 12, 12]
    size[axis] = 1
    start = [0, 0, 0]
    start[axis] = 4
    a = _cube(tuple(shape), tuple(start), tuple(size))
    b = np.roll(a, 2, axis)
    distances = surface_distances(a, b, (0.5, 2.0, 3.0))
    for d in distances:
        np.testing.assert_allclose(d, 2 * step)
    assert normalised_surface_distance(distances, 2 * step) == 1.0
    assert normalised_surface_distance(distances, 2 * step - 0.01) == 0.0


def test_shifted_cubes() -> None:
    """Cubes of 10 shifted by 3 along x: both ends are 3 spacings away, the sides lie on one another."""
    a = _cube((20, 16, 16), (2, 3, 3), (10, 10, 10))
    b = _cube((20, 16, 16), (5, 3, 3), (10, 10, 10))
    spacing = (2.0, 1.0, 1.0)
    assert dice(a, b) == pytest.approx(0.7)
    distances = surface_distances(a, b, spacing)
    # The plane x = 2 of a and the plane x = 14 of b, 100 voxels each, are 6 mm off; all else is nearer.
    assert hausdorff(distances, 100) == pytest.approx(6.0)
    outside = sum(int((d > 5.9).sum()) for d in distances)
    assert outside == 200
    total = 2 * (10**3 - 8**3)
    assert normalised_surface_distance(distances, 5.9) == pytest.approx(1 - 200 / total)


def test_the_worse_direction_counts() -> None:
    """A speck far away is 1 of 2 voxels one way; the other way nothing is far."""
    truth = _cube((30, 3, 3), (0, 1, 1), (1, 1, 1))
    predicted = truth.copy()
    predicted[20, 1, 1] = True
    there, back = surface_distances(predicted, truth, (1, 1, 1))
    assert (sorted(there), list(back)) == ([0, 20], [0])
    # Pooled, the percentile would be that of [0, 0, 20].
    assert hausdorff((there, back)) == pytest.approx(19.0)
    assert hausdorff((back, there)) == pytest.approx(19.0)


def test_the_tolerance_itself_is_within_it() -> None:
    a, b = np.zeros((2, 4, 1, 1), bool)
    a[0], b[1] = True, True
    spacing = (float(np.float32(2) * (1 + np.float32(1e-7))), 1.0, 1.0)
    assert spacing[0] > 2
    assert normalised_surface_distance(surface_distances(a, b, spacing), 2.0) == 1.0


def test_a_perfect_mask() -> None:
    truth = np.random.default_rng(0).integers(0, 4, (6, 7, 8)).astype(np.uint8)
    for score in score_case(truth, truth, [True] * 3, (1, 2, 3), 0.0):
        assert score == Score("scored", 1.0, 1.0, 0.0)


def test_every_outcome() -> None:
    truth, predicted = np.zeros((2, 10, 10, 10), np.uint8)
    truth[1:3, 1, 1], truth[5, 5, 5] = 1, 2
    predicted[1:3, 1, 1], predicted[7, 7, 7], predicted[9, 9, 9] = 1, 3, 5
    spacing = (1.0, 2.0, 2.0)
    scores = score_case(predicted, truth, [True, True, True, True, False, False], spacing, 2.0)
    worst = diagonal(truth.shape, spacing)
    assert worst == pytest.approx(math.sqrt(10**2 + 20**2 + 20**2))
    assert scores == (
        Score("scored", 1.0, 1.0, 0.0),
        Score("missed", 0.0, 0.0, worst),
        Score("false_alarm", 0.0, 0.0, worst),
        Score("both_empty"),
        Score("not_annotated"),
        Score("not_annotated"),
    )


def test_no_overlap_is_scored_and_better_than_missed() -> None:
    truth, predicted = np.zeros((2, 10, 10, 10), np.uint8)
    truth[0, 0, 0], predicted[9, 9, 9] = 1, 1
    (score,) = score_case(predicted, truth, [True], (1, 1, 1), 2.0)
    assert (score.outcome, score.dice, score.nsd) == ("scored", 0.0, 0.0)
    assert score.hd95_mm == pytest.approx(9 * math.sqrt(3))
    assert score.hd95_mm < diagonal(truth.shape, (1, 1, 1))


def test_other_classes_do_not_matter() -> None:
    truth, predicted = np.zeros((2, 8, 8, 8), np.uint16)
    truth[2:5, 2:5, 2:5], predicted[2:5, 2:5, 2:6] = 300, 300
    alone = score_case(predicted, truth, [True] * 300, (1, 1, 1), 1.0)[299]
    truth[0], predicted[7] = 7, 8
    assert score_case(predicted, truth, [True] * 300, (1, 1, 1), 1.0)[299] == alone
    assert alone.dice == pytest.approx(2 * 27 / 63)


def test_arrays_are_left_as_they_are() -> None:
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[1, 1, 1] = 1
    truth.setflags(write=False)
    assert score_case(truth, truth, [True], (1, 1, 1), 1.0)[0].dice == 1.0


def test_other_shapes_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"\(2, 2, 2\).*\(2, 2, 3\)"):
        score_case(np.zeros((2, 2, 2), int), np.zeros((2, 2, 3), int), [True], (1, 1, 1), 1.0)


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
def test_a_tolerance_is_a_length(tolerance: float) -> None:
    empty = np.zeros((2, 2, 2), int)
    with pytest.raises(TaskError, match="tolerance"):
        score_case(empty, empty, [True], (1, 1, 1), tolerance)


@pytest.mark.parametrize(
    "wrong", [("scored", 1.0, 1.0, None), ("scored", math.nan, 0.0, 1.0), ("both_empty", 0.0, 0.0, 0.0)]
)
def test_numbers_fit_the_outcome(wrong: tuple) -> None:
    with pytest.raises(TaskError, match=wrong[0]):
        Score(*wrong)
