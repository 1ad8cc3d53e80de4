"""The one shape of every adapter: what it starts as, and how many parameters it has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adapters.features import FeatureVolume
from adapters.methods import FitContext, get_method
from adapters.methods.base import head_before_residual, with_residual
from adapters.methods.heads import own_head
from adapters.model import Adapter, HeadRows, merge_rows
from adapters.positions import positions
from adapters.sampling import Support
from adapters.task import Task, parse_classes, task_of_all
from featcache.card import Output
from featcache.head import LinearHead
from featcache.store import FeatureStore


def _wide_store(synthetic: SimpleNamespace, fakes: Any, tmp_path: Any) -> FeatureStore:
    levels = [Output("fine", 30, (1, 1, 1), (0, 0, 0)), Output("coarse", 40, (2, 2, 2), (0.5, 0.5, 0.5))]
    return synthetic.make_store(tmp_path / "features.zarr", fakes.make_card(levels), cases=("a", "b"))


@pytest.mark.parametrize("method", ["pointwise", "spatial", "context"])
@pytest.mark.parametrize("recipe", ["fast", "paper"])
@pytest.mark.parametrize("wide", [False, True], ids=["14 channels", "70 channels"])
def test_a_residual_starts_exactly_at_its_head(
    method: str, recipe: Any, wide: bool, store: FeatureStore, synthetic: Any, fakes: Any, tmp_path: Any
) -> None:
    if wide:
        store = _wide_store(synthetic, fakes, tmp_path)
    names, found = ("fine", "coarse"), get_method(method)
    task = parse_classes("liver,spleen")
    support = [Support.of(store.case("a"), task, names)]
    channels = support[0].features.channels
    context = FitContext(task, support, channels, (1, 1, 1), None, recipe, width=12)
    adapter = with_residual(context, found)
    assert adapter.head.in_channels == (12 if wide else 14)
    plain = Adapter(task, head_before_residual(context), channels)
    volume = FeatureVolume(store.case("b"), names)
    inputs = volume.read((1, 2, 3), (9, 8, 7), adapter.maps)
    if found.positions:
        inputs = torch.cat([inputs, positions(volume.grid.shape, (1, 2, 3), (9, 8, 7))])
    with torch.no_grad():
        started = adapter(inputs[None])
        head = plain(volume.read((1, 2, 3), (9, 8, 7))[None])
        mapped = plain.from_rows(volume.read((1, 2, 3), (9, 8, 7), [plain.linear_map()])[None])
    assert started.shape == (1, 3, 9, 8, 7)
    assert (head - mapped).abs().max() < 1e-3
    assert (started - head).abs().max() < 2e-3
    assert head.std() > 1, "logits must vary for this to say anything"
    # And the residual is able to move it: every trainable tensor but the first convolution has a gradient.
    adapter(inputs[None]).square().mean().backward()
    last: Any = adapter.residual.last.weight  # type: ignore[union-attr]
    assert last.grad.abs().max() > 0


@pytest.mark.parametrize(("method", "count"), [("linear", 49), ("pointwise", 4657), ("spatial", 124_465)])
def test_parameter_counts_of_the_paper(method: str, count: int) -> None:
    """FSEFT, table 1: one organ, 48 channels."""
    task, head = parse_classes("liver"), HeadRows(torch.randn(1, 48), torch.zeros(1), (1,))
    found = get_method(method)
    more: dict[str, Any] = {}
    if found.residual is not None:
        more = {"projection": (torch.eye(48), torch.zeros(48)), "start": head.weights}
        more["residual"] = found.residual(48)
    assert Adapter(task, head, {"f": 48}, **more).trainable == count


def _shares(rows: np.ndarray, groups: list[int], classes: int) -> np.ndarray:
    e = np.exp(rows - rows.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    return np.stack([p[:, [g == value for g in groups]].sum(1) for value in range(classes + 1)], 1)


def test_merged_rows_add_up_probabilities() -> None:
    task = parse_classes("a,b")
    rows = torch.randn(4, 6, 2, 1, 1, generator=torch.manual_seed(0)) * 4
    groups = (0, 2, 1, 0, 1, 0)
    merged = merge_rows(rows, groups, task).softmax(1)
    assert np.allclose(merged.numpy(), _shares(rows.numpy(), list(groups), 2), atol=1e-6)


def test_merged_rows_of_a_binary_task() -> None:
    task = parse_classes("a")
    rows = torch.randn(4, 5, 2, 1, 1, generator=torch.manual_seed(0)) * 4
    groups = (0, 1, 0, 1, 0)
    merged = merge_rows(rows, groups, task)
    assert merged.shape == (4, 1, 2, 1, 1)
    assert np.allclose(
        merged.sigmoid().numpy()[:, 0], _shares(rows.numpy(), list(groups), 1)[:, 1], atol=1e-6
    )
    assert torch.equal(merge_rows(rows[:, :1], (1,), task), rows[:, :1])
    assert torch.equal(merge_rows(rows[:, :2], (0, 1), task), rows[:, 1:2] - rows[:, :1])


def test_rows_in_order_are_the_logits() -> None:
    rows = torch.randn(2, 3, 1, 1, 1, generator=torch.manual_seed(0))
    assert torch.equal(merge_rows(rows, (0, 1, 2), task_of_all(["a", "b"])), rows)


HEAD = LinearHead(
    "fine",
    ("background", "liver", "left", "right"),
    np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32),
    np.array([0.1, 0.2, 0.3, 0.4], np.float32),
    False,
    1.0,
)


def _multilabel() -> LinearHead:
    return LinearHead("fine", HEAD.classes[1:], HEAD.weights[1:], HEAD.bias[1:], True, 1.0)


def test_own_head_keeps_all_softmax_rows() -> None:
    rows = own_head(HEAD, parse_classes("kidney=left+right"), {"coarse": 2, "fine": 3})
    assert rows is not None
    assert rows.groups == (0, 0, 1, 1)
    assert rows.weights[:, :2].abs().max() == 0
    assert np.array_equal(rows.weights[:, 2:].numpy(), HEAD.weights)
    by_name = own_head(HEAD, Task(parse_classes("liver=1").classes), {"fine": 3})
    assert by_name is not None
    assert by_name.groups == (0, 1, 0, 0)


def test_own_head_of_independent_rows() -> None:
    one = own_head(_multilabel(), parse_classes("liver"), {"fine": 3})
    assert one is not None
    assert (one.groups, one.bias.tolist()) == ((1,), pytest.approx([0.2]))
    two = own_head(_multilabel(), parse_classes("right,liver"), {"fine": 3})
    assert two is not None
    assert two.groups == (0, 2, 1)
    assert two.weights[0].abs().max() == 0


@pytest.mark.parametrize(("classes", "channels"), [("liver,lung", {"fine": 3}), ("liver", {"coarse": 3})])
def test_own_head_that_does_not_serve(classes: str, channels: dict[str, int]) -> None:
    assert own_head(HEAD, parse_classes(classes), channels) is None
