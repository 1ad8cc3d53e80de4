"""Separable linear interpolation against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from adapters.interpolate import interpolate, source_positions
from featcache.geometry import Grid, axis_map, reorient, world


@pytest.mark.parametrize("shape", [(7, 5, 6), (1, 4, 2), (1, 1, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_interpolate_equals_scipy(shape: tuple[int, int, int], seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=(3, *shape)).astype(np.float32)
    positions = [np.sort(random.uniform(-2, n + 1, random.integers(1, 11))) for n in shape]
    found = interpolate(torch.from_numpy(values), positions).numpy()
    mesh = np.meshgrid(*positions, indexing="ij")
    expected = np.stack([ndimage.map_coordinates(v, mesh, order=1, mode="nearest") for v in values])
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5


def test_whole_positions_return_the_values_themselves() -> None:
    values = torch.randn(2, 4, 3, 5, generator=torch.manual_seed(0))
    same = [np.arange(n, dtype=np.float64) for n in values.shape[1:]]
    assert torch.equal(interpolate(values, same), values)
    turned = interpolate(values, [same[0][::-1], same[1], same[2]])
    assert torch.equal(turned, values.flip(1))


@pytest.mark.parametrize("codes", ["RAS", "LIA", "SPR", "IRP"])
def test_source_positions_are_where_world_coordinates_say(codes: str) -> None:
    affine = np.diag([0.8, 1.5, 2.0, 1.0])
    affine[:3, 3] = (4, -20, 7)
    source = Grid((9, 8, 7), affine)
    target, _ = reorient(Grid((5, 12, 6), np.diag([1.1, 0.9, 3.0, 1.0])), codes)
    start, size = (1, 2, 0), (3, 4, 5)
    positions, axes = source_positions(axis_map(source, target), start, size)
    index = np.stack(
        np.meshgrid(*(np.arange(a, a + n) for a, n in zip(start, size, strict=True)), indexing="ij")
    )
    places = world(target, np.moveaxis(index, 0, -1))
    expected = (places - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    for t, s in enumerate(axes):
        along = np.moveaxis(expected[..., s], t, 0).reshape(size[t], -1)
        assert np.allclose(along, positions[s][:, None], atol=1e-9)
