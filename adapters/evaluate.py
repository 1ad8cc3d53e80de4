"""Scores of all cases and classes -> a report: summaries, JSON, CSV and a table for the console."""

from __future__ import annotations

import csv
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adapters.metrics import COUNTED, Score
from featcache.errors import FeatcacheError, TaskError

METRICS = ("dice", "nsd", "hd95_mm")


@dataclass(frozen=True)
class Row:
    """The score of one class in one case."""

    case: str
    name: str
    score: Score


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1); None where there are too few values."""

    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class ClassSummary:
    """One class over all cases.

    Parameters
    ----------
    n : int
        Cases in the means: found, missed and false alarms together.
    dice, nsd, hd95_mm : Spread
        Over those n cases.
    missed, false_alarms : int
        How many of the n cases.
    both_empty, not_annotated : int
        Cases beyond the n.
    """

    n: int
    dice: Spread
    nsd: Spread
    hd95_mm: Spread
    missed: int
    false_alarms: int
    both_empty: int
    not_annotated: int


@dataclass(frozen=True)
class Overall:
    """The mean of the class means: each class that has cases counts alike.

    Parameters
    ----------
    classes : int
        Classes with at least one case.
    n, missed, false_alarms, both_empty, not_annotated : int
        Sums over the classes.
    dice, nsd, hd95_mm : float, optional
        None if no class has a case.
    """

    classes: int
    n: int
    dice: float | None
    nsd: float | None
    hd95_mm: float | None
    missed: int
    false_alarms: int
    both_empty: int
    not_annotated: int


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Parameters
    ----------
    settings : mapping
        JSON values that say how it was done (tolerance, names of the places, class mapping): no paths.
    classes : tuple of str
        The classes evaluated, in order.
    rows : tuple of Row
        One per case and class.
    missing_predictions : tuple of str
        Cases with truth and no mask. They enter no mean, but keep the evaluation from being complete.
    masks_without_truth : tuple of str
        Cases with a mask and no truth; not evaluated.
    failed : mapping of str to str
        Cases that could not be evaluated, with the message. Messages name paths and so stay out of the JSON.
    notes : tuple of str
        What a reader should know: sentences.

    Raises
    ------
    TaskError
        If a row's class is not among `classes`, or a case has two rows for a class.
    """

    settings: Mapping[str, Any]
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    missing_predictions: tuple[str, ...] = ()
    masks_without_truth: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        keys = Counter((row.case, row.name) for row in self.rows)
        wrong = [key for key, count in keys.items() if count > 1 or key[1] not in self.classes]
        if wrong:
            raise TaskError(f"rows {wrong}: expected one a case and class, of the classes {self.classes}")

    @property
    def exit_code(self) -> int:
        """0 if every case with truth was evaluated, 1 if none was, 3 if some were not."""
        if not self.rows:
            return 1
        return 3 if self.missing_predictions or self.failed else 0

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, without NaN: what does not exist is None."""
        cases: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            cases.setdefault(row.case, {})[row.name] = asdict(row.score)
        summary = summarise(self)
        return {
            "settings": dict(self.settings),
            "summary": {
                "mean_of_classes": asdict(overall(summary.values())),
                "classes": {name: asdict(found) for name, found in summary.items()},
            },
            "cases": cases,
            "missing_predictions": list(self.missing_predictions),
            "masks_without_truth": list(self.masks_without_truth),
            "failed": list(self.failed),
            "notes": list(self.notes),
        }


def summarise(report: Report) -> dict[str, ClassSummary]:
    """Return each class's summary, in the order of the report's classes."""
    return {
        name: _summarise_class([row.score for row in report.rows if row.name == name])
        for name in report.classes
    }


def overall(summaries: Iterable[ClassSummary]) -> Overall:
    """Return the mean of the class means."""
    every = list(summaries)
    return Overall(
        classes=sum(s.n > 0 for s in every),
        n=sum(s.n for s in every),
        dice=_mean(s.dice.mean for s in every),
        nsd=_mean(s.nsd.mean for s in every),
        hd95_mm=_mean(s.hd95_mm.mean for s in every),
        missed=sum(s.missed for s in every),
        false_alarms=sum(s.false_alarms for s in every),
        both_empty=sum(s.both_empty for s in every),
        not_annotated=sum(s.not_annotated for s in every),
    )


def table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return column titles and rows of text: one a class (mean ± sd), the last one the mean of the classes."""
    tolerance = report.settings.get("tolerance_mm")
    nsd = "NSD" if tolerance is None else f"NSD at {tolerance:g} mm"
    titles = ["class", "n", "Dice", nsd, "HD95 mm", "missed", "false alarms", "both empty", "not annotated"]
    summary = summarise(report)
    rows = [
        [name, str(s.n), _text(s.dice, 3), _text(s.nsd, 3), _text(s.hd95_mm, 1), *_counts(s)]
        for name, s in summary.items()
    ]
    mean = overall(summary.values())
    values = [
        _text(Spread(getattr(mean, m), None), digits) for m, digits in zip(METRICS, (3, 3, 1), strict=True)
    ]
    rows.append([f"mean of {mean.classes}", str(mean.n), *values, *_counts(mean)])
    return titles, rows


def write_json(report: Report, path: Path) -> None:
    """Write `to_json` to a file.

    Raises
    ------
    FeatcacheError
        If the file cannot be written.
    """
    text = json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error


def write_csv(report: Report, path: Path) -> None:
    """Write one line per case and class: case, class, outcome, dice, nsd, hd95_mm; empty where none.

    Raises
    ------
    FeatcacheError
        If the file cannot be written.
    """
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["case", "class", "outcome", *METRICS])
            for row in report.rows:
                numbers = [getattr(row.score, metric) for metric in METRICS]
                writer.writerow([row.case, row.name, row.score.outcome, *numbers])
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> FeatcacheError:
    return FeatcacheError(
        f"{path}: cannot be written ({error}); expected a file in a folder that exists and may be written",
        path=path,
    )


def _summarise_class(scores: Sequence[Score]) -> ClassSummary:
    outcomes = Counter(score.outcome for score in scores)
    counted = [score for score in scores if score.outcome in COUNTED]
    spreads = {metric: _spread([getattr(score, metric) for score in counted]) for metric in METRICS}
    return ClassSummary(
        n=len(counted),
        **spreads,
        missed=outcomes["missed"],
        false_alarms=outcomes["false_alarm"],
        both_empty=outcomes["both_empty"],
        not_annotated=outcomes["not_annotated"],
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(_mean(values), statistics.stdev(values) if len(values) > 1 else None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _text(spread: Spread, digits: int) -> str:
    if spread.mean is None:
        return "-"
    sd = "" if spread.sd is None else f" ± {spread.sd:.{digits}f}"
    return f"{spread.mean:.{digits}f}{sd}"


def _counts(s: ClassSummary | Overall) -> list[str]:
    return [str(count) for count in (s.missed, s.false_alarms, s.both_empty, s.not_annotated)]
