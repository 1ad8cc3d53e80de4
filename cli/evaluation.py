"""Mask files and label files -> a report: pairs by case id, classes by name, both on one grid."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.evaluate import Report, Row, write_csv
from adapters.metrics import check_tolerance, score_case
from adapters.task import Task, resolve, task_of_all
from cli.evaluation_classes import matched_task, names_of_masks, whole_numbers
from cli.evaluation_files import find_masks, find_truths
from featcache.errors import FeatcacheError, GeometryError, ScanReadError
from featcache.geometry import Grid, axis_codes, corner_distance, spacing
from featcache.scans.labels import numbered_classes, read_labels
from featcache.scans.nifti import nifti_grid
from featcache.scans.types import Annotated, LabelSource

Progress = Callable[[int, int], None]
"""Called with the cases done and the cases there are."""


@dataclass(frozen=True)
class _Pair:
    case: str
    mask: Path
    truth: LabelSource
    task: Task


@dataclass(frozen=True)
class _Truth:
    """One case's truth as values of the task, which classes it annotates, and its values if they have no names."""

    values: NDArray[Any]
    annotated: tuple[bool, ...]
    unnamed: frozenset[int]


def evaluate(
    pred: Path,
    labels: Path,
    *,
    classes: str | None = None,
    annotated: Annotated = "all",
    tolerance_mm: float = 2.0,
    csv: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Return how well masks agree with labels: Dice, NSD and HD95 per case and class.

    Parameters
    ----------
    pred : Path
        A folder of ``<case>.nii.gz`` with their class names in classes.json, or one such file.
    labels : Path
        A folder of ``<case>.nii.gz`` (names in labels.json or dataset.json), a CSV with the columns case
        or image, label, and optionally annotated, or one file for a single mask.
    classes : str, optional
        Which label classes make up each mask class, ``"liver=1,kidney=2+3"``; mask classes left out are
        not evaluated. Without, equal names go together; labels without names go by the mask's values.
    annotated : {"all", "present"}
        What counts as annotated where the labels do not say: every class, or those that occur in the file.
    tolerance_mm : float
        Tolerance of the NSD, mm.
    csv : Path, optional
        Where to write a line per case and class.
    progress : callable, optional
        Called after each case.

    Returns
    -------
    Report
        A case whose files are damaged or lie on different grids is named in it, and the others are done.

    Raises
    ------
    ScanReadError
        If a place holds no masks or labels, or no case has both.
    TaskError
        If the classes do not fit together, or the tolerance is no length.
    FeatcacheError
        If the CSV cannot be written.
    """
    check_tolerance(tolerance_mm)
    masks = find_masks(pred)
    truths = find_truths(labels, masks)
    common = [case for case in masks if case in truths]
    _check_common(common, masks, truths, pred, labels)
    names, notes = names_of_masks(pred, [masks[c] for c in common], [truths[c] for c in common])
    tasks = [matched_task(names, classes, truths[case]) for case in common]
    pairs = [_Pair(c, masks[c], truths[c], task) for c, task in zip(common, tasks, strict=True)]

    rows: list[Row] = []
    failed: dict[str, str] = {}
    unnamed: set[int] = set()
    for done, pair in enumerate(pairs, 1):
        try:
            found, values = _score(pair, names, annotated, tolerance_mm)
        except FeatcacheError as error:
            failed[pair.case] = str(error)
        else:
            rows += found
            unnamed |= values
        if progress is not None:
            progress(done, len(pairs))

    report = Report(
        settings={
            "masks": pred.resolve().name,
            "labels": labels.resolve().name,
            "classes": classes,
            "annotated": annotated,
            "tolerance_mm": float(tolerance_mm),
            "hausdorff_percentile": 95,
        },
        classes=tasks[0].names,
        rows=tuple(rows),
        missing_predictions=tuple(case for case in truths if case not in masks),
        masks_without_truth=tuple(case for case in masks if case not in truths),
        failed=failed,
        notes=(*notes, *_notes(tasks[0], names, pairs, unnamed)),
    )
    if csv is not None:
        write_csv(report, csv)
    return report


def _score(
    pair: _Pair, names: Mapping[str, int], annotated: Annotated, tolerance_mm: float
) -> tuple[list[Row], frozenset[int]]:
    """Return a row per class, and the label values that have no names."""
    grid = nifti_grid(pair.truth.path)
    _check_grids(pair, nifti_grid(pair.mask), grid)
    truth = _truth(pair, grid, annotated)
    mask = read_labels(LabelSource(pair.mask, dict(names)), grid, scan_path=pair.truth.path)
    table = resolve(task_of_all(pair.task.names), names, (), str(pair.mask)).table
    predicted = _apply(table, mask.voxels)
    scores = score_case(predicted, truth.values, truth.annotated, spacing(grid), tolerance_mm)
    rows = [Row(pair.case, name, score) for name, score in zip(pair.task.names, scores, strict=True)]
    return rows, truth.unnamed


def _truth(pair: _Pair, grid: Grid, annotated: Annotated) -> _Truth:
    source = pair.truth
    volume = read_labels(source, grid, scan_path=source.path, annotated=annotated)
    classes, known = volume.classes, volume.annotated
    unnamed: frozenset[int] = frozenset()
    if source.classes is None:
        # Without names a file shows only the values in it; a class absent from it is a class all the same.
        unnamed = frozenset(classes.values())
        classes = classes | numbered_classes(whole_numbers(pair.task))
        if source.annotated is None and annotated == "all":
            known = tuple(classes)
    found = resolve(pair.task, classes, known, str(source.path))
    return _Truth(_apply(found.table, volume.voxels), found.annotated, unnamed)


def _apply(table: NDArray[np.int64], voxels: NDArray[Any]) -> NDArray[Any]:
    """Return `voxels` looked up in `table`, in the smallest type: a scan of int64 is eight times as large."""
    values: NDArray[Any] = table.astype(np.min_scalar_type(int(table.max())))[voxels]
    return values


def _check_grids(pair: _Pair, mask: Grid, truth: Grid) -> None:
    files = f"{pair.mask} and its labels {pair.truth.path}"
    advice = "expected both on the scan's own grid: resample the one that is not"
    if mask.shape != truth.shape:
        raise GeometryError(
            f"{files} have the shapes {mask.shape} and {truth.shape}; {advice}",
            path=pair.mask,
            case=pair.case,
        )
    distance = corner_distance(mask, truth)
    if distance > 0.1:
        turned = axis_codes(mask), axis_codes(truth)
        hint = f" (orientations {turned[0]} and {turned[1]})" if turned[0] != turned[1] else ""
        raise GeometryError(
            f"{files}, both of shape {mask.shape}, lie {distance:.2f} voxels apart{hint}; {advice}",
            path=pair.mask,
            case=pair.case,
        )


def _check_common(
    common: Sequence[str],
    masks: Mapping[str, Path],
    truths: Mapping[str, LabelSource],
    pred: Path,
    labels: Path,
) -> None:
    if not common:
        raise ScanReadError(
            f"no case has both a mask and labels: masks in {pred} are of {', '.join(list(masks)[:3])}, "
            f"labels in {labels} of {', '.join(list(truths)[:3])}; expected equal file names, or a CSV with "
            "the columns case and label",
            path=labels,
        )


def _notes(
    task: Task, names: Mapping[str, int], pairs: Sequence[_Pair], unnamed: Collection[int]
) -> list[str]:
    notes = []
    left_out = [name for name in names if name not in task.names]
    if left_out:
        notes.append(f"mask classes that --classes leaves out are not evaluated: {', '.join(left_out)}")
    by_value = next((pair.task for pair in pairs if pair.truth.classes is None), None)
    if by_value is not None and unnamed:
        values = ", ".join(f"{c.name} = {'+'.join(c.sources)}" for c in by_value.classes)
        notes.append(f"the labels have no class names; their values were read as {values}")
        taken = whole_numbers(by_value)
        if taken.difference(unnamed):
            notes.append(f"these values occur in no label file: {sorted(taken.difference(unnamed))}")
        if set(unnamed) - taken:
            notes.append(
                f"these label values belong to no class and count as background: {sorted(set(unnamed) - taken)}"
            )
    return notes
