"""The largest component of each class, against components grown by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adapters.inference import Segmentation
from adapters.postprocess import largest_components
from featcache.geometry import Grid


def _kept(values: np.ndarray) -> np.ndarray:
    """Return the label map after post-processing; what was given must stay as it is."""
    before = values.copy()
    grid = Grid(values.shape, np.diag([1.0, 2.0, 3.0, 1.0]))
    given_ = Segmentation(values, grid, (1, 0), {"a": 1, "b": 2})
    found = largest_components(given_)
    assert np.array_equal(values, before)
    assert found.values.dtype == values.dtype
    assert (found.grid, found.codes, found.classes) == (grid, (1, 0), given_.classes)
    return found.values


def _grown(values: np.ndarray, start: Any) -> set[Any]:
    """Return the voxels that hang together with `start`, by faces, edges or corners."""
    found, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        for step in itertools.product((-1, 0, 1), repeat=3):
            there = tuple(a + b for a, b in zip(here, step, strict=True))
            inside = all(0 <= a < n for a, n in zip(there, values.shape, strict=True))
            if inside and there not in found and values[there] == values[start]:
                found.add(there)
                waiting.append(there)
    return found


def _by_hand(values: np.ndarray) -> np.ndarray:
    best: dict[int, set[Any]] = {}
    for place in np.ndindex(values.shape):  # in order, so that the first of equals is met first
        value = int(values[place])
        if value and not any(place in component for component in best.values()):
            component = _grown(values, place)
            if len(component) > len(best.get(value, ())):
                best[value] = component
    expected = np.zeros_like(values)
    for value, component in best.items():
        for place in component:
            expected[place] = value
    return expected


@settings(deadline=None, max_examples=60)
@given(
    arrays(
        np.uint8,
        st.tuples(*[st.integers(1, 6)] * 3),
        elements=st.sampled_from([0, 0, 0, 0, 0, 1, 2]),
    )
)
def test_as_by_hand(values: np.ndarray) -> None:
    assert np.array_equal(_kept(values), _by_hand(values))


def test_corners_join() -> None:
    values = np.zeros((4, 4, 6), np.uint8)
    values[0, 0, 0] = values[1, 1, 1] = values[2, 2, 2] = 1  # three that touch by corners
    values[:2, 0, 5] = 1  # two
    kept = _kept(values)
    assert [tuple(int(i) for i in place) for place in np.argwhere(kept)] == [(0, 0, 0), (1, 1, 1), (2, 2, 2)]


@pytest.mark.parametrize("first", [0, 4])
def test_the_first_of_equals_stays(first: int) -> None:
    """Whichever way the volume is turned, the order is that of the array."""
    values = np.zeros((5, 5, 5), np.uint8)
    values[first, 4, 4] = values[4 - first, 0, 0] = 1
    values[2, 2, 2] = 1
    assert np.argwhere(_kept(values)).tolist() == ([[0, 4, 4]] if first == 0 else [[0, 0, 0]])


def test_classes_are_on_their_own() -> None:
    """A class that lies across another one does not join its parts, and is not counted with it."""
    values = np.zeros((9, 3, 3), np.uint16)
    values[:4] = 300
    values[4] = 7
    values[5:7] = 300
    values[8] = 7
    values[8, 0, 0] = 0
    kept = _kept(values)
    assert (kept[:5] == values[:5]).all()
    assert not kept[5:].any()


def test_nothing_to_keep() -> None:
    assert not _kept(np.zeros((3, 4, 5), np.uint8)).any()
