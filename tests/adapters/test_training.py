"""The loop: the loss falls, stops on a plateau, and follows the seed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from adapters.model import Adapter, HeadRows, Residual
from adapters.recipe import Recipe, fast_recipe, paper_recipe
from adapters.sampling import Batch
from adapters.task import parse_classes
from adapters.training import train

CHANNELS = 5


class Fixed:
    """One batch again and again: the sign of the first channel is the class."""

    def __init__(self) -> None:
        inputs = torch.randn(2, CHANNELS, 6, 6, 6, generator=torch.manual_seed(0))
        inside = (inputs[:, :1] > 0).float()
        self._batch = Batch(
            inputs,
            torch.cat([1 - inside, inside], 1),
            torch.ones(2, 1, 6, 6, 6),
            torch.ones(2, 1, dtype=torch.bool),
        )
        self.drawn = 0
        self.random = np.random.default_rng(0)

    def draw(self) -> Batch:
        self.drawn += 1
        return self._batch


def _adapter(residual: bool, seed: int = 0) -> Adapter:
    torch.manual_seed(seed)
    head = HeadRows(torch.zeros(1, CHANNELS), torch.zeros(1), (1,))
    if not residual:
        return Adapter(parse_classes("a"), head, {"f": CHANNELS})
    start = torch.full((1, CHANNELS), 0.1)
    parts = (torch.eye(CHANNELS), torch.zeros(CHANNELS))
    return Adapter(
        parse_classes("a"),
        HeadRows(start, head.bias, (1,)),
        {"f": CHANNELS},
        projection=parts,
        start=start,
        residual=Residual(CHANNELS, 3),
        radius=2,
    )


class Direct(Adapter):
    """An adapter with a residual that reads features as if through its maps."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        rest = torch.zeros_like(values[:, : len(self.groups)])
        return super().forward(torch.cat([values, rest], 1))


@pytest.mark.parametrize("name", ["fast", "paper"])
@pytest.mark.parametrize("residual", [False, True])
def test_the_loss_falls(name: str, residual: bool) -> None:
    make = fast_recipe if name == "fast" else paper_recipe
    recipe = dataclasses.replace(make(1, linear=True), steps=60, warm_up=3, learning_rate=3e-2)
    adapter = _adapter(residual)
    if residual:
        adapter.__class__ = Direct
    told: list[tuple[int, int, float]] = []
    curve = train(adapter, Fixed(), recipe, on_step=lambda *step: told.append(step))
    assert curve[-1] < 0.7 * curve[0]
    assert [t[0] for t in told] == list(range(1, len(curve) + 1))
    assert {t[1] for t in told} == {60}
    assert [t[2] for t in told] == curve
    assert not adapter.training


def test_an_anchor_holds_an_adapter_near_its_start() -> None:
    moved = []
    for anchor in (0.0, 1.0, 100.0):
        recipe = dataclasses.replace(
            fast_recipe(1, linear=True), steps=60, warm_up=3, learning_rate=3e-2, anchor=anchor
        )
        adapter = _adapter(True)
        start = [value.detach().clone() for value in adapter.parameters()]
        adapter.__class__ = Direct
        train(adapter, Fixed(), recipe)
        pairs = zip(adapter.parameters(), start, strict=True)
        moved.append(float(sum((value.detach() - begun).square().sum() for value, begun in pairs)))
    assert moved[0] > 4 * moved[1] > 4 * moved[2]


@pytest.mark.parametrize("linear", [False, True])
def test_the_anchor_falls_with_the_square_of_the_shots(linear: bool) -> None:
    one, five = (fast_recipe(shots, linear=linear).anchor for shots in (1, 5))
    assert one == pytest.approx(25 * five)
    assert paper_recipe(1, linear=linear).anchor == 0


def _flat(epoch: int, **changes: Any) -> tuple[list[float], Fixed]:
    """Return the curve of a training that learns nothing."""
    recipe = dataclasses.replace(paper_recipe(epoch, linear=True), learning_rate=1e-12, **changes)
    batches = Fixed()
    return train(_adapter(False), batches, recipe), batches


def test_the_paper_stops_on_a_plateau_at_epoch_31() -> None:
    curve, batches = _flat(1)
    assert len(curve) == batches.drawn == 31
    assert len(_flat(2)[0]) == 62
    assert len(_flat(1, plateau=False, steps=40)[0]) == 40


def test_the_paper_goes_on_while_the_loss_falls() -> None:
    recipe = dataclasses.replace(paper_recipe(1, linear=True), steps=50, learning_rate=3e-3)
    assert len(train(_adapter(False), Fixed(), recipe)) == 50


def test_the_learning_rate_warms_up_and_ends_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        seen.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    recipe = dataclasses.replace(fast_recipe(1, linear=True), steps=20, warm_up=4, learning_rate=1.0)
    train(_adapter(False), Fixed(), recipe)
    assert seen[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert seen[4:] == pytest.approx([0.5 * (1 + np.cos(np.pi * k / 16)) for k in range(16)])


def test_recipes_are_json() -> None:
    recipe = paper_recipe(5, linear=False)
    assert Recipe(**recipe.to_json()) == recipe
    assert (recipe.steps, recipe.learning_rate, recipe.patch, recipe.patches) == (1000, 1e-4, 96, 6)
    assert paper_recipe(5, linear=True).learning_rate == 1e-2
