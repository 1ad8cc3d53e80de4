"""Several sites' stores as one: ids, what is refused, and classes that only one site outlines."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from adapters import FewShotSegmenter
from adapters.comparison import Fold
from adapters.protocol import Protocol, compare
from adapters.task import check_known, parse_classes, resolve
from featcache.card import EncoderCard
from featcache.errors import FeaturesNotFound, StoreError, TaskError
from featcache.store import FeatureStore, StorePool, StoreWriter

Make = Callable[..., FeatureStore]


@pytest.fixture
def make(synthetic: SimpleNamespace, card: EncoderCard, tmp_path: Path) -> Make:
    def store(name: str, cases: str, **options: Any) -> FeatureStore:
        made: FeatureStore = synthetic.make_store(
            tmp_path / f"{name}.zarr", options.pop("card", card), cases=tuple(cases), **options
        )
        return made

    return store


def _pool(*stores: FeatureStore, **options: Any) -> FeatureStore:
    return StorePool.of([store.path for store in stores], **options)


def test_ids_stay_unless_two_stores_share_one(make: Make) -> None:
    north, south = make("north", "abc", unlabelled=("c",)), make("south", "cd")
    pool = _pool(north, south)
    assert pool.cases() == ["a", "b", "d", "north/c", "south/c"]
    assert pool.labelled() == ["a", "b", "d", "south/c"]
    assert pool.case("south/c").folder == south.case("c").folder
    assert pool.case("a").folder == north.case("a").folder
    assert pool.name == "north.zarr, south.zarr"
    with pytest.raises(FeaturesNotFound, match=r"one of north/c, south/c"):
        pool.case("c")
    with pytest.raises(FeaturesNotFound, match=r"no case 'z'; there are 5 others"):
        pool.case("z")
    alone = _pool(north)
    assert type(alone) is FeatureStore


def test_folders_of_one_name_are_told_apart_by_their_paths(make: Make, tmp_path: Path) -> None:
    store = make("one", "a")
    shutil.copytree(store.path, tmp_path / "other" / "one.zarr")
    pool = StorePool.of([store.path, tmp_path / "other" / "one.zarr"])
    assert pool.cases() == sorted([f"{store.path}/a", f"{tmp_path}/other/one.zarr/a"])


def test_other_encoders_and_recipes_are_refused_with_what_differs(make: Make, card: EncoderCard) -> None:
    one = make("one", "a")
    other_card = dataclasses.replace(card, version="9")
    with pytest.raises(StoreError, match=r"another encoder than .*one\.zarr: version: .* there, 9 here"):
        _pool(one, make("two", "b", card=other_card, encoder_id="f" * 64))
    with pytest.raises(StoreError, match="the cards are equal, the weights are not"):
        _pool(one, make("three", "b", encoder_id="f" * 64))
    recipe = make("four", "b", recipe_id="b" * 64)
    with pytest.raises(StoreError, match=r"another recipe .*--other-recipe"):
        _pool(one, recipe)
    assert _pool(one, recipe, other_recipe=True).cases() == ["a", "b"]
    with pytest.raises(StoreError, match="named twice"):
        _pool(one, one)


def test_a_class_that_one_site_outlines_is_learned(
    make: Make, synthetic: SimpleNamespace, few_steps: Callable[..., None]
) -> None:
    few_steps(steps=60, warm_up=4, largest_patch=8, learning_rate=5e-3)
    north = make("north", "abc", names=("liver",))
    south = make("south", "abc", names=("spleen",))
    test = make("test", "defg", names=("liver", "spleen"))
    fitted = FewShotSegmenter("linear", device="cpu").fit(_pool(north, south))
    assert fitted.adapter.task.names == ("liver", "spleen")
    assert fitted.info.support == tuple(f"{site}/{case}" for site in ("north", "south") for case in "abc")
    for case in test.cases():
        labels = test.case(case).labels("labels")
        assert labels is not None
        found, truth = fitted.predict(test.case(case)).values, labels.read()
        for name, value in fitted.adapter.task.values.items():
            assert synthetic.dice(found == value, truth == labels.classes[name]) > 0.6, (case, name)


def test_a_pool_is_compared_in_processes(make: Make, tmp_path: Path, few_steps: Callable[..., None]) -> None:
    few_steps(steps=4, warm_up=1, largest_patch=8)
    pool = _pool(make("north", "ab"), make("south", "bc"))
    folds = (Fold(("a", "north/b"), ("c", "south/b")), Fold(("c", "south/b"), ("a", "north/b")))
    found, failed = compare(pool, Protocol(("logistic",), (1, 2), folds), tmp_path / "out", jobs=2)
    assert not failed
    assert len(found.runs) == 4
    assert {case for run in found.runs for case in run.scores} == {"a", "c", "north/b", "south/b"}


def _rename(store: FeatureStore, case: str, names: dict[str, int]) -> None:
    labels = store.case(case).labels("labels")
    assert labels is not None
    with StoreWriter.open(store.path, store.root) as writer:
        writer.write_labels(case, labels.read(), labels.grid, (1, 0), classes=names, annotated=tuple(names))


def test_names_that_clash_between_stores(make: Make, synthetic: SimpleNamespace) -> None:
    north, south = make("north", "ab"), make("south", "cd")
    values = synthetic.CLASSES
    for case in "cd":
        _rename(south, case, {"Liver": values["liver"], "spleen": values["spleen"]})
    pool = _pool(north, south)
    with pytest.raises(TaskError, match=r"'liver' in a, 'Liver' in c.*--classes liver=liver\|Liver"):
        FewShotSegmenter("logistic", device="cpu").fit(pool)
    fitted = FewShotSegmenter("logistic", classes="liver=liver|Liver,spleen", device="cpu").fit(pool)
    labels = south.case("d").labels("labels")
    assert labels is not None
    found = fitted.predict(south.case("d")).values
    assert synthetic.dice(found == 1, labels.read() == values["liver"]) > 0.6


def test_values_that_mean_two_things() -> None:
    known = {"a": {"liver": 1, "spleen": 2}, "b": {"spleen": 1}}
    with pytest.raises(TaskError, match=r"value 1 in --classes stands for 'liver' in a, 'spleen' in b"):
        check_known(parse_classes("x=1"), known, "pool")
    check_known(parse_classes("x=2"), known, "pool")
    check_known(parse_classes("liver,spleen"), known, "pool")
    with pytest.raises(TaskError, match="unknown class 'lung'"):
        check_known(parse_classes("lung"), known, "pool")
    # One case that has both spellings means two classes.
    check_known(parse_classes("Liver,liver"), {"a": {"Liver": 1, "liver": 2}, "b": {"liver": 1}}, "pool")


def test_alternatives_take_the_one_that_is_there() -> None:
    task = parse_classes("liver=liver|Liver|7")
    for classes in ({"liver": 3}, {"Liver": 3}, {"other": 1, "Leber": 7}):
        value = max(classes.values())
        found = resolve(task, classes, tuple(classes), "a")
        assert found.apply(np.array([0, value])).tolist() == [0, 1]
        assert found.annotated == (True,)
    with pytest.raises(TaskError, match="found both liver and Liver"):
        resolve(task, {"liver": 1, "Liver": 2}, (), "a")
