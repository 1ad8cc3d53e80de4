"""The training loop. One for all methods, readable from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from adapters.losses import cross_entropy_loss, give_to_background, probabilities, soft_dice_loss
from adapters.model import Adapter
from adapters.recipe import Recipe
from adapters.sampling import Batch

OnStep = Callable[[int, int, float], None]
"""Told the step (from 1), the number of steps, and the loss."""


class Batches(Protocol):
    """Where a training step's batch comes from."""

    def draw(self) -> Batch:
        """Return the batch of one step."""


def train(
    adapter: Adapter,
    batches: Batches,
    recipe: Recipe,
    *,
    device: str = "cpu",
    on_step: OnStep | None = None,
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
    """
    adapter.to(device).train()
    adapter.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=recipe.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _Schedule(recipe.warm_up, recipe.steps))
    plateau = _Plateau(recipe.epoch)
    precision = bfloat16_if_fast(device)
    curve: list[float] = []
    for step in range(1, recipe.steps + 1):
        batch = batches.draw().to(device)
        with torch.autocast(device.split(":", maxsplit=1)[0], torch.bfloat16, enabled=precision):
            logits = adapter(batch.inputs)
        loss = training_loss(logits.float(), batch, recipe)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        curve.append(float(loss.detach()))
        if on_step is not None:
            on_step(step, recipe.steps, curve[-1])
        if recipe.plateau and plateau.reached(curve):
            break
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


@dataclass(frozen=True)
class _Schedule:
    warm_up: int
    steps: int

    def __call__(self, step: int) -> float:
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


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
