"""Dice, normalised surface distance and HD95 of one case's classes, and what to do where one is empty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adapters.surface import hausdorff, normalised_surface_distance, surface_distances
from featcache.errors import GeometryError, TaskError

Outcome = Literal["scored", "missed", "false_alarm", "both_empty", "not_annotated"]
COUNTED: tuple[Outcome, ...] = ("scored", "missed", "false_alarm")
"""Outcomes that have numbers and enter the means; the others are excluded and counted."""

Box = tuple[slice, ...]


@dataclass(frozen=True)
class Score:
    """How well one class of one case was found.

    Parameters
    ----------
    outcome : str
        ``scored``: in truth and prediction. ``missed``: in the truth alone; ``false_alarm``: in the
        prediction alone; both have Dice 0, NSD 0 and the scan's diagonal as HD95, so that a failure
        worsens each mean and never drops out of it. ``both_empty`` and ``not_annotated`` have no numbers.
    dice, nsd : float, optional
        0 to 1.
    hd95_mm : float, optional
        mm. Both surface metrics are None where only Dice was asked for.
    """

    outcome: Outcome
    dice: float | None = None
    nsd: float | None = None
    hd95_mm: float | None = None

    def __post_init__(self) -> None:
        numbers = (self.dice, self.nsd, self.hd95_mm)
        known = tuple(n is not None and math.isfinite(n) for n in numbers)
        expected = ((True, True, True), (True, False, False)) if self.outcome in COUNTED else ((False,) * 3,)
        if known not in expected or any(n is not None and not math.isfinite(n) for n in numbers):
            raise TaskError(
                f"a score of outcome {self.outcome!r} has the numbers {numbers}; expected "
                + ("Dice alone or three, finite" if self.outcome in COUNTED else "none")
            )


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return twice the overlap of two masks over the sum of their sizes; one must not be empty."""
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / total


def dice_case(predicted: NDArray[Any], truth: NDArray[Any], annotated: Sequence[bool]) -> tuple[Score, ...]:
    """Return one score per class with Dice alone: one pass over the voxels for all classes.

    Parameters and errors as in `score_case`.
    """
    _check_shapes(predicted, truth)
    classes = len(annotated) + 1
    pairs = predicted.ravel().astype(np.int64) * classes + truth.ravel()
    counts = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    found, true = counts.sum(1), counts.sum(0)
    scores = []
    for value, known in enumerate(annotated, 1):
        if not known:
            scores.append(Score("not_annotated"))
        elif not found[value] or not true[value]:
            empty: Outcome = "missed" if true[value] else "false_alarm" if found[value] else "both_empty"
            scores.append(Score(empty, None if empty == "both_empty" else 0.0))
        else:
            scores.append(Score("scored", float(2 * counts[value, value] / (found[value] + true[value]))))
    return tuple(scores)


def _check_shapes(predicted: NDArray[Any], truth: NDArray[Any]) -> None:
    if predicted.shape != truth.shape:
        raise GeometryError(
            f"a prediction of shape {predicted.shape} for a truth of shape {truth.shape}; expected one grid: "
            "resample the prediction onto the truth"
        )


def diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Return the length of a scan's diagonal from outer corner to outer corner, mm."""
    return math.dist((0, 0, 0), [n * s for n, s in zip(shape, spacing, strict=True)])


def score_case(
    predicted: NDArray[Any],
    truth: NDArray[Any],
    annotated: Sequence[bool],
    spacing: Sequence[float],
    tolerance_mm: float,
) -> tuple[Score, ...]:
    """Return one score per class.

    Parameters
    ----------
    predicted, truth : ndarray of int, shape (X, Y, Z)
        Class values on one grid: 0 is background, 1..K the classes.
    annotated : sequence of bool, length K
        Whether the truth says anything about each class; where not, a prediction is not held against it.
    spacing : sequence of 3 float
        mm.
    tolerance_mm : float
        Tolerance of the NSD, mm.

    Raises
    ------
    GeometryError
        If the shapes differ.
    TaskError
        If the tolerance is no number of 0 and above.
    """
    _check_shapes(predicted, truth)
    check_tolerance(tolerance_mm)
    highest = len(annotated)
    boxes = zip(_boxes(predicted, highest), _boxes(truth, highest), annotated, strict=True)
    worst = diagonal(truth.shape, spacing)
    scores = []
    for value, (in_predicted, in_truth, known) in enumerate(boxes, 1):
        if not known:
            scores.append(Score("not_annotated"))
        elif in_truth is None and in_predicted is None:
            scores.append(Score("both_empty"))
        elif in_truth is None or in_predicted is None:
            scores.append(Score("false_alarm" if in_truth is None else "missed", 0.0, 0.0, worst))
        else:
            # Both surfaces lie in the joint box, so that nothing outside it matters.
            box = _joint(in_predicted, in_truth)
            scores.append(_score(predicted[box] == value, truth[box] == value, spacing, tolerance_mm))
    return tuple(scores)


def check_tolerance(tolerance_mm: float) -> None:
    """Raise TaskError unless the tolerance is a finite number of 0 and above."""
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise TaskError(
            f"a tolerance of {tolerance_mm} mm; expected a number of 0 and above, such as --tolerance 2"
        )


def _score(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float], tolerance_mm: float
) -> Score:
    distances = surface_distances(predicted, truth, spacing)
    nsd = normalised_surface_distance(distances, tolerance_mm)
    return Score("scored", dice(predicted, truth), nsd, hausdorff(distances))


def _boxes(labels: NDArray[Any], highest: int) -> list[Box | None]:
    """Return the bounding box of each value from 1 to `highest`, None where it does not occur."""
    found: list[Box | None] = ndimage.find_objects(labels, max_label=highest)
    return found


def _joint(a: Box, b: Box) -> Box:
    return tuple(slice(min(i.start, j.start), max(i.stop, j.stop)) for i, j in zip(a, b, strict=True))
