"""Small stores for the adapters' tests."""

from __future__ import annotations

import dataclasses
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adapters.methods import base
from adapters.recipe import Recipe, fast_recipe
from featcache.card import EncoderCard, Output
from featcache.store import FeatureStore

SYNTHETIC = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "synthetic.py")))


@pytest.fixture(scope="session")
def synthetic() -> SimpleNamespace:
    """Return the module that makes synthetic cases and stores."""
    return SYNTHETIC


@pytest.fixture(scope="session")
def card(fakes: Any) -> EncoderCard:
    """Return a card with a level of stride 1 and one of stride 2, 6 and 8 channels."""
    return fakes.make_card(
        [Output("fine", 6, (1, 1, 1), (0, 0, 0)), Output("coarse", 8, (2, 2, 2), (0.5, 0.5, 0.5))]
    )


@pytest.fixture(scope="session")
def store(card: EncoderCard, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Return a store of six cases, the last one unlabelled; no test may change it."""
    path = tmp_path_factory.mktemp("store") / "features.zarr"
    return SYNTHETIC.make_store(path, card, cases=tuple("abcdef"), unlabelled=("f",))


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes the fast recipe faster still."""

    def change(**numbers: Any) -> None:
        def recipe(shots: int, *, linear: bool) -> Recipe:
            return dataclasses.replace(fast_recipe(shots, linear=linear), **numbers)

        monkeypatch.setattr(base, "fast_recipe", recipe)

    change(steps=12, warm_up=2, largest_patch=8)
    return change


@pytest.fixture
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in float32 on processors that are faster in bfloat16 too."""
    monkeypatch.setattr("adapters.inference.bfloat16_if_fast", lambda device: False)
    monkeypatch.setattr("adapters.training.bfloat16_if_fast", lambda device: False)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Volumes this small only lose by being shared out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
