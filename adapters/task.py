"""What is to be segmented: classes by name, merges, and which of them each case annotates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import TaskError


@dataclass(frozen=True)
class TaskClass:
    """One structure: its name, and the label classes that it is made of.

    A source is a class name or a label value; "liver|Liver" is either, as a case's labels have it.
    """

    name: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """The structures of a segmentation, in the order of their values 1..K in a mask; 0 is background.

    Parameters
    ----------
    classes : tuple of TaskClass
        One class makes a binary task (sigmoid), several a multi-class task (softmax with background).

    Raises
    ------
    TaskError
        If there is no class, or a name or a source occurs twice.
    """

    classes: tuple[TaskClass, ...]

    def __post_init__(self) -> None:
        if not self.classes:
            raise TaskError("a task needs at least one class; expected --classes such as liver,kidney=2+3")
        names = [c.name for c in self.classes]
        sources = [s for c in self.classes for s in c.sources]
        for what, values in (("class name", names), ("label class", sources)):
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                raise TaskError(f"{what} {twice} occurs more than once in --classes; expected each once")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, without background."""
        return tuple(c.name for c in self.classes)

    @property
    def values(self) -> dict[str, int]:
        """Class names and their values in a mask."""
        return {name: value for value, name in enumerate(self.names, 1)}

    @property
    def binary(self) -> bool:
        """Whether there is one class only."""
        return len(self.classes) == 1

    @property
    def channels(self) -> int:
        """Logits a voxel: one for a binary task, else one a class and one for the background."""
        return 1 if self.binary else len(self.classes) + 1

    def to_json(self) -> list[dict[str, Any]]:
        """Return the task as JSON values."""
        return [{"name": c.name, "sources": list(c.sources)} for c in self.classes]

    @classmethod
    def from_json(cls, document: Sequence[Mapping[str, Any]]) -> Task:
        """Return the task written by `to_json`."""
        return cls(tuple(TaskClass(c["name"], tuple(c["sources"])) for c in document))


def parse_classes(text: str) -> Task:
    """Return the task of ``"liver=liver|Liver,kidney=2+3,lung=lung_left+lung_right"``.

    ``name`` takes the label class of that name; ``name=a+b`` merges label classes, given by name or value;
    ``name=a|b`` takes the one that a case has.
    """
    classes = []
    for item in text.split(","):
        name, _, sources = (part.strip() for part in item.partition("="))
        parts = tuple(s.strip() for s in (sources or name).split("+"))
        if not name or not all(parts):
            raise TaskError(
                f"--classes {text!r}: found {item!r}; expected name, or name=source+source, separated by commas"
            )
        classes.append(TaskClass(name, parts))
    return Task(tuple(classes))


def task_of_all(names: Sequence[str]) -> Task:
    """Return the task with every label class as a class of its own."""
    return Task(tuple(TaskClass(name, (name,)) for name in names))


@dataclass(frozen=True)
class CaseTask:
    """A task as one case's labels know it.

    Parameters
    ----------
    table : ndarray, shape (n,), int64
        Task value (0..K) of every label value.
    annotated : tuple of bool
        Per class, whether this case annotates all of its sources.
    """

    table: NDArray[np.int64]
    annotated: tuple[bool, ...]

    def apply(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Return label values as task values."""
        values: NDArray[np.int64] = self.table[labels]
        return values


def resolve(
    task: Task,
    classes: Mapping[str, int],
    annotated: Sequence[str],
    where: str,
    *,
    unknown_is_error: bool = True,
) -> CaseTask:
    """Return `task` in terms of one case's label values.

    Parameters
    ----------
    task : Task
    classes : mapping of str to int
        The case's class names and label values.
    annotated : sequence of str
        Class names annotated in the case.
    where : str
        Named in the error.
    unknown_is_error : bool
        Whether a source that is neither a class name nor a label value here is an error; else its class
        is not annotated in this case.

    Raises
    ------
    TaskError
        If a source is unknown and that is an error.
    """
    by_value = {str(value): name for name, value in classes.items()}
    table = np.zeros(max(classes.values(), default=0) + 1, np.int64)
    complete = []
    for value, wanted in enumerate(task.classes, 1):
        names = [_pick(source, classes, by_value, where) for source in wanted.sources]
        for source, name in zip(wanted.sources, names, strict=True):
            if name is not None:
                table[classes[name]] = value
            elif unknown_is_error:
                raise TaskError(
                    f"{where}: unknown class {source!r} in --classes; expected some of "
                    + ", ".join(f"{n} ({v})" for n, v in classes.items())
                )
        complete.append(all(name in annotated for name in names))
    return CaseTask(table, tuple(complete))


def _pick(source: str, classes: Mapping[str, int], by_value: Mapping[str, str], where: str) -> str | None:
    """Return the class name that a source means here, None if there is none."""
    names = [name if name in classes else by_value.get(name) for name in source.split("|")]
    found = list(dict.fromkeys(name for name in names if name is not None))
    if len(found) > 1:
        raise TaskError(
            f"{where}: {source!r} in --classes means one of them, and found both {' and '.join(found)}; "
            "join them with + if they are parts of one structure"
        )
    return found[0] if found else None


def check_known(task: Task, known: Mapping[str, Mapping[str, int]], where: str) -> None:
    """Raise TaskError where the label classes of several cases do not make the task, or would be mixed up.

    Parameters
    ----------
    task : Task
    known : mapping of str to mapping of str to int
        Class names and label values by case.
    where : str
        Named in the error.

    Raises
    ------
    TaskError
        If no case knows a source, a source is a label value that stands for different names, or cases have
        names that differ only in case, spaces, - or _ and the task does not say that they are one class.
    """
    meanings: dict[str, dict[str, str]] = {}
    spelled: dict[str, dict[str, str]] = {}
    for case, classes in known.items():
        for name, value in classes.items():
            meanings.setdefault(str(value), {}).setdefault(name, case)
            plain = "".join(c for c in name.casefold() if c not in " -_")
            spelled.setdefault(plain, {}).setdefault(name, case)
    names = {name for group in spelled.values() for name in group}
    of_class = {name: c.name for c in task.classes for source in c.sources for name in source.split("|")}
    for source in of_class:
        if source not in names and len(meanings.get(source, {})) > 1:
            listed = ", ".join(f"{name!r} in {case}" for name, case in meanings[source].items())
            raise TaskError(
                f"{where}: label value {source} in --classes stands for {listed}; expected one meaning: give names in "
                "place of values"
            )
    for source in (source for wanted in task.classes for source in wanted.sources):
        if not any(name in names or name in meanings for name in source.split("|")):
            raise TaskError(
                f"{where}: unknown class {source!r} in --classes; expected some of "
                + ", ".join(f"{name} ({value})" for value, held in meanings.items() for name in held)
            )
    for group in spelled.values():
        apart = len(group) > 1 and not any(set(group) <= set(classes) for classes in known.values())
        if apart and {*group} & {*of_class} and len({of_class.get(name) for name in group}) > 1:
            listed = ", ".join(f"{name!r} in {case}" for name, case in group.items())
            raise TaskError(
                f"{where}: found the classes {listed}; expected one name for one structure. Pass "
                f"--classes {next(iter(group))}={'|'.join(group)} (and the other classes) to take them for one"
            )
