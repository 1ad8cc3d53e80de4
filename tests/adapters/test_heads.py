"""Linear starts: weighted, fair to partly labelled cases, and the same after standardising."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from adapters.methods import FitContext, get_method
from adapters.methods.base import with_residual
from adapters.methods.heads import regress
from adapters.methods.standard import standardised
from adapters.model import Adapter, HeadRows
from adapters.sampling import VoxelSample
from adapters.task import parse_classes
from featcache.errors import TaskError

TASK = parse_classes("liver,spleen")


def _sample(seed: int = 0, count: int = 900, channels: int = 3) -> VoxelSample:
    """Return voxels of two cases whose classes lie apart, on features of very different scale."""
    generator = torch.manual_seed(seed)
    values = torch.randint(0, 3, (count,), generator=generator)
    means = torch.randn(3, channels, generator=generator) * 3
    features = means[values] + torch.randn(count, channels, generator=generator)
    scale = torch.logspace(-2, 2, channels)
    cases = torch.arange(count) % 2
    annotated = torch.ones(2, 2, dtype=torch.bool)
    return VoxelSample(features * scale + 5 * scale, values, torch.ones(count), cases, annotated)


def _right(head: HeadRows, sample: VoxelSample, truth: torch.Tensor) -> float:
    found = (sample.features @ head.weights.T + head.bias).argmax(1)
    return float((found == truth).float().mean())


def test_classes_that_lie_apart_are_told_apart() -> None:
    sample = _sample()
    head = regress(sample, TASK)
    assert head.groups == (0, 1, 2)
    assert _right(head, sample, sample.values) > 0.95


def test_weights_count_as_voxels() -> None:
    sample = _sample(count=300)
    weights = torch.randint(1, 4, (300,), generator=torch.manual_seed(1))
    repeated = VoxelSample(
        sample.features.repeat_interleave(weights, 0),
        sample.values.repeat_interleave(weights),
        torch.ones(int(weights.sum())),
        sample.cases.repeat_interleave(weights),
        sample.annotated,
    )
    weighted = dataclasses.replace(sample, weights=weights.float())
    # As many voxels in both, so that the penalty weighs alike: the mean and deviation differ a little.
    a = sample.features @ regress(weighted, TASK).weights.T
    b = sample.features @ regress(repeated, TASK).weights.T
    plain = sample.features @ regress(sample, TASK).weights.T

    def distance(x: torch.Tensor) -> float:
        return float(((x - x.mean(1, keepdim=True)) - (b - b.mean(1, keepdim=True))).std() / b.std())

    assert distance(a) < 0.05
    assert distance(a) < 0.5 * distance(plain)


def test_background_of_a_partly_labelled_case_is_left_out() -> None:
    """Most spleen voxels come from a case that calls them background; another case knows better."""
    sample = _sample(count=2000)
    truth = sample.values
    annotated = torch.tensor([[True, True], [True, False]])
    cases = torch.where((truth == 2) & (torch.arange(2000) % 10 > 0), 1, sample.cases)
    seen = torch.where((cases == 1) & (truth == 2), 0, truth)
    partly = dataclasses.replace(sample, values=seen, cases=cases, annotated=annotated)
    spleen = truth == 2
    assert _right(regress(partly, TASK), _part(sample, spleen), truth[spleen]) > 0.85
    blind = dataclasses.replace(partly, annotated=torch.ones(2, 2, dtype=torch.bool))
    assert _right(regress(blind, TASK), _part(sample, spleen), truth[spleen]) < 0.7


def _part(sample: VoxelSample, mask: torch.Tensor) -> VoxelSample:
    return dataclasses.replace(sample, features=sample.features[mask])


def test_a_class_without_voxels_is_named() -> None:
    sample = _sample()
    with pytest.raises(TaskError, match=r"no voxel of \['spleen'\] in the support"):
        regress(dataclasses.replace(sample, values=sample.values.clamp(max=1)), TASK)


def test_standardising_changes_no_logit() -> None:
    sample = _sample()
    head = HeadRows(torch.randn(3, 3, generator=torch.manual_seed(0)), torch.randn(3), (0, 1, 2))
    standard, rows, restore = standardised(sample, head)
    assert standard.features.mean(0).abs().max() < 1e-4
    assert (standard.features.std(0) - 1).abs().max() < 1e-4
    before = sample.features @ head.weights.T + head.bias
    after = standard.features @ rows.weights.T + rows.bias
    assert (before - after).abs().max() < 1e-3 * before.abs().max()
    adapter = Adapter(TASK, rows, {"f": 3})
    restore(adapter)
    with torch.no_grad():
        restored = adapter(sample.features.T[None, :, :, None, None])[0, :, :, 0, 0].T
    assert (before - restored).abs().max() < 1e-3 * before.abs().max()


def test_what_a_wide_residual_reads_explains_all_it_can() -> None:
    """x is white, and what the head sees beyond x has nothing to do with x."""
    generator = torch.manual_seed(0)
    features = torch.randn(4000, 70, generator=generator) @ torch.randn(70, 70, generator=generator) + 3
    sample = dataclasses.replace(
        _sample(count=4000), features=features, values=(features[:, 0] > 3).long() + (features[:, 1] > 3)
    )
    context = FitContext(TASK, [], {"f": 70}, (1, 1, 1), None, width=16)
    context.__dict__["sample"] = sample
    context.__dict__["start"] = HeadRows(torch.randn(3, 70, generator=generator), torch.zeros(3), (0, 1, 2))
    adapter = with_residual(context, get_method("spatial"))
    x = (features @ adapter.projection.T + adapter.projection_bias).numpy()
    rest = (features @ adapter.rest.T + adapter.rest_bias).numpy()
    assert np.allclose(np.cov(x.T), np.eye(16), atol=0.02)
    assert np.abs(x.mean(0)).max() < 0.02
    beyond = np.corrcoef(x.T, rest.T)[:16, 16:]
    assert np.abs(beyond).max() < 0.02
