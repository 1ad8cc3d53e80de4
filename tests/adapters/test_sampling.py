"""Voxels and patches are what the store holds at the places they claim."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adapters import sampling
from adapters.methods import FitContext
from adapters.model import Adapter, HeadRows
from adapters.sampling import PatchBatches, Support, VoxelBatches, read_whole, sample_voxels
from adapters.task import parse_classes
from featcache.geometry import Grid
from featcache.store import FeatureStore

TASK = parse_classes("liver,spleen")
NAMES = ("fine", "coarse")


@pytest.fixture
def support(store: FeatureStore) -> list[Support]:
    return [Support.of(store.case(case), TASK, NAMES) for case in "ab"]


def _all(item: Support) -> torch.Tensor:
    return item.features.read((0, 0, 0), item.features.grid.shape)


@pytest.mark.parametrize("few_chunks", [False, True])
def test_voxels_carry_their_features_labels_and_weights(
    support: list[Support], few_chunks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if few_chunks:
        monkeypatch.setattr(sampling, "_AROUND", 16)
        monkeypatch.setattr(sampling, "_ANYWHERE", 8)
        for item in support:
            monkeypatch.setattr(item.features, "chunk", 4)
        monkeypatch.setattr(sampling, "_A_CLASS", 60)
        monkeypatch.setattr(sampling, "_NEARBY", 80)
        monkeypatch.setattr(sampling, "_ELSEWHERE", 40)
    sample = sample_voxels(support, np.random.default_rng(0))
    assert sample.features.shape == (len(sample.values), 14)
    for number, item in enumerate(support):
        mine = sample.cases == number
        hard = item.labels.hard()
        everything = _all(item).flatten(1).T
        # Every drawn vector is one of the case's voxels, with that voxel's label.
        found = torch.cdist(sample.features[mine], everything, compute_mode="donot_use_mm_for_euclid_dist")
        distance, index = found.min(1)
        assert distance.max() < 1e-4
        assert np.array_equal(hard.ravel()[index.numpy()], sample.values[mine].numpy())
        # The weights say how many voxels of the scan there are, class by class.
        for value in range(3):
            total = float(sample.weights[mine][sample.values[mine] == value].sum())
            assert total == pytest.approx((hard == value).sum(), rel=1e-4)
        if few_chunks:
            assert int(mine.sum()) <= 2 * 30 + 40 + 20


def test_voxel_batches_hold_one_case_a_step(support: list[Support]) -> None:
    sample = sample_voxels(support, np.random.default_rng(0))
    batches = VoxelBatches(sample, 10**6, np.random.default_rng(1))
    sizes = {int((sample.cases == number).sum()) for number in range(2)}
    drawn = [batches.draw() for _ in range(12)]
    assert {b.inputs.shape[2] for b in drawn} == sizes
    for batch in drawn:
        assert batch.inputs.shape[:2] == (1, 14)
        assert torch.equal(batch.target.sum(1), torch.ones_like(batch.weight[:, 0]))


def test_every_class_has_a_chunk_however_few_are_read() -> None:
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[:32] = 1  # lies in four of five layers of chunks
    labels[39, 39, 39] = 2
    for seed in range(20):
        random = np.random.default_rng(seed)
        allowed = sampling._choose_chunks(labels, np.zeros(labels.shape, bool), 8, (3, 1), random)
        assert allowed[labels == 2].all()
        assert allowed.sum() <= 5 * 8**3


def test_few_voxels_a_step_stand_for_the_whole_case(support: list[Support]) -> None:
    sample = sample_voxels(support, np.random.default_rng(0))
    batches = VoxelBatches(sample, 40, np.random.default_rng(1))
    drawn = [batches.draw() for _ in range(300)]
    assert all(20 < b.inputs.shape[2] <= 40 for b in drawn)
    voxels = float(np.prod(support[0].labels.shape))
    assert np.mean([float(b.weight.sum()) for b in drawn]) == pytest.approx(voxels, rel=0.1)


def _batches(support: list[Support], maps: Any, memory: int, seed: int = 0, **changes: Any) -> PatchBatches:
    options: dict[str, Any] = {"size": (6, 6, 6), "count": 3, "one_case": True} | changes
    return PatchBatches(support, maps, random=np.random.default_rng(seed), memory=memory, **options)


def test_patches_from_memory_and_store_agree(support: list[Support]) -> None:
    adapter = Adapter(TASK, HeadRows(torch.randn(3, 14), torch.zeros(3), (0, 1, 2)), {"fine": 6, "coarse": 8})
    for maps in ([], [adapter.linear_map()]):
        kept, read = _batches(support, maps, 2**30), _batches(support, maps, 0)
        for _ in range(4):
            a, b = kept.draw(), read.draw()
            assert torch.equal(a.target, b.target)
            size = 6.0 if maps else 3.0
            assert (a.inputs - b.inputs).abs().max() < 2e-3 * size  # float16 in memory


def test_patches_are_places_of_the_case(support: list[Support]) -> None:
    item = support[0]
    whole, soft = _all(item), item.labels.soft((0, 0, 0), item.labels.shape)
    for _ in range(3):
        batch = _batches([item], [], 0).draw()
        for patch, target in zip(batch.inputs, batch.target, strict=True):
            windows = whole.unfold(1, 6, 1).unfold(2, 6, 1).unfold(3, 6, 1)
            hit = (windows[0, ..., 0, 0, 0] == patch[0, 0, 0, 0]).nonzero()
            places = [tuple(h.tolist()) for h in hit if torch.equal(windows[:, h[0], h[1], h[2]], patch)]
            assert len(places) == 1
            x, y, z = (slice(a, a + 6) for a in places[0])
            assert torch.equal(target, soft[:, x, y, z])


def test_a_scan_smaller_than_a_patch_is_padded_with_no_weight(
    support: list[Support], synthetic: SimpleNamespace
) -> None:
    grid = Grid((22, 13, 17), np.eye(4))
    levels = {
        n: (grid, np.ones((c, *grid.shape), np.float32)) for n, c in support[0].features.channels.items()
    }
    labels = synthetic.MemoryLabels(grid, np.ones(grid.shape, np.uint8), synthetic.CLASSES)
    larger = Support.of(synthetic.MemoryCase(levels, labels=labels), TASK, NAMES)
    batches = _batches([support[0], larger], [], 0, size=(40, 40, 4), one_case=False, count=8)
    batch = batches.draw()
    shape = support[0].features.grid.shape
    assert batch.inputs.shape == (8, 14, 22, max(shape[1], 13), 4), "no larger than the largest scan"
    small = batch.weight[:, 0, -1, 0, 0] == 0
    assert 0 < int(small.sum()) < 8
    seen, beyond = (
        (slice(None), slice(None), slice(shape[0])),
        (slice(None), slice(None), slice(shape[0], None)),
    )
    assert batch.weight[small][seen].min() == 1
    assert batch.weight[small][beyond].max() == 0
    assert batch.inputs[small][beyond].abs().max() == 0
    assert batch.weight[~small][:, :, :, :13].min() == 1
    assert batch.weight[~small][:, :, :, 13:].max() == 0


def test_half_of_the_patches_look_at_structures(support: list[Support]) -> None:
    batches = _batches(support, [], 2**30, size=(1, 1, 1), count=40, one_case=False)
    inside = torch.cat([b.target[:, 1:].sum((1, 2, 3, 4)) for b in (batches.draw() for _ in range(10))]) > 0
    share = np.mean([(i.labels.hard() > 0).mean() for i in support])
    assert float(inside.float().mean()) == pytest.approx(0.5 + 0.5 * share, abs=0.08)


def test_read_whole_equals_one_read(support: list[Support], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support[0].features, "chunk", 2)  # blocks of 8: several an axis
    assert torch.equal(read_whole(support[0].features, []), _all(support[0]).half())


def test_patch_sizes_follow_the_stride(support: list[Support]) -> None:
    channels = support[0].features.channels
    adapter = Adapter(TASK, HeadRows(torch.zeros(3, 14), torch.zeros(3), (0, 1, 2)), channels)
    context = FitContext(TASK, support[:1], channels, (4, 4, 2), None, "paper")
    recipe = context.recipe(linear=True)
    assert recipe.patch == 96
    batch = context.patches(adapter, dataclasses.replace(recipe, patch=24)).draw()
    assert batch.inputs.shape == (6, 14, 6, 6, 12)
    batch = context.patches(adapter, dataclasses.replace(recipe, patch=24, largest_patch=5)).draw()
    assert batch.inputs.shape == (6, 14, 5, 5, 5)
