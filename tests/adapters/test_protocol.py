"""The protocol on a synthetic store: what is run, kept, resumed, scored and refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from adapters import FittedSegmenter, protocol
from adapters.comparison import Comparison, Fold, Run, signed_rank, table_rows
from adapters.folds import draw_folds
from adapters.methods import base
from adapters.metrics import Score, dice_case, score_case
from adapters.protocol import Protocol, compare
from adapters.recipe import Recipe, fast_recipe
from featcache.card import Output
from featcache.errors import StoreError, TaskError
from featcache.store import FeatureStore, StoreWriter

CASES = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="module")
def store(synthetic: SimpleNamespace, fakes: Any, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Return five cases; in case b the spleen is not outlined."""
    card = fakes.make_card([Output("fine", 10, (1, 1, 1), (0, 0, 0))])
    path = tmp_path_factory.mktemp("protocol") / "features.zarr"
    head = synthetic.own_head(card, "fine", ["liver", "spleen"])
    made: FeatureStore = synthetic.make_store(path, card, cases=CASES, head=head)
    return made


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def recipe(shots: int, *, linear: bool) -> Recipe:
        return dataclasses.replace(fast_recipe(shots, linear=linear), steps=6, warm_up=2, largest_patch=8)

    monkeypatch.setattr(base, "fast_recipe", recipe)


def _protocol(store: FeatureStore, **changes: Any) -> Protocol:
    given: dict[str, Any] = {
        "methods": ("zero-shot", "logistic"),
        "shots": (1, 2),
        "folds": draw_folds(store, shots=2, folds=2),
        "device": "cpu",
    }
    return Protocol(**{**given, **changes})


def test_runs_are_what_was_asked_for_and_scored_on_the_test_cases(
    store: FeatureStore, tmp_path: Path
) -> None:
    told: list[tuple[int, int, str]] = []
    asked = _protocol(store)
    found, failed = compare(store, asked, tmp_path / "out", on_run=lambda *n: told.append(n))
    assert failed == {}
    assert found.classes == ("liver", "spleen")
    names = [run.name for run in found.runs]
    assert sorted(names) == [
        "logistic-1-0", "logistic-1-1", "logistic-2-0", "logistic-2-1", "zero-shot-0-0",
    ]  # fmt: skip
    assert told[0] == (0, 5, "")
    assert told[-1][:2] == (5, 5)
    for run in found.runs:
        fold = asked.folds[run.fold]
        assert tuple(run.scores) == fold.test
        assert run.support == (fold.support[: run.shots] if run.shots else ())
        fitted = FittedSegmenter.load(tmp_path / "out" / "adapters" / run.name, "cpu")
        for case, row in run.scores.items():
            labels = store.case(case).labels()
            assert labels is not None
            mask, truth = fitted.predict(store.case(case)).values, labels.read()
            for name in found.classes:
                a, b = mask == fitted.adapter.task.values[name], truth == labels.classes[name]
                assert row[name].dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_a_comparison_goes_on_where_it_was_and_takes_more_methods(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    compare(store, _protocol(store), out)
    (out / "runs" / "logistic-2-1.json").unlink()
    done = []
    original = protocol.run_one

    def counted(store: Any, asked: Any, task: Any, job: Any, out: Any) -> Run:
        done.append(job.name)
        return original(store, asked, task, job, out)

    monkeypatch.setattr(protocol, "run_one", counted)
    found, _ = compare(
        store, _protocol(store, methods=("zero-shot", "logistic", "prototype"), shots=(1, 2)), out
    )
    assert done == ["prototype-1-0", "prototype-2-0", "prototype-1-1", "logistic-2-1", "prototype-2-1"]
    assert len(found.runs) == 9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "another seed;"),
        ({"width": 8}, "another width;"),
        ({"tolerance_mm": 2.0}, "another tolerance_mm;"),
        ({"classes": "liver"}, "another task;"),
        ({"folds": (Fold(("a", "b"), ("c",)),)}, "folds;"),
    ],
)
def test_runs_that_cannot_be_set_beside_each_other_are_refused(
    store: FeatureStore, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    asked = _protocol(store, methods=("zero-shot",))
    compare(store, asked, tmp_path / "out")
    with pytest.raises(StoreError, match=words):
        compare(store, dataclasses.replace(asked, **changes), tmp_path / "out")


def test_a_folder_of_something_else_is_refused(store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="is there and is no comparison"):
        compare(store, _protocol(store), tmp_path)


def test_one_run_that_fails_is_named_and_the_others_are_done(
    synthetic: SimpleNamespace, fakes: Any, tmp_path: Path
) -> None:
    card = fakes.make_card([Output("fine", 10, (1, 1, 1), (0, 0, 0))])
    headless = synthetic.make_store(tmp_path / "features.zarr", card, cases=CASES)
    found, failed = compare(headless, _protocol(headless), tmp_path / "out")
    assert list(failed) == ["zero-shot-0-0"]
    assert "this store has none" in failed["zero-shot-0-0"]
    assert len(found.runs) == 4
    assert not (tmp_path / "out" / "runs" / "zero-shot-0-0.json").exists()


def test_a_class_that_no_support_case_shows_counts_as_missed(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = protocol._truth

    def without_spleen(store: Any, task: Any, case: str) -> Any:
        values, annotated = original(store, task, case)
        hidden = task.values["spleen"] if case == "a" and "spleen" in task.names else -1
        return np.where(values == hidden, 0, values), annotated

    monkeypatch.setattr(protocol, "_truth", without_spleen)
    asked = _protocol(store, methods=("logistic",), shots=(1,), folds=(Fold(("a", "b"), ("c", "d")),))
    found, failed = compare(store, asked, tmp_path / "out")
    assert failed == {}
    (run,) = found.runs
    assert {row["spleen"].outcome for row in run.scores.values()} == {"missed"}
    assert {row["liver"].outcome for row in run.scores.values()} == {"scored"}


@pytest.mark.parametrize("method", ["linear", "pointwise"])
def test_a_class_that_the_support_does_not_show_stays_as_the_encoders_head_knows_it(
    synthetic: SimpleNamespace, fakes: Any, tmp_path: Path, method: str
) -> None:
    card = fakes.make_card([Output("fine", 10, (1, 1, 1), (0, 0, 0))])
    head = synthetic.own_head(card, "fine", ["liver", "spleen"])
    made = synthetic.make_store(tmp_path / "features.zarr", card, cases=CASES, head=head)
    labels = made.case("a").labels()
    spleenless = np.where(labels.read() == labels.classes["spleen"], 0, labels.read())
    with StoreWriter.open(made.path, made.root) as writer:
        writer.write_labels(
            "a", spleenless, labels.grid, (1, 0), classes=labels.classes, annotated=("liver", "spleen")
        )
    asked = _protocol(
        made,
        methods=("zero-shot", method),
        shots=(1,),
        folds=(Fold(("a",), ("c", "d")),),
        classes="liver,spleen",
    )
    found, failed = compare(made, asked, tmp_path / "out")
    assert failed == {}
    before, after = (run.class_dice()["spleen"] for run in found.runs)
    assert before is not None
    assert after is not None
    assert before > 0.5
    assert after > 0.9 * before


def test_two_processes_find_what_one_finds(store: FeatureStore, tmp_path: Path) -> None:
    asked = _protocol(store, methods=("zero-shot", "prototype"), shots=(1,))
    alone, _ = compare(store, asked, tmp_path / "one")
    shared, _ = compare(store, asked, tmp_path / "two", jobs=2)
    assert [(r.name, r.scores) for r in alone.runs] == [(r.name, r.scores) for r in shared.runs]


def test_surfaces_are_scored_where_asked_for(store: FeatureStore, tmp_path: Path) -> None:
    found, _ = compare(store, _protocol(store, methods=("zero-shot",), tolerance_mm=2.0), tmp_path / "out")
    scores = [s for row in found.runs[0].scores.values() for s in row.values()]
    assert all(s.nsd is not None and s.hd95_mm is not None for s in scores)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ("magic",)}, "--method 'magic'"),
        ({"methods": ("linear", "linear")}, "each once"),
        ({"shots": (0, 1)}, "expected 1 or more"),
        ({"baseline": "spatial"}, "--baseline 'spatial'"),
    ],
)
def test_what_makes_no_protocol_is_refused(store: FeatureStore, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(TaskError, match=words):
        _protocol(store, **changes)


def test_the_baseline_is_zero_shot_else_linear_else_the_first(store: FeatureStore) -> None:
    assert _protocol(store).reference == "zero-shot"
    assert _protocol(store, methods=("logistic", "linear")).reference == "linear"
    assert _protocol(store, methods=("logistic", "spatial")).reference == "logistic"
    assert _protocol(store, baseline="logistic").reference == "logistic"


def _run(method: str, shots: int, fold: int, dice: dict[str, tuple[float, float]]) -> Run:
    scores = {
        c: {"x": Score("scored", a), "y": Score("missed" if b == 0 else "scored", b)}
        for c, (a, b) in dice.items()
    }
    return Run(method, shots, fold, ("s",) * shots, scores, 10.0 + fold, 1.0, 7, (1.0, 0.5))


def test_rows_average_over_cases_then_folds_and_test_cases_against_the_baseline() -> None:
    base_run = _run("zero-shot", 0, 0, {"p": (0.5, 0.5), "q": (0.6, 0.4)})
    runs = (
        base_run,
        _run("linear", 1, 0, {"p": (0.7, 0.5), "q": (0.8, 0.0)}),
        _run("linear", 1, 1, {"p": (0.9, 0.7), "q": (0.8, 0.6)}),
    )
    found = Comparison({}, ("x", "y"), (), runs, "zero-shot")
    zero, linear = table_rows(found)
    assert (zero.method, zero.folds, zero.difference, zero.p) == ("zero-shot", 1, None, None)
    assert zero.dice == pytest.approx(0.5)
    assert linear.dice == pytest.approx((0.5 + 0.75) / 2)
    assert linear.spread == pytest.approx(np.std([0.5, 0.75], ddof=1))
    assert linear.classes["x"] == (pytest.approx(0.8), pytest.approx(np.std([0.75, 0.85], ddof=1)))
    assert linear.missed == 1
    assert linear.seconds == 10.5
    # Case means over classes and folds: p .7, q .55; the baseline's .5 and .5.
    assert linear.difference == pytest.approx(0.125)
    assert linear.p == pytest.approx(0.5)  # two cases, both better: 2 of 4 sign patterns are as extreme
    assert Run.from_json(json.loads(json.dumps(runs[1].to_json()))) == runs[1]
    json.dumps(found.to_json(), allow_nan=False)


def test_signed_rank_is_told_where_it_can_be() -> None:
    assert signed_rank(np.zeros(4)) is None
    assert signed_rank(np.array([1.0, 2, 3, 4, 5, 6])) == pytest.approx(2 / 2**6)


def test_dice_alone_equals_the_full_score() -> None:
    random = np.random.default_rng(0)
    for annotated in ((True,) * 4, (True, False, True, True)):
        a, b = (random.choice([0, 0, 1, 2, 3], (6, 7, 8)).astype(np.uint8) for _ in range(2))
        b[b == 3] = 0  # 3: a false alarm; 4: nowhere
        full, quick = score_case(a, b, annotated, (1, 1, 1), 1.0), dice_case(a, b, annotated)
        assert [s.outcome for s in full] == [s.outcome for s in quick]
        assert [s.dice for s in full] == pytest.approx([s.dice for s in quick], nan_ok=True)
