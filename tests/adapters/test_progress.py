"""A training that was killed goes on, to the very same adapter; what does not belong to it is not used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import FewShotSegmenter
from adapters.progress import Progress
from adapters.segmenter import FittedSegmenter
from featcache.errors import StoreError
from featcache.store import FeatureStore


class Killed(BaseException):
    """As if the process had ended."""


@pytest.fixture(autouse=True)
def _every_step(monkeypatch: pytest.MonkeyPatch, few_steps: Callable[..., None]) -> None:
    few_steps(steps=12, warm_up=2, largest_patch=8)
    monkeypatch.setattr(Progress, "__post_init__", lambda self: vars(self).update(_last=0.0, every=-1.0))


def _fit(
    store: FeatureStore, keep: Path | None, stop: int | None = None, **options: Any
) -> tuple[FittedSegmenter, int]:
    """Return the segmenter and the first step that was made."""
    steps: list[int] = []

    def on_step(step: int, of: int, loss: float) -> None:
        steps.append(step)
        if step == stop:
            raise Killed

    chosen = {"method": "spatial", "shots": 2, "device": "cpu"} | options
    return FewShotSegmenter(**chosen).fit(store, on_step, keep), steps[0]


def _same(one: FittedSegmenter, other: FittedSegmenter) -> bool:
    pairs = zip(one.adapter.state_dict().items(), other.adapter.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("method", ["linear", "spatial", "context"])
def test_killed_and_gone_on_is_as_never_killed(store: FeatureStore, tmp_path: Path, method: str) -> None:
    keep = tmp_path / ".adapter.training"
    whole, _ = _fit(store, None, method=method)
    for stop in (5, 9):
        with pytest.raises(Killed):
            _fit(store, keep, stop, method=method)
    again, first = _fit(store, keep, method=method)
    assert first == 9  # step 9 was made, but killed before it was written
    assert _same(again, whole)
    assert again.info.curve == whole.info.curve
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"shots": 1}, {"method": "pointwise"}, {"classes": "liver"}]
)
def test_another_training_begins_anew(store: FeatureStore, tmp_path: Path, changed: dict[str, Any]) -> None:
    keep = tmp_path / "state"
    with pytest.raises(Killed):
        _fit(store, keep, 6)
    again, first = _fit(store, keep, **changed)
    assert first == 1
    assert _same(again, _fit(store, None, **changed)[0])


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half", None])
def test_a_damaged_state_is_no_state(store: FeatureStore, tmp_path: Path, damage: bytes | None) -> None:
    keep = tmp_path / "state"
    with pytest.raises(Killed):
        _fit(store, keep, 6)
    data = keep.read_bytes()
    keep.write_bytes(data[: len(data) // 2] if damage is None else damage)
    assert _fit(store, keep)[1] == 1


def test_a_place_that_cannot_be_written(store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="state could not be written"):
        _fit(store, tmp_path / "file" / "state")
