"""What every adaptation method keeps to: a new one is tested by being registered."""

from __future__ import annotations

import dataclasses
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adapters import FewShotSegmenter, FittedSegmenter
from adapters.methods import base, get_method, method_names, register, registry
from adapters.recipe import Recipe, fast_recipe
from featcache.card import Output
from featcache.errors import TaskError
from featcache.store import FeatureStore

METHODS = method_names()
FINE, COARSE = ((1, 1, 1), (0, 0, 0)), ((2, 2, 2), (0.5, 0.5, 0.5))
STORES = {
    "narrow": [Output("fine", 10, *FINE)],
    "narrow, two levels": [Output("fine", 6, *FINE), Output("coarse", 8, *COARSE)],
    "wide": [Output("fine", 70, *FINE)],
    "wide, two levels": [Output("coarse", 60, *COARSE), Output("fine", 12, *FINE)],
}


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def recipe(shots: int, *, linear: bool) -> Recipe:
        return dataclasses.replace(fast_recipe(shots, linear=linear), steps=12, warm_up=4, largest_patch=8)

    monkeypatch.setattr(base, "fast_recipe", recipe)


@pytest.fixture(scope="module")
def stores(synthetic: SimpleNamespace, fakes: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function from a name to a store of three cases, with the encoder's own head."""
    made: dict[str, FeatureStore] = {}

    def get(name: str) -> FeatureStore:
        if name not in made:
            card = fakes.make_card(STORES[name])
            path = tmp_path_factory.mktemp("methods") / "features.zarr"
            head = synthetic.own_head(card, "fine", ["liver", "spleen"])
            made[name] = synthetic.make_store(path, card, head=head)
        return made[name]

    return get


def _fit(store: FeatureStore, method: str, classes: str, seed: int = 0) -> FittedSegmenter:
    options: dict[str, Any] = {"support": ["a", "b"]} if get_method(method).needs_labels else {}
    return FewShotSegmenter(method, classes=classes, seed=seed, device="cpu", width=8, **options).fit(store)


def _state(fitted: FittedSegmenter) -> dict[str, torch.Tensor]:
    return fitted.adapter.state_dict()


@pytest.mark.parametrize("classes", ["liver", "liver,spleen"], ids=["binary", "two classes"])
@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("method", METHODS)
def test_finds_structures_and_comes_back_from_disk(
    stores: Any, synthetic: SimpleNamespace, tmp_path: Path, method: str, name: str, classes: str
) -> None:
    store = stores(name)
    fitted = _fit(store, method, classes)
    case = store.case("c")
    found = fitted.predict(case)
    labels = case.labels()
    assert labels is not None
    truth = labels.read()
    assert found.grid == case.info.native
    assert found.classes == {n: v for v, n in enumerate(classes.split(","), 1)}
    for cls, value in found.classes.items():
        overlap = synthetic.dice(found.values == value, truth == labels.classes[cls])
        assert overlap > 0.7, f"{cls}: Dice {overlap:.3f}"
    assert fitted.info.trainable == (0 if not get_method(method).needs_labels else fitted.adapter.trainable)
    assert len(fitted.info.curve) == (0 if fitted.info.recipe is None else fitted.info.recipe["steps"])
    fitted.save(tmp_path / "adapter")
    loaded = FittedSegmenter.load(tmp_path / "adapter", "cpu")
    assert loaded.info == fitted.info
    assert all(torch.equal(_state(loaded)[key], value) for key, value in _state(fitted).items())
    assert np.array_equal(loaded.predict(case).values, found.values)


@pytest.mark.parametrize("method", METHODS)
def test_follows_the_seed(stores: Any, method: str) -> None:
    store = stores("narrow, two levels")
    first, again, other = (_fit(store, method, "liver,spleen", seed) for seed in (3, 3, 4))
    assert _state(first).keys() == _state(again).keys()
    assert all(torch.equal(_state(again)[key], value) for key, value in _state(first).items())
    assert first.info.curve == again.info.curve
    if first.info.curve:
        assert first.info.curve != other.info.curve


@pytest.mark.parametrize("method", METHODS)
def test_a_wide_encoder_does_not_explode(stores: Any, method: str) -> None:
    """Above 64 channels a residual reads a projection: parameters grow with its width alone."""
    fitted = _fit(stores("wide"), method, "liver")
    assert fitted.info.trainable <= 2 * 27 * 8 * (8 + 3) + 2 * (70 + 1)


@pytest.mark.parametrize("method", METHODS)
def test_says_what_it_is(method: str) -> None:
    found = get_method(method)
    assert found.name == method
    assert 10 < len(found.summary) < 90
    assert found.radius >= 0
    if found.residual is not None:
        residual = found.residual(4)
        x = torch.randn(1, 4 + 3 * found.positions, 5, 5, 5, generator=torch.manual_seed(0))
        assert torch.equal(residual(x), torch.zeros(1, 4, 5, 5, 5)), "an adapter starts at its head"


@pytest.mark.parametrize("method", [m for m in METHODS if get_method(m).residual is not None])
def test_the_radius_covers_what_a_voxel_sees(method: str) -> None:
    found = get_method(method)
    assert found.residual is not None
    residual: Any = found.residual(3)
    torch.nn.init.normal_(residual.last.weight)
    x = torch.zeros(1, 3 + 3 * found.positions, 11, 11, 11, requires_grad=True)
    residual(x + torch.randn(x.shape, generator=torch.manual_seed(0)))[0, :, 5, 5, 5].sum().backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0).nonzero() - 5
    assert int(seen.abs().max()) == found.radius


def test_a_name_is_taken_once() -> None:
    with pytest.raises(TaskError, match=r"'linear' is registered already"):
        register(get_method("linear"))
    assert method_names() == METHODS


def test_an_unknown_name_lists_all() -> None:
    with pytest.raises(TaskError, match=r"--method 'nonsense': expected one of " + ", ".join(METHODS)):
        get_method("nonsense")


def test_a_new_method_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    register(dataclasses.replace(get_method("linear"), name="mine"))
    assert method_names() == (*METHODS, "mine")
    assert get_method("mine").fit is get_method("linear").fit


def _installed(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    point = EntryPoint("theirs", value, registry.GROUP)
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.setattr(registry, "_seen", set())
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == registry.GROUP else [])


def test_a_method_of_an_installed_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = dataclasses.replace(get_method("linear"), name="theirs")
    monkeypatch.setattr(base, "theirs", theirs, raising=False)
    _installed(monkeypatch, "adapters.methods.base:theirs")
    assert get_method("theirs") is theirs
    assert method_names() == (*METHODS, "theirs")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nowhere.at_all:METHOD", "cannot be loaded"),
        ("adapters.methods.base:nothing", "cannot be loaded"),
        ("adapters.methods.base:Method", "expected an adapters.methods.Method of that name"),
        ("adapters.methods.linear:METHOD", "expected an adapters.methods.Method of that name"),
    ],
)
def test_a_broken_package_is_named(monkeypatch: pytest.MonkeyPatch, value: str, words: str) -> None:
    _installed(monkeypatch, value)
    with pytest.raises(TaskError, match=f"'theirs' of the package .*{words}"):
        get_method("theirs")
