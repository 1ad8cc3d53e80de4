"""What a comparison shows, in numbers of its own and in plain sentences."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from adapters.comparison import Comparison, Run, TableRow, mean_over_folds, table_rows
from adapters.metrics import COUNTED
from featcache.errors import TaskError

TEST = "Wilcoxon's signed-rank test, two-sided, over the test cases; each case is the mean over the folds that test it"


@dataclass(frozen=True)
class Findings:
    """A comparison's table and what it is read by.

    Parameters
    ----------
    rows : tuple of TableRow
    most : int
        The highest number of shots; 0 where nothing was trained.
    best : TableRow
        The highest mean Dice at the most shots.
    untrained : TableRow or None
        The best method that needs no labels.
    """

    rows: tuple[TableRow, ...]
    most: int
    best: TableRow
    untrained: TableRow | None


def find(comparison: Comparison) -> Findings:
    """Return the findings of a comparison.

    Raises
    ------
    TaskError
        If it holds no runs.
    """
    rows = table_rows(comparison)
    if not rows:
        raise TaskError("the comparison holds no runs; expected at least one that ended: run it again")
    most = max(row.shots for row in rows)
    untrained = [row for row in rows if row.shots == 0]
    return Findings(
        rows=tuple(rows),
        most=most,
        best=max((row for row in rows if row.shots == most), key=lambda row: row.dice),
        untrained=max(untrained, key=lambda row: row.dice) if untrained else None,
    )


def tested_cases(comparison: Comparison) -> list[str]:
    """Return every case that a fold tests, in the folds' order."""
    return list(dict.fromkeys(case for fold in comparison.folds for case in fold.test))


def paired_cases(comparison: Comparison, row: TableRow) -> int:
    """Return over how many cases a row is tested against the baseline."""
    base = comparison.at(comparison.baseline, row.shots) or comparison.at(comparison.baseline, 0)
    mine, theirs = mean_over_folds(comparison.at(row.method, row.shots)), mean_over_folds(base)
    return len(mine.keys() & theirs.keys())


def smallest_p(cases: int) -> float:
    """Return the smallest two-sided p-value that the signed-rank test can give."""
    return float(min(2.0 / 2.0**cases, 1.0))


def headline(comparison: Comparison, found: Findings) -> str:
    """Return one or two sentences: the best method at the most shots, its Dice, and what it gains."""
    best = found.best
    methods = {row.method for row in found.rows}
    scans = f"{best.shots} labelled {'scan' if best.shots == 1 else 'scans'}"
    start = f"With {scans}, {best.method}" if best.shots else f"Without training, {best.method}"
    text = f"{start} reached a mean Dice of {_dice(best)} on {_cases(len(tested_cases(comparison)))}"
    if best.difference is not None:
        step = f"{abs(best.difference):.3f} {'above' if best.difference >= 0 else 'below'}"
        text += f": {step} {comparison.baseline}{_certainty(comparison, best)}."
    elif best.method == comparison.baseline and len(methods) > 1:
        text += f": {best.method} is the baseline, and no other method did better with as many scans."
    else:
        text += "."
    untrained = found.untrained
    if untrained is not None and best.shots and untrained.dice > best.dice:
        text += f" {untrained.method}, which needs no labels, did better: {untrained.dice:.3f}."
    return text


def significance(comparison: Comparison, found: Findings) -> list[str]:
    """Return sentences: the baseline, the test, over how many cases, and what it cannot tell."""
    compared = [row for row in found.rows if row.difference is not None]
    if not compared:
        return [
            f"Nothing is tested: no other method has test cases in common with the baseline, {comparison.baseline}."
        ]
    counts = sorted({paired_cases(comparison, row) for row in compared})
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    sentences = [
        f"Baseline: {comparison.baseline}, at the same number of shots, or as it is where it is not trained.",
        f"Test: {TEST} ({span} {'case' if counts == [1] else 'cases'}). "
        "p-values are not corrected for the number of comparisons.",
    ]
    if counts[0] <= 5:
        sentences.append(
            f"With only {_cases(counts[0])}, p < .05 is impossible: p cannot be below {smallest_p(counts[0]):.3g}."
        )
    return sentences


def gaps(comparison: Comparison, found: Findings) -> list[str]:
    """Return a sentence for each method and number of shots that lacks folds: its mean is over fewer draws."""
    sentences = []
    for row in found.rows:
        runs = comparison.at(row.method, row.shots)
        # What is not trained runs once for the same test cases, however many folds have them.
        tests = {tuple(fold.test) for fold in comparison.folds}
        expected = len(comparison.folds) if row.shots else len(tests)
        if len(runs) < expected:
            at = f" at {row.shots} shots" if row.shots else ""
            sentences.append(
                f"{row.method}{at}: {len(runs)} of {expected} folds; the others failed or were not run."
            )
    return sentences


def class_values(runs: Sequence[Run], name: str) -> list[float]:
    """Return each test case's Dice of one class, mean over the folds in which it counts."""
    values: dict[str, list[float]] = {}
    for run in runs:
        for case, row in run.scores.items():
            score = row.get(name)
            if score is not None and score.outcome in COUNTED and score.dice is not None:
                values.setdefault(case, []).append(score.dice)
    return [statistics.fmean(found) for found in values.values()]


def surface_means(runs: Sequence[Run]) -> tuple[float, float] | None:
    """Return NSD and HD95 in mm, mean over cases, then classes, then folds; None where they were not scored."""
    folds = []
    for run in runs:
        classes: dict[str, list[tuple[float, float]]] = {}
        for row in run.scores.values():
            for name, score in row.items():
                if score.nsd is not None and score.hd95_mm is not None:
                    classes.setdefault(name, []).append((score.nsd, score.hd95_mm))
        if classes:
            means = [[statistics.fmean(column) for column in zip(*v, strict=True)] for v in classes.values()]
            folds.append([statistics.fmean(column) for column in zip(*means, strict=True)])
    if not folds:
        return None
    nsd, distance = (statistics.fmean(column) for column in zip(*folds, strict=True))
    return nsd, distance


def _dice(row: TableRow) -> str:
    return f"{row.dice:.3f} ± {row.spread:.3f}" if row.folds > 1 else f"{row.dice:.3f}"


def _cases(count: int) -> str:
    return f"{count} test {'case' if count == 1 else 'cases'}"


def _certainty(comparison: Comparison, row: TableRow) -> str:
    cases = paired_cases(comparison, row)
    if row.p is None:
        return ""
    if cases <= 5:
        return f", though {_cases(cases)} are too few to tell it from chance"
    if row.p < 0.05:
        return f" ({p_text(row.p, 'p')})"
    return f", which may be chance ({p_text(row.p, 'p')})"


def p_text(p: float | None, symbol: str = "") -> str:
    """Return a p-value for people, such as "0.012", "<0.001", "p = 0.012"; nothing for None."""
    if p is None:
        return ""
    small = p < 0.001
    number = "0.001" if small else f"{p:.3f}"
    if symbol:
        return f"{symbol} {'<' if small else '='} {number}"
    return f"<{number}" if small else number
