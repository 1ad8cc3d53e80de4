"""Grids: the rules of docs/coordinates.md, one by one."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache import geometry
from featcache.errors import GeometryError
from featcache.geometry import Grid

ORIENTATIONS = [
    "".join(codes)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*order)
]


def oblique(degrees: float = 15.0) -> np.ndarray:
    """Return a rotation about an axis that is none of the world's."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def grid_of(codes: str = "RAS", shape=(5, 7, 9), spacing=(0.7, 1.0, 2.5), rotation=None) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) @ np.diag(spacing)
    affine[:3, 3] = (-12.5, 40.0, 7.25)
    return geometry.reorient(Grid(shape, affine), codes)[0]


def positions(grid: Grid) -> np.ndarray:
    """Return the world coordinates of every voxel, shape (X, Y, Z, 3)."""
    return geometry.world(grid, np.moveaxis(np.indices(grid.shape), 0, -1))


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_reorienting_moves_voxels_and_keeps_their_places(codes):
    scan = grid_of("LIA", rotation=oblique())
    turned, step = geometry.reorient(scan, codes)
    assert geometry.axis_codes(turned) == codes
    moved = np.stack(
        [geometry.apply_reorientation(positions(scan)[..., axis], step) for axis in range(3)], axis=-1
    )
    assert moved.shape[:3] == turned.shape
    np.testing.assert_allclose(moved, positions(turned), atol=1e-9)


@pytest.mark.parametrize("codes", ["", "RA", "RAX", "RRS", "RLS", "ras", "RASI"])
def test_an_orientation_that_is_none_is_refused(codes):
    with pytest.raises(GeometryError, match="expected three letters"):
        geometry.check_axis_codes(codes)


@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    start=st.tuples(*[st.integers(-5, 10)] * 3),
    index=st.tuples(*[st.integers(0, 30)] * 3),
)
def test_a_crop_keeps_places(shape, start, index):
    grid = grid_of("PLI", shape, rotation=oblique())
    part = geometry.crop(grid, start, (3, 4, 5))
    np.testing.assert_allclose(
        geometry.world(part, np.array(index)), geometry.world(grid, np.array(index) + start), atol=1e-9
    )


@settings(max_examples=200)
@given(size=st.integers(1, 200), old=st.floats(0.2, 8), new=st.floats(0.2, 8))
def test_respacing_covers_the_last_voxel_and_not_one_more(size, old, new):
    grid = grid_of(shape=(size, 1, 1), spacing=(old, 1, 1))
    fine = geometry.respace(grid, (new, 1, 1))
    np.testing.assert_array_equal(fine.affine[:3, 3], grid.affine[:3, 3])
    if abs(new / old - 1) <= 1e-3:
        assert fine == grid
        return
    assert geometry.spacing(fine)[0] == pytest.approx(new)
    length = (size - 1) * old
    assert (fine.shape[0] - 1) * new >= length - 2e-3 * new
    assert (fine.shape[0] - 2) * new < length


def test_respacing_follows_the_axes_of_an_oblique_grid():
    grid = grid_of("AIR", rotation=oblique())
    fine = geometry.respace(grid, (0.5, 0.5, 0.5))
    assert geometry.spacing(fine) == pytest.approx((0.5, 0.5, 0.5))
    cosine = np.einsum("ij,ij->j", fine.affine[:3, :3], grid.affine[:3, :3])
    np.testing.assert_allclose(cosine, 0.5 * np.array(geometry.spacing(grid)))


@pytest.mark.parametrize("target", [(0, 1, 1), (-1, 1, 1), (float("nan"), 1, 1)])
def test_a_spacing_must_be_positive(target):
    with pytest.raises(GeometryError, match="must be positive"):
        geometry.respace(grid_of(), target)


@pytest.mark.parametrize(
    ("size", "stride", "ceil", "floor"), [(16, 4, 4, 4), (17, 4, 5, 4), (19, 4, 5, 4), (3, 4, 1, 0)]
)
def test_feature_size(size, stride, ceil, floor):
    found = geometry.feature_size(size, stride, "ceil"), geometry.feature_size(size, stride, "floor")
    assert found == (ceil, floor)


def test_a_feature_lies_over_stride_times_index_plus_offset():
    grid = grid_of("LIA", (17, 19, 21), rotation=oblique())
    features = geometry.feature_grid(grid, (4, 4, 2), (1.5, 1.5, 0.5))
    assert grid.shape == (17, 21, 19)
    assert features.shape == (5, 6, 10)
    np.testing.assert_allclose(
        geometry.world(features, np.array([2, 0, 3])), geometry.world(grid, np.array([9.5, 1.5, 6.5]))
    )


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_axis_map_tells_the_way_between_grids_of_one_scan(codes):
    scan = grid_of("PLI", (11, 13, 9), rotation=oblique())
    oriented = geometry.crop(geometry.reorient(scan, codes)[0], (1, 2, 1), (6, 5, 7))
    target = geometry.feature_grid(geometry.respace(oriented, (1.1, 1.2, 0.9)), (2, 1, 4), (0.5, 0, 1.5))
    step = geometry.axis_map(scan, target)
    index = np.array([1, 2, 1])
    source = np.empty(3)
    for axis in range(3):
        source[step.axes[axis]] = step.scale[axis] * index[axis] + step.offset[axis]
    np.testing.assert_allclose(geometry.world(scan, source), geometry.world(target, index), atol=1e-9)


def test_grids_rotated_against_each_other_are_refused():
    with pytest.raises(GeometryError, match="rotated against each other"):
        geometry.axis_map(grid_of(), grid_of(rotation=oblique()))


def test_corner_distance_is_in_voxels_of_the_finer_spacing():
    grid = grid_of()
    shifted = Grid(grid.shape, grid.affine + _shift(1.4))
    assert geometry.corner_distance(grid, shifted) == pytest.approx(2.0)
    # A flip of the whole grid is far away although its eight corners are the same set of points.
    affine = grid.affine.copy()
    affine[:3, 0] *= -1
    affine[:3, 3] = geometry.world(grid, np.array([4, 0, 0]))
    assert geometry.corner_distance(grid, Grid(grid.shape, affine)) == pytest.approx(4.0)


def _shift(x: float) -> np.ndarray:
    matrix = np.zeros((4, 4))
    matrix[0, 3] = x
    return matrix


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((3, 4), np.eye(4), "three positive sizes"),
        ((3, 0, 4), np.eye(4), "three positive sizes"),
        ((3, 4, 5), np.eye(3), "finite 4x4"),
        ((3, 4, 5), np.diag([1, np.nan, 1, 1]), "finite 4x4"),
        ((3, 4, 5), np.diag([1, 0, 1, 1]), "singular"),
    ],
)
def test_a_grid_is_checked_when_built(shape, affine, message):
    with pytest.raises(GeometryError, match=message):
        Grid(shape, affine)


def test_a_grid_survives_json_bit_for_bit_and_is_not_writable():
    grid = grid_of("LIA", rotation=oblique(1 / 3))
    assert Grid.from_json(json.loads(json.dumps(grid.to_json()))) == grid
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2
    for document in (
        {},
        {"shape": [1, 2, 3]},
        {"shape": [1, 2, 3], "affine": "x"},
        {"shape": 3, "affine": []},
    ):
        with pytest.raises(GeometryError):
            Grid.from_json(document)
