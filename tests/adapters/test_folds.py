"""Which cases are support and which are tested."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapters import folds as folds_module
from adapters.folds import cross_validation, draw_folds, read_folds
from featcache.errors import TaskError

CASES = tuple(f"case_{n}" for n in range(9))
GROUPS = {case: f"patient {number // 2}" for number, case in enumerate(CASES)}  # two scans each, one has one


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what folds need of a store; groups are those of GROUPS."""
    monkeypatch.setattr(folds_module, "_groups", lambda _: dict(GROUPS))
    return SimpleNamespace(path=Path("features.zarr"))


def _apart(support: tuple[str, ...], test: tuple[str, ...]) -> bool:
    return not {GROUPS[c] for c in support} & {GROUPS[c] for c in test}


def test_support_is_drawn_anew_and_test_cases_stay(store: Any) -> None:
    found = draw_folds(store, shots=4, folds=3)
    assert len({fold.test for fold in found}) == 1
    assert len({fold.support for fold in found}) == 3
    assert {frozenset(fold.support) for fold in found} == {frozenset(CASES) - set(found[0].test)}
    assert 2 <= len(found[0].test) <= 4
    assert all(_apart(fold.support, fold.test) for fold in found)
    assert found == draw_folds(store, shots=4, folds=3)
    assert found[:2] == draw_folds(store, shots=4, folds=2), "fold f is the same however many there are"
    assert found != draw_folds(store, shots=4, folds=3, seed=1)


def test_test_cases_of_ones_own_keep_their_group_out_of_the_support(store: Any) -> None:
    found = draw_folds(store, shots=5, folds=1, test=["case_0", "case_8"])
    assert found[0].test == ("case_0", "case_8")
    assert set(found[0].support) == set(CASES) - {"case_0", "case_1", "case_8"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shots": 9}, "none is left to test on"),
        ({"shots": 7, "test": ["case_0"]}, None),
        ({"shots": 8, "test": ["case_0"]}, "7 are left to draw from"),
        ({"shots": 1, "test": ["nobody"]}, r"--test: \['nobody'\]"),
        ({"shots": 1, "test": []}, "--test: nothing"),
    ],
)
def test_too_few_cases_are_told(store: Any, options: dict[str, Any], words: str | None) -> None:
    if words is None:
        assert len(draw_folds(store, folds=1, **options)[0].support) == 7
        return
    with pytest.raises(TaskError, match=words):
        draw_folds(store, folds=1, **options)


def test_cross_validation_tests_each_case_once_and_splits_no_patient(store: Any) -> None:
    found = cross_validation(store, CASES)
    assert sorted(case for fold in found for case in fold.test) == sorted(CASES)
    assert len(found) == 5
    assert all(_apart(fold.support, fold.test) for fold in found)
    assert len(cross_validation(store, CASES, most=2)) == 2
    with pytest.raises(TaskError, match="2 cases of 1"):
        cross_validation(store, CASES[:2])


def test_folds_of_a_file(store: Any, tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({"folds": [{"support": ["case_2", "case_0"], "test": ["case_4"]}]}))
    (fold,) = read_folds(path, store, 2)
    assert fold.support == ("case_2", "case_0")
    assert fold.test == ("case_4",)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "no folds here"),
        ('{"folds": [{"support": ["case_0"]}]}', "no folds here"),
        ('{"folds": []}', "lists no folds"),
        ('{"folds": [{"support": ["case_0", "x"], "test": ["case_4"]}]}', r"fold 0 names \['x'\]"),
        (
            '{"folds": [{"support": ["case_0", "case_2"], "test": ["case_1"]}]}',
            r"\['patient 0'\] is in support",
        ),
        ('{"folds": [{"support": ["case_0", "case_0"], "test": ["case_4"]}]}', "has 1 support"),
        ('{"folds": [{"support": ["case_0", "case_2"], "test": []}]}', "0 test cases"),
    ],
)
def test_wrong_fold_files_are_told(store: Any, tmp_path: Path, document: str, words: str) -> None:
    path = tmp_path / "folds.json"
    path.write_text(document)
    with pytest.raises(TaskError, match=words) as caught:
        read_folds(path, store, 2)
    assert str(path) in str(caught.value)
