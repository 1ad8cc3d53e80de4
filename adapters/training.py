"""The training loop. One for all methods, readable from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from adapters.losses import cross_entropy_loss, give_to_background, probabilities, soft_dice_loss
from adapters.model import Adapter
from adapters.progress import Progress
from adapters.recipe import Recipe
from adapters.sampling import Batch

OnStep = Callable[[int, int, float], None]
"""Told the step (from 1), the number of steps, and the loss."""


class Batches(Protocol):
    """Where a training step's batch comes from.

    Parameters
    ----------
    random : numpy Generator
        All that a batch depends on, beside what never changes.
    """

    random: np.random.Generator

    def draw(self) -> Batch:
        """Return the batch of one step."""


def train(
    adapter: Adapter,
    batches: Batches,
    recipe: Recipe,
    *,
    device: str = "cpu",
    on_step: OnStep | None = None,
    progress: Progress | None = None,
) -> list[float]:
    """Train `adapter` in place and return the loss of every step.

    Parameters
    ----------
    adapter : Adapter
    batches : Batches
    recipe : Recipe
    device : str
        "cpu" or a CUDA device.
    on_step : callable, optional
        Told about progress.
    progress : Progress, optional
        Where the training's state is kept; it goes on from what is there.
    """
    adapter.to(device).train()
    adapter.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=recipe.learning_rate, weight_decay=0.0)
    plateau = _Plateau(recipe.epoch)
    precision = bfloat16_if_fast(device)
    start = [value.detach().clone() for value in adapter.parameters()] if recipe.anchor else []
    curve: list[float] = []
    if progress is not None:
        curve = progress.load(adapter, optimiser, batches.random)
    for step in range(len(curve) + 1, recipe.steps + 1):
        optimiser.param_groups[0]["lr"] = learning_rate(recipe, step - 1)
        batch = batches.draw().to(device)
        with torch.autocast(device.split(":", maxsplit=1)[0], torch.bfloat16, enabled=precision):
            logits = adapter(batch.inputs)
        loss = training_loss(logits.float(), batch, recipe)
        if recipe.anchor:
            moved = zip(adapter.parameters(), start, strict=True)
            distance = torch.stack([(value - begun).square().sum() for value, begun in moved]).sum()
            loss = loss + recipe.anchor * distance
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        curve.append(float(loss.detach()))
        if on_step is not None:
            on_step(step, recipe.steps, curve[-1])
        if progress is not None:
            progress.save(adapter, optimiser, batches.random, curve, recipe.steps)
        if recipe.plateau and plateau.reached(curve):
            break
    if progress is not None:
        progress.clear()
    adapter.to("cpu").eval()
    return curve


def training_loss(logits: torch.Tensor, batch: Batch, recipe: Recipe) -> torch.Tensor:
    """Return soft Dice, plus cross-entropy where the recipe has it, masked to what is annotated."""
    shares = give_to_background(probabilities(logits), batch.annotated)
    target = give_to_background(batch.target, batch.annotated)
    counted = batch.annotated
    if not recipe.dice_per_item:
        # Classes that occur in no patch of the step would only be pushed away.
        axes = (0, *range(2, target.ndim))
        counted = counted & ((target[:, 1:] * batch.weight).sum(axes) > 0)
    loss = soft_dice_loss(shares, target, batch.weight, counted, per_item=recipe.dice_per_item)
    if recipe.cross_entropy:
        weight = batch.weight * (1 + (recipe.foreground - 1) * (1 - target[:, :1]))
        loss = loss + recipe.cross_entropy * cross_entropy_loss(shares, target, weight)
    return loss


def bfloat16_if_fast(device: str) -> bool:
    """Return whether bfloat16 convolutions are faster than float32 ones on `device`."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the learning rate of a step, from 0: a linear warm-up, then a cosine to zero."""
    if step < recipe.warm_up:
        return recipe.learning_rate * (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(recipe.steps - recipe.warm_up, 1)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@dataclass(frozen=True)
class _Plateau:
    """FSEFT's stop: from epoch 31 on, when the 10-epoch moving average of the loss fell by less than 0.001
    against 20 epochs back."""

    epoch: int

    def reached(self, curve: list[float]) -> bool:
        if len(curve) % self.epoch or len(curve) // self.epoch < 31:
            return False
        epochs = [sum(curve[i : i + self.epoch]) / self.epoch for i in range(0, len(curve), self.epoch)]
        return _average(epochs[-30:-20]) - _average(epochs[-10:]) < 1e-3


def _average(values: list[float]) -> float:
    return sum(values) / len(values)
