"""Labels on the scan's own grid -> labels on the feature grid."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adapters.task import CaseTask, Task, resolve
from featcache.errors import TaskError
from featcache.geometry import AxisMap, Grid, axis_map
from featcache.store import Case, FeatureStore

LABELS = "labels"
"""Name of the label set that training reads."""


def labelled_cases(store: FeatureStore) -> list[str]:
    """Return the ids of the labelled cases, sorted; TaskError if there are none."""
    labelled = store.labelled(LABELS)
    if not labelled:
        raise TaskError(
            f"{store.path} has no labels; add them with `featcache label --in SCANS --labels LABELS --store "
            f"{store.path}`, one label file a scan",
            path=store.path,
        )
    return labelled


def known_classes(store: FeatureStore, cases: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return class names and label values of labelled cases, case by case."""
    known = {}
    for case in cases:
        labels = store.case(case).labels(LABELS)
        known[case] = {} if labels is None else dict(labels.classes)
    return known


class CaseLabels:
    """One case's task values, kept on the scan's grid and brought to a feature grid box by box.

    Parameters
    ----------
    case : featcache.store.Case
        A case with labels.
    task : Task
        Which classes, in which order.
    grid : Grid
        The feature grid.

    Raises
    ------
    TaskError
        If the case has no labels, or they lie on another grid than its scan.

    Attributes
    ----------
    annotated : tuple of bool
        Per class of the task, whether this case annotates it.
    """

    def __init__(self, case: Case, task: Task, grid: Grid) -> None:
        labels = case.labels(LABELS)
        if labels is None:
            raise TaskError(
                f"case {case.id} has no labels; add them with `featcache label`, or leave the case out of --support",
                case=case.id,
            )
        if labels.grid != case.info.native:
            raise TaskError(
                f"case {case.id}: its labels lie on another grid {labels.grid.shape} than its scan "
                f"{case.info.native.shape}: the scan changed after it was labelled. Add its labels again with "
                "`featcache label`",
                case=case.id,
            )
        where = f"case {case.id}"
        found: CaseTask = resolve(task, labels.classes, labels.annotated, where, unknown_is_error=False)
        kind = np.uint8 if len(task.classes) < 256 else np.uint16
        self.values: NDArray[Any] = found.apply(labels.read()).astype(kind)
        self.annotated = found.annotated
        self.shape = grid.shape
        self._classes = len(task.classes) + 1
        self._map: AxisMap = axis_map(labels.grid, grid)

    def hard(self) -> NDArray[Any]:
        """Return the task value nearest to each feature voxel's centre, shape (X, Y, Z), uint8/16.

        A class that would vanish so, being smaller than the cells, keeps the cells that its voxels lie in.
        """
        found = self._nearest((0, 0, 0), self.shape, (0.0, 0.0, 0.0))
        for value in np.setdiff1d(np.unique(self.values), np.unique(found)):
            voxels = np.nonzero(self.values == value)
            cells = [
                np.rint((voxels[source] - self._map.offset[t]) / self._map.scale[t]).astype(np.int64)
                for t, source in enumerate(self._map.axes)
            ]
            inside = np.all([(c >= 0) & (c < n) for c, n in zip(cells, self.shape, strict=True)], axis=0)
            found[tuple(c[inside] for c in cells)] = value
        return found

    def soft(self, start: Sequence[int], size: Sequence[int]) -> torch.Tensor:
        """Return the share of each task value in the cells of a box of feature voxels.

        Returns
        -------
        Tensor, shape (K + 1, x, y, z), float32
            Background first; sums to one.
        """
        parts = [max(round(abs(s)), 1) for s in self._map.scale]
        total = np.zeros((self._classes, *size), np.float32)
        for step in itertools.product(*(range(n) for n in parts)):
            shift = [(p + 0.5) / n - 0.5 for p, n in zip(step, parts, strict=True)]
            values = self._nearest(start, size, shift)
            for value in np.unique(values):
                total[value] += values == value
        return torch.from_numpy(total / float(np.prod(parts)))

    def _nearest(self, start: Sequence[int], size: Sequence[int], shift: Sequence[float]) -> NDArray[Any]:
        index: list[NDArray[np.int64]] = [np.zeros(0, np.int64)] * 3
        for t, source in enumerate(self._map.axes):
            target = np.arange(start[t], start[t] + size[t]) + shift[t]
            position = target * self._map.scale[t] + self._map.offset[t]
            index[source] = np.clip(np.rint(position), 0, self.values.shape[source] - 1).astype(np.int64)
        return self.values[np.ix_(*index)].transpose(self._map.axes)
