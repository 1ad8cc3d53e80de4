"""An adapter on disk is the adapter that was saved, whole, and only for its encoder."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import FewShotSegmenter, FittedSegmenter
from adapters.checkpoint import CONFIG, WEIGHTS, load_adapter
from featcache.errors import AdapterMismatchError, StoreError
from featcache.store import FeatureStore


@pytest.fixture(scope="module")
def fitted(store: FeatureStore) -> FittedSegmenter:
    return FewShotSegmenter("logistic", shots=2, classes="liver,spleen", device="cpu").fit(store)


@pytest.fixture
def folder(fitted: FittedSegmenter, tmp_path: Path) -> Path:
    fitted.save(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("method", ["linear", "pointwise", "spatial"])
def test_round_trip(store: FeatureStore, few_steps: Callable[..., None], tmp_path: Path, method: str) -> None:
    made = FewShotSegmenter(method, shots=1, device="cpu").fit(store)
    made.save(tmp_path / "adapter")
    loaded = FittedSegmenter.load(tmp_path / "adapter", "cpu")
    assert loaded.info == made.info
    assert loaded.adapter.task == made.adapter.task
    assert loaded.adapter.radius == made.adapter.radius == (2 if method == "spatial" else 0)
    state = made.adapter.state_dict()
    assert state.keys() == loaded.adapter.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in loaded.adapter.state_dict().items())
    width = 14 if method == "linear" else made.adapter.head.in_channels + made.adapter.rest.shape[0]
    values = torch.randn(1, width, 5, 5, 5, generator=torch.manual_seed(0))
    with torch.no_grad():
        assert torch.equal(made.adapter(values), loaded.adapter(values))


def test_the_config_says_what_a_person_asks(folder: Path, fitted: FittedSegmenter) -> None:
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    assert config["method"] == "logistic"
    assert config["encoder_id"] == "e" * 64
    assert config["support"] == list(fitted.info.support)
    assert [c["name"] for c in config["task"]] == ["liver", "spleen"]
    assert sorted(p.name for p in folder.iterdir()) == [CONFIG, WEIGHTS]


def test_an_existing_folder_is_refused(folder: Path, fitted: FittedSegmenter) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(AdapterMismatchError, match=r"--out .*adapter exists.*never overwritten"):
        fitted.save(folder)
    (folder.parent / "empty").mkdir()
    with pytest.raises(AdapterMismatchError, match="exists"):
        fitted.save(folder.parent / "empty")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def _edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        change(config)
        (folder / CONFIG).write_text(json.dumps(config), "utf-8")

    return apply


def _flip(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-3] ^= 1
    (folder / WEIGHTS).write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_flip, f"{WEIGHTS} differs from what {CONFIG} records"),
        (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:100]), "differs from"),
        (lambda f: (f / WEIGHTS).unlink(), "damaged"),
        (lambda f: (f / CONFIG).unlink(), "no adapter here.*adapters train --out"),
        (lambda f: (f / CONFIG).write_text("{", "utf-8"), "no adapter here"),
        (lambda f: (f / CONFIG).write_text("[1]", "utf-8"), "no adapter here"),
        (_edit(lambda c: c.update(format_version=2)), r"found format.*2.*newer featcache"),
        (_edit(lambda c: c.update(format="other")), "found format"),
        (_edit(lambda c: c.pop("seed")), "damaged.*seed"),
        (_edit(lambda c: c.update(channels=[["fine", 5]])), "damaged"),
        (_edit(lambda c: c.update(groups=[0, 1])), "damaged"),
        (_edit(lambda c: c.update(task=[])), "damaged|at least one class"),
    ],
)
def test_damage_is_named(folder: Path, damage: Callable[[Path], Any], words: str) -> None:
    damage(folder)
    with pytest.raises(AdapterMismatchError, match=words) as caught:
        load_adapter(folder)
    assert str(folder) in str(caught.value)


def test_a_folder_that_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(AdapterMismatchError, match="no adapter here"):
        load_adapter(tmp_path / "nothing")


def test_another_encoder_is_refused_another_recipe_warned_of(
    fitted: FittedSegmenter, store: FeatureStore, synthetic: Any, card: Any, tmp_path: Path
) -> None:
    assert fitted.check(store) is None
    other = synthetic.make_store(tmp_path / "other.zarr", card, cases=("a",), encoder_id="f" * 64)
    with pytest.raises(
        AdapterMismatchError, match=r"other\.zarr holds features of encoder 'toy' \(ffff.*eeee"
    ):
        fitted.check(other)
    recipe = synthetic.make_store(tmp_path / "recipe.zarr", card, cases=("a",), recipe_id="b" * 64)
    warning = fitted.check(recipe)
    assert warning is not None
    assert "another recipe" in warning


def test_a_full_disk_leaves_nothing(
    fitted: FittedSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(StoreError, match=r"adapter.*No space left"):
        fitted.save(tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []
