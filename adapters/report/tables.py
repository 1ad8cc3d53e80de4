"""A comparison as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from adapters.comparison import Comparison, TableRow
from adapters.evaluate import METRICS
from adapters.report.files import write_whole
from adapters.report.findings import Findings, find, gaps, p_text, significance, surface_means

NONE = "–"


def write_csv(comparison: Comparison, path: Path) -> None:
    """Write one line per run, case and class: method, shots, fold, case, class, outcome, dice, nsd, hd95_mm.

    Empty where there is no number.

    Raises
    ------
    FeatcacheError
        If the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["method", "shots", "fold", "case", "class", "outcome", *METRICS])
    for run in comparison.runs:
        for case, row in run.scores.items():
            for name, score in row.items():
                numbers = [getattr(score, metric) for metric in METRICS]
                writer.writerow([run.method, run.shots, run.fold, case, name, score.outcome, *numbers])
    write_whole(path, text.getvalue())


def markdown(comparison: Comparison) -> str:
    """Return the table, how significance was tested, and where the paper's protocol was left.

    Raises
    ------
    TaskError
        If the comparison holds no runs.
    """
    found = find(comparison)
    titles, rows = cells(comparison, found)
    lines = [_line(titles), "|" + "---|" * len(titles), *(_line(row) for row in rows), ""]
    notes = [
        "Mean Dice: over cases, then classes, then folds, ± the folds' standard deviation. Δ: over test cases.",
        *significance(comparison, found),
        *gaps(comparison, found),
    ]
    lines += [f"* {_escape(note)}" for note in notes]
    if comparison.deviations:
        lines += ["", "Deviations from the paper:", ""]
        lines += [f"* {_escape(sentence)}" for sentence in comparison.deviations]
    return "\n".join(lines) + "\n"


def cells(comparison: Comparison, found: Findings) -> tuple[list[str], list[list[str]]]:
    """Return column titles and rows of text: everything known of each method and number of shots."""
    surfaces = [surface_means(comparison.at(row.method, row.shots)) for row in found.rows]
    known = any(values is not None for values in surfaces)
    titles = [
        *("method", "shots", "mean Dice"),
        *comparison.classes,
        *(("NSD", "HD95 mm") if known else ()),
        *("missed", f"Δ to {comparison.baseline}", "p"),
        *("trained parameters", "fit", "predict a case"),
    ]
    rows = []
    for row, values in zip(found.rows, surfaces, strict=True):
        rows.append(
            [
                row.method,
                str(row.shots) if row.shots else NONE,
                f"{row.dice:.3f} ± {row.spread:.3f}" if row.folds > 1 else f"{row.dice:.3f}",
                *(class_text(row, name) for name in comparison.classes),
                *(
                    ([NONE, NONE] if values is None else [f"{values[0]:.3f}", f"{values[1]:.1f}"])
                    if known
                    else ()
                ),
                str(row.missed),
                NONE if row.difference is None else f"{row.difference:+.3f}",
                p_text(row.p) or NONE,
                f"{row.trainable:,}",
                seconds_text(row.seconds) if row.shots else NONE,
                seconds_text(row.predict_seconds),
            ]
        )
    return titles, rows


def class_text(row: TableRow, name: str) -> str:
    """Return the mean Dice of one class, a dash where it counted in no case."""
    return f"{row.classes[name][0]:.2f}" if name in row.classes else NONE


def seconds_text(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _line(texts: list[str]) -> str:
    return "| " + " | ".join(_escape(text) for text in texts) + " |"


def _escape(text: str) -> str:
    """Return text that Markdown shows as it is: no table border, tag or line break of its own."""
    plain = re.sub(r"([|*`\\])", r"\\\1", " ".join(text.split()))
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", plain)
