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
    """One structure: its name, and the label classes (by name or value) that it is made of."""

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
    """Return the task of ``"liver,kidney=2+3,lung=lung_left+lung_right"``.

    ``name`` takes the label class of that name; ``name=a+b`` merges label classes, given by name or value.
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
        names = [source if source in classes else by_value.get(source) for source in wanted.sources]
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
