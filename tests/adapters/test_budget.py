"""A time becomes a number of steps once, is recorded, and a killed training keeps it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adapters import FewShotSegmenter
from adapters.budget import Budget
from adapters.progress import Progress
from adapters.segmenter import FittedSegmenter
from featcache.store import FeatureStore


class Killed(BaseException):
    """As if the process had ended."""


def _fit(store: FeatureStore, budget: float | None, **options: object) -> FittedSegmenter:
    return FewShotSegmenter(method="spatial", shots=2, device="cpu", budget=budget, **options).fit(store)  # type: ignore[arg-type]


def test_much_time_changes_nothing_but_the_record(
    store: FeatureStore, few_steps: Callable[..., None]
) -> None:
    few_steps(steps=30, warm_up=2, largest_patch=8)
    usual, timed = _fit(store, None), _fit(store, 1e6)
    assert usual.info.recipe is not None
    assert timed.info.recipe == usual.info.recipe | {"budget": 1e6}
    pairs = zip(usual.adapter.state_dict().values(), timed.adapter.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_little_time_leaves_twenty_steps(store: FeatureStore, few_steps: Callable[..., None]) -> None:
    few_steps(steps=30, warm_up=10, largest_patch=8)
    timed = _fit(store, 1e-3)
    assert timed.info.recipe is not None
    assert (timed.info.recipe["steps"], timed.info.recipe["warm_up"]) == (20, 2)
    assert len(timed.info.curve) == 20


def test_steps_follow_the_time_of_a_step(
    store: FeatureStore, few_steps: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    few_steps(steps=1000, warm_up=10, largest_patch=4)
    now = iter(range(10_000))
    monkeypatch.setattr("adapters.budget.time.perf_counter", lambda: float(next(now)))  # a second a step
    timed = _fit(store, 60.0)
    assert timed.info.recipe is not None
    assert 45 <= timed.info.recipe["steps"] == len(timed.info.curve) <= 53


def test_a_killed_training_keeps_its_steps(
    store: FeatureStore, few_steps: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_steps(steps=30, warm_up=2, largest_patch=8)
    monkeypatch.setattr(Progress, "__post_init__", lambda self: vars(self).update(_last=0.0, every=-1.0))
    keep = tmp_path / "state"

    def stop(step: int, of: int, loss: float) -> None:
        if step == 5:
            raise Killed

    segmenter = FewShotSegmenter(method="spatial", shots=2, device="cpu", budget=1e-3)
    with pytest.raises(Killed):
        segmenter.fit(store, stop, keep)
    monkeypatch.setattr(Budget, "fit_in", None)  # nothing is measured again
    again = segmenter.fit(store, keep=keep)
    assert again.info.recipe is not None
    assert again.info.recipe["steps"] == len(again.info.curve) == 20
