"""Which label classes each mask class is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from adapters.task import Task, TaskClass, parse_classes, resolve
from featcache.errors import ScanReadError, TaskError
from featcache.scans.classes import find_classes
from featcache.scans.labels import label_values, numbered_classes
from featcache.scans.types import LabelSource

CLASS_FILES = ("classes.json", "labels.json")


def names_of_masks(
    pred: Path, masks: Sequence[Path], truths: Sequence[LabelSource]
) -> tuple[dict[str, int], list[str]]:
    """Return the masks' class names and values, and remarks.

    They stand in classes.json beside the masks; else the labels' names are taken, by value; else the
    values that occur in masks or labels are names.

    Raises
    ------
    ScanReadError
        If classes.json is malformed.
    TaskError
        If there is no class at all, or the masks have no names and the labels' names differ.
    """
    folder = pred if pred.is_dir() else pred.parent
    found = find_classes(folder / name for name in CLASS_FILES)
    notes = []
    if found is None:
        found = _names_of_truths(truths)
        if found is None:
            found = numbered_classes(_values([*masks, *(source.path for source in truths)]))
        notes.append(f"no classes.json beside the masks: their values were taken as {_listed(found)}")
    if not found:
        raise TaskError(
            f"{folder}: the masks have no class but background; expected a classes.json beside them such as "
            '{"background": 0, "liver": 1}'
        )
    return found, notes


def matched_task(names: Mapping[str, int], classes: str | None, truth: LabelSource) -> Task:
    """Return the mask classes to evaluate, each with the label classes (names or values) it stands for.

    Parameters
    ----------
    names : mapping of str to int
        The masks' class names and values.
    classes : str, optional
        As of --classes.
    truth : LabelSource
        The labels of one case.

    Raises
    ------
    TaskError
        If --classes names no mask class, or a mask class has no counterpart in the labels.
    """
    if classes is not None:
        task = parse_classes(classes)
        unknown = [name for name in task.names if name not in names]
        if unknown:
            raise TaskError(
                f"--classes: {unknown} are no classes of the masks; expected some of {list(names)}, each with "
                "the label classes that make it up, such as kidney=2+3"
            )
    elif truth.classes is None and not all(name.isdecimal() for name in names):
        # The masks' values are numbered by the task; to compare them with label values would be a guess.
        raise TaskError(
            f"{truth.path}: the labels have no class names, the masks have {list(names)}; say which label values "
            f"they are, such as --classes {next(iter(names))}=2, or write a labels.json in the label folder"
        )
    else:
        # Names that are numbers come from labels without names, and are label values, not mask values.
        task = Task(tuple(TaskClass(name, (name,)) for name in names))
    _check_sources(task, names, classes, truth)
    return task


def whole_numbers(task: Task) -> set[int]:
    """Return the label values above 0 that the classes of a task are given by."""
    return {int(s) for c in task.classes for s in c.sources if s.isdecimal() and int(s) > 0}


def _check_sources(task: Task, names: Mapping[str, int], classes: str | None, truth: LabelSource) -> None:
    if truth.classes is None:
        words = [s for c in task.classes for s in c.sources if not s.isdecimal() or int(s) == 0]
        if words:
            raise TaskError(
                f"{truth.path}: the labels have no class names, and {words} are no label values; expected values "
                "above 0, such as --classes liver=1, or a labels.json in the label folder"
            )
    elif classes is not None:
        resolve(task, truth.classes, (), str(truth.path))
    else:
        known = {*truth.classes, *map(str, truth.classes.values())}
        missing = [name for name in names if name not in known]
        if missing:
            raise TaskError(
                f"{truth.path}: the mask classes {missing} are no label classes; the masks have {list(names)}, "
                f"the labels {list(truth.classes)}; expected equal names: say what makes them up with "
                f"--classes, such as {missing[0]}={next(iter(truth.classes), '1')}"
            )


def _names_of_truths(truths: Sequence[LabelSource]) -> dict[str, int] | None:
    """Return the class names that all labels share, None if none has any."""
    named = [source for source in truths if source.classes is not None]
    for source in named:
        if source.classes != named[0].classes:
            raise TaskError(
                f"the masks have no classes.json, and the labels' names differ: {named[0].path} has "
                f"{named[0].classes}, {source.path} {source.classes}; expected a classes.json beside the masks"
            )
    return named[0].classes if named else None


def _values(paths: Sequence[Path]) -> set[int]:
    found: set[int] = set()
    for path in paths:
        # A damaged file fails its own case later, with a message, and no other.
        with suppress(ScanReadError):
            found |= set(label_values([LabelSource(path)]))
    return found


def _listed(names: Mapping[str, int]) -> str:
    shown = [f"{name} ({value})" for name, value in names.items()]
    more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return ", ".join(shown[:10]) + more
