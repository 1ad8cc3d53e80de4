"""What a comparison of methods found: runs, means over folds, significance; made by protocol, shown by report."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from adapters.metrics import COUNTED, Score

FORMAT = "featcache.comparison"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Fold:
    """One draw: which cases may be support, in the order in which shots take them, and which are tested.

    Parameters
    ----------
    support : tuple of str
        The first k of them are the support of k shots, so that 5 shots contain the 1 shot.
    test : tuple of str
        Disjoint from the support.
    """

    support: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One fit and how well it did on the fold's test cases.

    Parameters
    ----------
    method : str
    shots : int
        0 where nothing is trained.
    fold : int
    support : tuple of str
    scores : mapping of case to mapping of class to Score
    seconds, predict_seconds : float
        Time of the fit, and of one case's prediction.
    trainable : int
        Parameters that were trained.
    curve : tuple of float
        Loss of each step.
    """

    method: str
    shots: int
    fold: int
    support: tuple[str, ...]
    scores: Mapping[str, Mapping[str, Score]]
    seconds: float
    predict_seconds: float
    trainable: int
    curve: tuple[float, ...]

    @property
    def name(self) -> str:
        """Such as "spatial-5-0": method, shots, fold."""
        return f"{self.method}-{self.shots}-{self.fold}"

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Run:
        """Return the run that `to_json` wrote."""
        scores = {
            case: {name: Score(**score) for name, score in row.items()}
            for case, row in document["scores"].items()
        }
        fields = {**document, "scores": scores}
        fields |= {name: tuple(document[name]) for name in ("support", "curve")}
        return cls(**fields)

    def case_dice(self) -> dict[str, float]:
        """Return each test case's Dice, mean over its classes; a case where no class counts is left out."""
        means = {case: _mean(_dice(row.values())) for case, row in self.scores.items()}
        return {case: mean for case, mean in means.items() if mean is not None}

    def class_dice(self) -> dict[str, float]:
        """Return each class' Dice, mean over the test cases in which it counts."""
        names = dict.fromkeys(name for row in self.scores.values() for name in row)
        means = {n: _mean(_dice(row[n] for row in self.scores.values() if n in row)) for n in names}
        return {name: mean for name, mean in means.items() if mean is not None}

    @property
    def dice(self) -> float | None:
        """Mean of the class means; None where nothing counts."""
        return _mean(self.class_dice().values())


@dataclass(frozen=True)
class TableRow:
    """One method at one number of shots.

    Parameters
    ----------
    method : str
    shots : int
    folds : int
        Runs that enter.
    dice, spread : float
        Mean over classes, cases, then folds, and the folds' sample deviation (0 for one fold).
    classes : mapping of str to (float, float)
        The same for each class.
    missed, false_alarms : int
        Over all cases, classes and folds.
    seconds, predict_seconds : float
        Mean time of a fit, and of one case's prediction.
    trainable : int
    difference, p : float or None
        To the baseline at the same shots (or at its only ones), mean over test cases, and the two-sided
        p-value of Wilcoxon's signed-rank test over them; None for the baseline itself, and p where it cannot be told.
    """

    method: str
    shots: int
    folds: int
    dice: float
    spread: float
    classes: Mapping[str, tuple[float, float]]
    missed: int
    false_alarms: int
    seconds: float
    predict_seconds: float
    trainable: int
    difference: float | None
    p: float | None


@dataclass(frozen=True)
class Comparison:
    """All of it.

    Parameters
    ----------
    settings : mapping
        JSON values that say how it was done: encoder, ids, levels, recipe, seed; no paths.
    classes : tuple of str
    folds : tuple of Fold
    runs : tuple of Run
    baseline : str
        The method that the others are tested against.
    deviations : tuple of str
        Where this departs from FSEFT's protocol: sentences.
    """

    settings: Mapping[str, Any]
    classes: tuple[str, ...]
    folds: tuple[Fold, ...]
    runs: tuple[Run, ...]
    baseline: str
    deviations: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values, without NaN."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "settings": dict(self.settings),
            "classes": list(self.classes),
            "folds": [asdict(fold) for fold in self.folds],
            "baseline": self.baseline,
            "deviations": list(self.deviations),
            "table": [asdict(row) for row in table_rows(self)],
            "runs": [run.to_json() for run in self.runs],
        }

    def at(self, method: str, shots: int) -> list[Run]:
        """Return the runs of one method and number of shots, fold by fold."""
        return sorted((r for r in self.runs if (r.method, r.shots) == (method, shots)), key=lambda r: r.fold)

    def cells(self) -> list[tuple[str, int]]:
        """Return methods and shots that have runs: untrained first, then by shots, in the methods' order."""
        pairs = dict.fromkeys((run.method, run.shots) for run in self.runs)
        return sorted(pairs, key=lambda pair: pair[1])


def table_rows(comparison: Comparison) -> list[TableRow]:
    """Return one row a method and number of shots."""
    return [_row(comparison, method, shots) for method, shots in comparison.cells()]


def mean_over_folds(runs: Sequence[Run]) -> dict[str, float]:
    """Return each test case's Dice, mean over the folds that test it."""
    cases: dict[str, list[float]] = {}
    for run in runs:
        for case, dice in run.case_dice().items():
            cases.setdefault(case, []).append(dice)
    return {case: statistics.fmean(values) for case, values in cases.items()}


def _row(comparison: Comparison, method: str, shots: int) -> TableRow:
    runs = comparison.at(method, shots)
    means = [run.dice for run in runs if run.dice is not None]
    per_class = [run.class_dice() for run in runs]
    classes = {}
    for name in comparison.classes:
        values = [found[name] for found in per_class if name in found]
        if values:
            classes[name] = (statistics.fmean(values), _deviation(values))
    outcomes = [s.outcome for run in runs for row in run.scores.values() for s in row.values()]
    difference, p = _against_baseline(comparison, method, shots)
    return TableRow(
        method,
        shots,
        len(runs),
        statistics.fmean(means) if means else 0.0,
        _deviation(means),
        classes,
        outcomes.count("missed"),
        outcomes.count("false_alarm"),
        statistics.fmean(run.seconds for run in runs),
        statistics.fmean(run.predict_seconds for run in runs),
        max(run.trainable for run in runs),
        difference,
        p,
    )


def _against_baseline(comparison: Comparison, method: str, shots: int) -> tuple[float | None, float | None]:
    if method == comparison.baseline:
        return None, None
    base = comparison.at(comparison.baseline, shots) or comparison.at(comparison.baseline, 0)
    mine, theirs = mean_over_folds(comparison.at(method, shots)), mean_over_folds(base)
    common = [case for case in mine if case in theirs]
    if not common:
        return None, None
    differences = np.array([mine[case] - theirs[case] for case in common])
    return float(differences.mean()), signed_rank(differences)


def signed_rank(differences: np.ndarray[Any, Any]) -> float | None:
    """Return the two-sided p-value of Wilcoxon's signed-rank test; None where all differences are zero."""
    from scipy.stats import wilcoxon

    if not np.any(differences):
        return None
    return float(wilcoxon(differences).pvalue)


def _dice(scores: Iterable[Score]) -> list[float]:
    return [s.dice for s in scores if s.outcome in COUNTED and s.dice is not None]


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.fmean(known) if known else None


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
