"""Which cases are drawn, what is refused, and partly labelled support."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adapters import FewShotSegmenter, segmenter
from adapters.segmenter import choose_device, choose_support
from featcache.card import Intensity, Preparation
from featcache.errors import AdapterMismatchError, TaskError
from featcache.extraction import extract
from featcache.store import FeatureStore, StoreWriter


def test_shots_are_drawn_by_the_seed_one_within_five(store: FeatureStore) -> None:
    draws = {}
    for seed in range(8):
        one, three, five = (choose_support(store, FewShotSegmenter(shots=n, seed=seed)) for n in (1, 3, 5))
        assert five[:1] == one
        assert five[:3] == three
        assert sorted(five) == list("abcde")
        draws[seed] = tuple(five)
    assert len(set(draws.values())) > 4
    assert choose_support(store, FewShotSegmenter()) == list("abcde")
    assert choose_support(store, FewShotSegmenter(support=["c", "a", "c"])) == ["c", "a"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shots": 2, "support": ["a"]}, "both --shots and --support"),
        ({"support": ["a", "z", "f"]}, r"--support: \['z', 'f'\].*a, b, c"),
        ({"support": []}, "--support: nothing"),
        ({"shots": 6}, r"--shots 6: .*5 labelled cases; expected 1 to 5"),
        ({"shots": 0}, "--shots 0"),
        ({"classes": "lung"}, r"unknown class 'lung'.*liver \(1\), spleen \(2\)"),
        ({"method": "nonsense"}, "'nonsense': expected one of zero-shot, prototype"),
        ({"method": "zero-shot"}, "zero-shot needs the encoder's own head"),
    ],
)
def test_what_makes_no_task_is_refused(store: FeatureStore, options: dict[str, Any], words: str) -> None:
    with pytest.raises(TaskError, match=words):
        FewShotSegmenter(device="cpu", **options).fit(store)


def test_a_level_that_is_not_there(store: FeatureStore) -> None:
    with pytest.raises(AdapterMismatchError, match=r"no level \['deep'\]"):
        FewShotSegmenter("logistic", levels=["deep"], device="cpu").fit(store)


def test_a_store_without_labels_or_cases(synthetic: SimpleNamespace, card: Any, tmp_path: Path) -> None:
    bare = synthetic.make_store(tmp_path / "bare.zarr", card, cases=("a",), unlabelled=("a",))
    with pytest.raises(TaskError, match=r"bare\.zarr has no labels.*featcache label --in"):
        FewShotSegmenter(device="cpu").fit(bare)
    head = synthetic.own_head(card, "fine", ["liver"])
    empty = synthetic.make_store(tmp_path / "empty.zarr", card, cases=(), head=head)
    with pytest.raises(TaskError, match="holds no cases"):
        FewShotSegmenter("zero-shot", device="cpu").fit(empty)


def test_classes_annotated_nowhere(synthetic: SimpleNamespace, card: Any, tmp_path: Path) -> None:
    known = {"a": ("liver",), "b": ("liver",), "c": ("liver", "spleen")}
    store = synthetic.make_store(tmp_path / "features.zarr", card, annotated=known)
    with pytest.raises(TaskError, match="'spleen' is annotated in none of the support cases"):
        FewShotSegmenter("logistic", support=["a", "b"], classes="liver,spleen", device="cpu").fit(store)
    with pytest.raises(TaskError, match="'spleen' is not annotated in a, b"):
        FewShotSegmenter("logistic", support=["a", "b", "c"], classes="spleen", device="cpu").fit(store)
    both = FewShotSegmenter("logistic", support=["a", "b"], device="cpu").fit(store)
    assert both.adapter.task.names == ("liver",), "only what is annotated becomes a class by itself"


def test_a_class_that_no_case_shows(synthetic: SimpleNamespace, card: Any, tmp_path: Path) -> None:
    """Annotated, but absent: there is nothing to learn it from."""
    store = synthetic.make_store(tmp_path / "features.zarr", card, cases=("a", "b"))
    with synthetic.no_waiting(), StoreWriter.open(store.path, store.root) as writer:
        for case, kept in (("a", 1), ("b", 9)):
            labels = store.case(case).labels()
            assert labels is not None
            values = np.where(labels.read() == kept, labels.read(), 0)
            classes = {"classes": labels.classes, "annotated": labels.annotated}
            writer.write_labels(case, values, labels.grid, (1, 0), **classes)
    with pytest.raises(TaskError, match=r"no voxel of \['spleen'\]"):
        FewShotSegmenter("logistic", classes="liver,spleen", device="cpu").fit(store)
    shown = FewShotSegmenter("logistic", device="cpu").fit(store)
    assert shown.adapter.task.names == ("liver",)
    with pytest.raises(TaskError, match="none of the support cases b shows any class"):
        FewShotSegmenter("logistic", support=["b"], device="cpu").fit(store)


def test_merges_and_the_order_of_classes(store: FeatureStore) -> None:
    fitted = FewShotSegmenter("logistic", shots=2, classes="both=spleen+1", device="cpu").fit(store)
    assert fitted.adapter.task.values == {"both": 1}
    found = fitted.predict(store.case("f"))
    assert found.classes == {"both": 1}
    turned = FewShotSegmenter("logistic", shots=2, classes="spleen,liver", device="cpu").fit(store)
    straight = FewShotSegmenter("logistic", shots=2, classes="liver,spleen", device="cpu").fit(store)
    a, b = (s.predict(store.case("f")).values for s in (turned, straight))
    assert (np.array([0, 2, 1])[b] == a).mean() > 0.995


@pytest.mark.parametrize("method", ["logistic", "linear", "pointwise", "spatial"])
def test_partly_labelled_cases_do_not_push_away(
    synthetic: SimpleNamespace, card: Any, tmp_path: Path, few_steps: Callable[..., None], method: str
) -> None:
    """Of each class one case tells; in the others its voxels are not called background."""
    few_steps(steps=40, warm_up=4, largest_patch=8, learning_rate=5e-3)
    known = {"a": ("liver",), "b": ("spleen",), "c": ("liver",), "d": ("spleen",)}
    cases = ("a", "b", "c", "d", "e")
    store = synthetic.make_store(tmp_path / "features.zarr", card, cases=cases, annotated=known)
    fitted = FewShotSegmenter(method, support=list("abcd"), classes="liver,spleen", device="cpu").fit(store)
    found = fitted.predict(store.case("e")).values
    labels = store.case("e").labels()
    assert labels is not None
    truth = labels.read()
    for value in (1, 2):
        assert synthetic.dice(found == value, truth == value) > 0.7, value


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(TaskError, match=r"--device cuda: torch finds no CUDA device.*--device cpu"):
        choose_device("cuda")


def test_patches_follow_the_stored_order_of_axes(tmp_path: Any, fakes: Any) -> None:
    """An LIA encoder's features are stored as (L, A, I): strides must not be taken axis by axis."""
    card = fakes.conv_encoder(tmp_path / "fm.onnx", preparation=Preparation("LIA", None, Intensity("none")))
    voxels = np.random.default_rng(0).normal(size=(20, 18, 8)).astype(np.float32)
    fakes.write_scan(tmp_path / "scans" / "a.nii.gz", voxels, np.diag([1.0, 1.0, 5.0, 1.0]))
    result = extract(tmp_path / "fm.onnx", tmp_path / "scans", tmp_path / "f.zarr")
    store = FeatureStore.open(result.store)
    assert card.output("l3").stride == (4, 4, 2)  # L, I, A
    assert segmenter._levels(store, ["a"], ["l3"]) == ({"l3": 8}, (4, 2, 4))
    assert segmenter._levels(store, ["a"], ["l1"])[1] == (1, 1, 1)
