"""Labels on feature grids against supersampling point by point."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from adapters.labels import CaseLabels
from adapters.task import parse_classes
from featcache.errors import TaskError
from featcache.geometry import Grid, crop, feature_grid, reorient, respace, spacing, world

TASK = parse_classes("a=1,b=2+4")
CLASSES = {"one": 1, "two": 2, "three": 3, "four": 4}
VALUES = np.array([0, 1, 2, 0, 2])  # of a label's value in the task


def _rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _native(codes: str, step: tuple[float, float, float], degrees: float) -> Grid:
    plain, _ = reorient(Grid((13, 11, 9), np.eye(4)), codes)
    affine = np.eye(4)
    affine[:3, :3] = _rotation(degrees) @ plain.affine[:3, :3] @ np.diag(step)
    affine[:3, 3] = (3.1, -40.2, 17.3)
    return Grid(plain.shape, affine)


def _features(native: Grid, stride: tuple[int, int, int], target: float | None) -> Grid:
    """Return a feature grid as the pipeline makes it: reoriented, cropped, respaced, strided."""
    prepared = crop(reorient(native, "RAS")[0], (1, 0, 1), (9, 8, 7))
    if target is not None:
        prepared = respace(prepared, (target,) * 3)
    return feature_grid(prepared, stride, [(s - 1) / 2 for s in stride])


def _brute_force(labels: np.ndarray, native: Grid, grid: Grid, parts: tuple[int, int, int]) -> np.ndarray:
    """Return the shares (3, X, Y, Z): each cell's parts, by world coordinates, to the nearest label voxel."""
    inverse = np.linalg.inv(native.affine)
    shares = np.zeros((3, *grid.shape))
    steps = [[(p + 0.5) / n - 0.5 for p in range(n)] for n in parts]
    for index in np.ndindex(*grid.shape):
        for shift in itertools.product(*steps):
            place = inverse @ [*world(grid, np.add(index, shift)), 1.0]
            voxel = np.clip(np.rint(place[:3]).astype(int), 0, np.subtract(native.shape, 1))
            shares[(VALUES[labels[tuple(voxel)]], *index)] += 1 / np.prod(parts)
    return shares


def _case(synthetic: SimpleNamespace, native: Grid, labels: np.ndarray) -> Any:
    return synthetic.MemoryCase(labels=synthetic.MemoryLabels(native, labels, CLASSES))


@pytest.mark.parametrize(
    ("codes", "step", "degrees", "stride", "target"),
    [
        ("RAS", (1.0, 1.0, 1.0), 0, (2, 2, 2), None),
        ("LPI", (0.7, 0.9, 2.3), 0, (4, 4, 2), None),
        ("SAR", (0.7, 0.9, 2.3), 25, (2, 1, 3), None),
        ("PIL", (1.1, 0.8, 1.9), -40, (2, 2, 2), 1.23),
        ("IRA", (3.1, 0.9, 1.2), 10, (1, 1, 1), 0.77),
    ],
)
def test_soft_and_hard_labels(
    synthetic: SimpleNamespace, codes: str, step: Any, degrees: float, stride: Any, target: float | None
) -> None:
    native = _native(codes, step, degrees)
    labels = np.random.default_rng(0).integers(0, 5, native.shape).astype(np.uint8)
    grid = _features(native, stride, target)
    found = CaseLabels(_case(synthetic, native, labels), TASK, grid)
    turned, _ = reorient(native, "RAS")
    cells = np.divide(spacing(grid), spacing(turned))
    parts = tuple(max(round(c), 1) for c in cells)
    expected = _brute_force(labels, native, grid, parts)
    soft = found.soft((0, 0, 0), grid.shape).numpy()
    assert np.allclose(soft, expected, atol=1e-6)
    assert np.allclose(soft.sum(0), 1)
    start = (1, 0, 1)
    size = tuple(n - a for n, a in zip(grid.shape, start, strict=True))
    box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    assert np.array_equal(found.soft(start, size).numpy(), soft[(slice(None), *box)])


@pytest.mark.parametrize(("codes", "degrees"), [("RAS", 0), ("SPL", 25), ("IRA", -40)])
def test_hard_labels_are_the_nearest_voxels(synthetic: SimpleNamespace, codes: str, degrees: float) -> None:
    native = _native(codes, (0.8, 1.7, 1.2), degrees)
    labels = np.random.default_rng(0).integers(0, 5, native.shape).astype(np.uint8)
    grid = feature_grid(reorient(native, "RAS")[0], (3, 2, 1), (1.0, 0.3, -0.2))  # no ties
    found = CaseLabels(_case(synthetic, native, labels), TASK, grid).hard()
    assert np.array_equal(found, _brute_force(labels, native, grid, (1, 1, 1)).argmax(0))
    assert len(np.unique(found)) == 3


def test_a_case_without_labels_or_class_is_named(synthetic: SimpleNamespace) -> None:
    grid = Grid((3, 3, 3), np.eye(4))
    with pytest.raises(TaskError, match=r"case memory has no labels.*featcache label"):
        CaseLabels(synthetic.MemoryCase(), TASK, grid)
    unknown = CaseLabels(_case(synthetic, grid, np.zeros((3, 3, 3), np.uint8)), parse_classes("lung"), grid)
    assert unknown.annotated == (False,)


def test_labels_of_another_grid_are_refused(synthetic: SimpleNamespace) -> None:
    """A scan that was replaced keeps its label set until it is labelled again: it must not be trained on."""
    grid = Grid((3, 3, 3), np.eye(4))
    case = _case(synthetic, grid, np.zeros((3, 3, 3), np.uint8))
    moved = Grid((3, 3, 3), np.diag([1.0, 1.0, 1.5, 1.0]))
    case.info = dataclasses.replace(case.info, native=moved)
    with pytest.raises(TaskError, match=r"case memory: its labels lie on another grid.*featcache label"):
        CaseLabels(case, TASK, grid)


def test_a_structure_smaller_than_a_cell_is_kept(synthetic: SimpleNamespace) -> None:
    native = Grid((16, 16, 16), np.eye(4))
    labels = np.zeros(native.shape, np.uint8)
    labels[5:7, 9:11, 6:7] = 1  # between the centres 4 and 8, 8 and 12, 4 and 8
    labels[0:12, 0:6, :] = np.maximum(labels[0:12, 0:6, :], 2)
    grid = feature_grid(native, (4, 4, 4), (0, 0, 0))
    hard = CaseLabels(_case(synthetic, native, labels), TASK, grid).hard()
    assert set(np.unique(hard)) == {0, 1, 2}
    assert hard[1, 2, 2] == 1
