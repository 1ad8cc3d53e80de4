"""Classes by name and value, merges, and what a case annotates."""

from __future__ import annotations

import json

import numpy as np
import pytest

from adapters.task import Task, TaskClass, parse_classes, resolve, task_of_all
from featcache.errors import TaskError

CLASSES = {"liver": 1, "left": 2, "right": 3, "7": 9}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("liver", [("liver", ("liver",))]),
        (" liver , kidney = 2 + right ", [("liver", ("liver",)), ("kidney", ("2", "right"))]),
        ("liver=1", [("liver", ("1",))]),
    ],
)
def test_parse(text: str, expected: list[tuple[str, tuple[str, ...]]]) -> None:
    task = parse_classes(text)
    assert [(c.name, c.sources) for c in task.classes] == expected
    assert task.values == {name: value for value, (name, _) in enumerate(expected, 1)}
    assert (task.binary, task.channels) == (
        len(expected) == 1,
        1 if len(expected) == 1 else len(expected) + 1,
    )
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "''"),
        ("liver,,spleen", "''"),
        ("liver,=2", "'=2'"),
        ("kidney=2++3", r"'kidney=2\+\+3'"),
        ("liver,liver=2", "class name.*liver.*more than once"),
        ("a=2,b=2", "label class.*2.*more than once"),
    ],
)
def test_what_is_no_task_is_refused(text: str, words: str) -> None:
    with pytest.raises(TaskError, match=words) as caught:
        parse_classes(text)
    assert "--classes" in str(caught.value)


def test_a_task_needs_a_class() -> None:
    with pytest.raises(TaskError, match="at least one class"):
        Task(())


def test_resolve_merges_names_and_values() -> None:
    found = resolve(parse_classes("kidney=2+right,liver"), CLASSES, list(CLASSES), "case a")
    labels = np.array([[0, 1, 2], [3, 9, 2]])
    assert found.apply(labels).tolist() == [[0, 2, 1], [1, 0, 1]]
    assert found.annotated == (True, True)


def test_a_merged_class_is_annotated_where_all_its_parts_are() -> None:
    task = parse_classes("kidney=left+right,liver")
    assert resolve(task, CLASSES, ["left", "liver"], "case a").annotated == (False, True)
    assert resolve(task, CLASSES, ["left", "right"], "case a").annotated == (True, False)


def test_a_name_wins_over_a_value() -> None:
    assert resolve(parse_classes("x=7"), CLASSES, ["7"], "case a").apply(np.array([7, 9])).tolist() == [0, 1]


def test_unknown_class_names_case_and_choices() -> None:
    with pytest.raises(TaskError, match=r"case a: unknown class 'lung'.*liver \(1\), left \(2\)"):
        resolve(parse_classes("liver,lung"), CLASSES, [], "case a")


def test_task_of_all() -> None:
    assert task_of_all(["a", "b"]) == Task((TaskClass("a", ("a",)), TaskClass("b", ("b",))))
