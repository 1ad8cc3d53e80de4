"""Several levels on the finest one's grid, and linear maps that commute with bringing them there."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from adapters.features import FeatureVolume, LinearMap, check_levels, split_channels
from featcache.errors import AdapterMismatchError, CorruptStore
from featcache.geometry import Grid, feature_grid, world

PREPARED = Grid((23, 17, 19), np.diag([0.9, 1.3, 2.0, 1.0]))
LEVELS = {
    "coarse": (5, (4, 2, 2), (1.5, 0.5, 0.5)),
    "fine": (3, (1, 1, 2), (0.0, 0.0, 0.5)),
    "odd": (2, (4, 4, 3), (0.0, 0.0, 1.0)),
}


@pytest.fixture(scope="module")
def levels() -> dict[str, tuple[Grid, NDArray[np.float32]]]:
    random = np.random.default_rng(1)
    made = {}
    for name, (channels, stride, offset) in LEVELS.items():
        grid = feature_grid(PREPARED, stride, offset)
        made[name] = (grid, random.normal(size=(channels, *grid.shape)).astype(np.float32))
    return made


def _direct(levels: dict[str, tuple[Grid, NDArray[np.float32]]]) -> NDArray[np.float32]:
    """Return all levels at the fine grid's world positions, by scipy."""
    fine = levels["fine"][0]
    places = world(fine, np.moveaxis(np.indices(fine.shape), 0, -1))
    parts = []
    for grid, values in levels.values():
        inverse = np.linalg.inv(grid.affine)
        index = np.moveaxis(places @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)
        parts += [ndimage.map_coordinates(v, index, order=1, mode="nearest") for v in values]
    return np.stack(parts)


def test_levels_lie_on_the_finest_grid(levels: dict, synthetic: SimpleNamespace) -> None:
    volume = FeatureVolume(synthetic.MemoryCase(levels), list(levels))
    assert volume.grid == levels["fine"][0]
    assert volume.channels == {"coarse": 5, "fine": 3, "odd": 2}
    expected = _direct(levels)
    assert np.abs(volume.read((0, 0, 0), volume.grid.shape).numpy() - expected).max() < 1e-5
    for start, size in [((0, 0, 0), (1, 1, 1)), ((3, 5, 2), (7, 1, 6)), ((22, 16, 9), (1, 1, 1))]:
        box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        found = volume.read(start, size).numpy()
        assert np.abs(found - expected[(slice(None), *box)]).max() < 1e-5, (start, size)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_named(
    levels: dict, synthetic: SimpleNamespace, value: float
) -> None:
    grid, values = levels["odd"]
    wrong = values.copy()
    wrong[1, 2, 2, 2] = value
    volume = FeatureVolume(synthetic.MemoryCase(levels | {"odd": (grid, wrong)}), list(levels))
    with pytest.raises(CorruptStore, match=r"level odd: 1 of .* NaN or infinite"):
        volume.read((0, 0, 0), volume.grid.shape)
    high = FeatureVolume(synthetic.MemoryCase(levels | {"odd": (grid, values * 0 + 3e38)}), list(levels))
    high.read((0, 0, 0), high.grid.shape)  # their sum is infinite, none of them is


def test_reading_through_maps_is_mapping_what_was_read(levels: dict, synthetic: SimpleNamespace) -> None:
    volume = FeatureVolume(synthetic.MemoryCase(levels), list(levels))
    generator = torch.manual_seed(0)
    pairs = [(torch.randn(n, 10, generator=generator), torch.randn(n, generator=generator)) for n in (4, 7)]
    maps = [LinearMap(split_channels(weights, volume.channels), bias) for weights, bias in pairs]
    start, size = (2, 0, 1), (20, 17, 8)
    plain = volume.read(start, size)
    expected = torch.cat(
        [torch.tensordot(weights, plain, dims=1) + bias[:, None, None, None] for weights, bias in pairs]
    )
    assert (volume.read(start, size, maps) - expected).abs().max() < 1e-4


def test_split_channels_follows_the_order_of_levels() -> None:
    weights = torch.arange(6.0).reshape(1, 6)
    pieces = split_channels(weights, {"b": 2, "a": 4})
    assert {name: piece.tolist() for name, piece in pieces.items()} == {"b": [[0, 1]], "a": [[2, 3, 4, 5]]}


def test_a_missing_level_is_named(levels: dict, synthetic: SimpleNamespace) -> None:
    with pytest.raises(AdapterMismatchError, match=r"no level \['deep'\].*coarse.*--levels"):
        check_levels(synthetic.MemoryCase(levels), ["fine", "deep"])
