"""The losses against figures computed by hand, and what is not annotated."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from adapters.losses import cross_entropy_loss, give_to_background, probabilities, soft_dice_loss
from adapters.recipe import fast_recipe, paper_recipe
from adapters.sampling import Batch
from adapters.training import training_loss

ITEMS, CLASSES, SIZE = 3, 2, (4, 3, 2)


def _random(binary: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits, soft target and weights."""
    generator = torch.manual_seed(0)
    classes = 1 if binary else CLASSES
    logits = torch.randn(ITEMS, 1 if binary else classes + 1, *SIZE, generator=generator)
    target = torch.rand(ITEMS, classes + 1, *SIZE, generator=generator)
    weight = torch.randint(0, 4, (ITEMS, 1, *SIZE), generator=generator).float()
    return logits, target / target.sum(1, keepdim=True), weight


def _dice(p: np.ndarray, t: np.ndarray, w: np.ndarray) -> float:
    return float(1 - (2 * (w * p * t).sum() + 1) / ((w * p).sum() + (w * t).sum() + 1))


def test_probabilities() -> None:
    logits = torch.tensor([[0.5], [-2.0]])[..., None, None, None]
    found = probabilities(logits)[:, :, 0, 0, 0].numpy()
    inside = 1 / (1 + np.exp([-0.5, 2.0]))
    assert np.allclose(found, np.stack([1 - inside, inside], 1))
    several = torch.tensor([[0.0, 1.0, 3.0]])[..., None, None, None]
    e = np.exp([0, 1, 3])
    assert np.allclose(probabilities(several)[0, :, 0, 0, 0].numpy(), e / e.sum())


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("per_item", [True, False])
def test_dice_equals_numpy(binary: bool, per_item: bool) -> None:
    logits, target, weight = _random(binary)
    shares = probabilities(logits)
    annotated = torch.ones(ITEMS, 1 if binary else CLASSES, dtype=torch.bool)
    p, t, w = (x.numpy().astype(np.float64) for x in (shares, target, weight))
    channels = [1] if binary else range(CLASSES + 1)  # the background of a binary task is not scored
    if per_item:
        expected = np.mean([_dice(p[i, c], t[i, c], w[i, 0]) for i in range(ITEMS) for c in channels])
    else:
        expected = np.mean([_dice(p[:, c], t[:, c], w[:, 0]) for c in channels])
    found = soft_dice_loss(shares, target, weight, annotated, per_item=per_item)
    assert float(found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("per_item", [True, False])
def test_dice_leaves_out_what_is_not_annotated(per_item: bool) -> None:
    logits, target, weight = _random()
    annotated = torch.tensor([[True, False], [False, False], [True, True]])
    p, t, w = (x.numpy().astype(np.float64) for x in (probabilities(logits), target, weight))
    items = {0: [0, 1, 2], 1: [0, 2], 2: [2]}
    if per_item:
        expected = np.mean([_dice(p[i, c], t[i, c], w[i, 0]) for c, known in items.items() for i in known])
    else:
        expected = np.mean([_dice(p[known, c], t[known, c], w[known, 0]) for c, known in items.items()])
    found = soft_dice_loss(probabilities(logits), target, weight, annotated, per_item=per_item)
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_cross_entropy_equals_numpy() -> None:
    logits, target, weight = _random()
    p, t, w = (x.numpy().astype(np.float64) for x in (probabilities(logits), target, weight))
    expected = (-(t * np.log(p)).sum(1) * w[:, 0]).sum() / w.sum()
    assert float(cross_entropy_loss(probabilities(logits), target, weight)) == pytest.approx(
        expected, rel=1e-5
    )


def test_what_is_unknown_goes_to_the_background() -> None:
    _, shares, _ = _random()
    annotated = torch.tensor([[True, False], [False, False], [True, True]])
    found = give_to_background(shares, annotated)
    assert torch.allclose(found.sum(1), torch.ones(ITEMS, *SIZE))
    assert torch.allclose(found[0, 0], shares[0, 0] + shares[0, 2])
    assert torch.equal(found[0, 1], shares[0, 1])
    assert found[0, 2].abs().max() == 0
    assert torch.allclose(found[1, 0], torch.ones(SIZE))
    assert torch.equal(found[2], shares[2])


@pytest.mark.parametrize("recipe", [paper_recipe(1, linear=False), fast_recipe(1, linear=False)])
def test_a_class_that_is_not_annotated_is_not_pushed(recipe) -> None:
    """Moving probability between background and an unknown class changes nothing."""
    logits, target, weight = _random()
    batch = Batch(logits, target, weight, torch.tensor([[True, False]] * ITEMS))

    def loss(shift: torch.Tensor) -> torch.Tensor:
        shares = probabilities(logits)
        moved = shares + torch.stack([-shift, torch.zeros_like(shift), shift], 1)
        return training_loss(moved.log(), batch, recipe)

    shift = torch.zeros(ITEMS, *SIZE, requires_grad=True)
    value = loss(shift)
    value.backward()
    assert shift.grad is not None
    assert shift.grad.abs().max() < 1e-6
    known = dataclasses.replace(batch, annotated=torch.ones(ITEMS, 2, dtype=torch.bool))
    batch, shift = known, torch.zeros(ITEMS, *SIZE, requires_grad=True)
    loss(shift).backward()
    assert shift.grad is not None
    assert shift.grad.abs().max() > 1e-3


def test_weight_zero_leaves_a_voxel_out() -> None:
    logits, target, weight = _random()
    weight[:, :, 2:] = 0
    annotated = torch.ones(ITEMS, CLASSES, dtype=torch.bool)
    values = []
    for push in (0.0, 50.0):
        changed = logits.clone()
        changed[:, 1, 2:] += push
        values.append(
            training_loss(changed, Batch(changed, target, weight, annotated), fast_recipe(1, linear=False))
        )
    assert float(values[0]) == float(values[1])
