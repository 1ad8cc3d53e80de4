"""The parts of the page, each as HTML."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from adapters.comparison import Comparison
from adapters.report import figures
from adapters.report.findings import Findings, gaps, significance, tested_cases
from adapters.report.markup import key, section, text
from adapters.report.pictures import CasePicture
from adapters.report.svg import colours
from adapters.report.tables import cells

_LABELS = {
    "encoder": "Encoder",
    "store": "Feature store",
    "levels": "Feature levels",
    "recipe": "Training recipe",
    "width": "Channels a residual reads",
    "tolerance_mm": "NSD tolerance, mm",
    "threads": "Threads",
    "software": "Software",
    "encoder_id": "Encoder id",
    "recipe_id": "Recipe id",
}
_IDS = ("encoder_id", "recipe_id")
_ELSEWHERE = ("task", "methods", "shots", "seed")
"""Settings that the page tells in another place or in other words."""


def results(comparison: Comparison, found: Findings) -> str:
    """Return the tables, one a method and number of shots: all but the classes, then the classes."""
    titles, rows = cells(comparison, found)
    first, last = 3, 3 + len(comparison.classes)
    overall = [0, 1, 2, *range(last, len(titles))]
    classes = [0, 1, *range(first, last)]
    return section(
        "Results",
        _table("Results", titles, rows, overall, found)
        + '\n<p class="soft" style="margin-top:1rem">Mean Dice: over test cases, then classes, then folds, ± the '
        "standard deviation over folds. A class that is missed, or found where there is none, counts as 0.</p>"
        + "".join(f"\n<p>{text(sentence)}</p>" for sentence in gaps(comparison, found))
        + "\n<h3>Mean Dice of each class</h3>\n"
        + _table("Mean Dice of each class", titles, rows, classes, found),
    )


def _table(
    name: str, titles: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[int], found: Findings
) -> str:
    """Return some columns of the table; the best mean Dice of each number of shots stands out."""
    paint = colours(figures.method_names(found))
    lines, before = [], None
    for row, values in zip(found.rows, rows, strict=True):
        rivals = [r.dice for r in found.rows if r.shots == row.shots]
        strong = ' class="best"' if len(rivals) > 1 and row.dice == max(rivals) else ""
        entries = [f'<th scope="row">{key(paint[row.method], dashed=not row.shots)}{text(values[0])}</th>']
        entries += [
            f"<td{strong if column == 2 else ''}>{text(values[column])}</td>" for column in columns[1:]
        ]
        group = ' class="group"' if before not in (None, row.shots) else ""
        lines.append(f"<tr{group}>{''.join(entries)}</tr>")
        before = row.shots
    head = "".join(f'<th scope="col">{text(titles[column])}</th>' for column in columns)
    body = "\n".join(lines)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table class="full">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def cases(pictures: Sequence[CasePicture]) -> str:
    """Return the pictures of test cases; nothing where there are none."""
    if not pictures:
        return ""
    drawn = []
    for picture in pictures:
        what = f"{picture.rank.capitalize()} case: {picture.case}, Dice {picture.dice:.3f}"
        data = base64.b64encode(picture.png).decode("ascii")
        described = f"{what}. Axial, coronal and sagittal slices of {picture.background}."
        drawn.append(
            f'<figure class="case"><h3>{text(what)}</h3>\n'
            f'<div class="scroll"><img alt="{text(described)}" src="data:image/png;base64,{data}"></div>\n</figure>'
        )
    first = pictures[0]
    note = (
        f"{first.run}, drawn on {first.background}. The truth is a broad, faint line, the prediction a dashed one, one "
        "colour a class. The patient's right is on the left."
    )
    return section("Test cases", f'<p class="soft">{text(note)}</p>\n' + "\n".join(drawn))


def significance_notes(comparison: Comparison, found: Findings) -> str:
    """Return how the p-values were found and how to read them."""
    sentences = [
        *significance(comparison, found),
        "A small p says that a difference as large would be rare if both methods did equally well on such cases; it "
        "does not say that the difference is large. A large p does not say that they do equally well.",
    ]
    return section("Significance", "\n".join(f"<p>{text(sentence)}</p>" for sentence in sentences))


def settings(comparison: Comparison, found: Findings) -> str:
    """Return how the comparison was done."""
    given = dict(comparison.settings)
    entries: list[tuple[str, str]] = [
        (label, _value(given[key])[: 12 if key in _IDS else None])
        for key, label in _LABELS.items()
        if given.get(key) is not None
    ]
    shots = sorted({row.shots for row in found.rows if row.shots})
    facts = [
        ("Methods", ", ".join(figures.method_names(found))),
        ("Shots", ", ".join(map(str, shots)) or "none"),
        ("Folds", str(len(comparison.folds))),
        ("Test cases", str(len(tested_cases(comparison)))),
        ("Classes", ", ".join(comparison.classes)),
    ]
    seed = given.get("seed")
    if isinstance(seed, int):
        seeds = [str(seed + fold) for fold in range(len(comparison.folds))]
        facts.append(("Seeds of the folds", ", ".join(seeds)))
    known = {*_LABELS, *_ELSEWHERE}
    entries += facts + [(key, _value(value)) for key, value in given.items() if key not in known]
    lines = "\n".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in entries)
    return section("Settings", f"<dl>\n{lines}\n</dl>")


def deviations(comparison: Comparison) -> str:
    """Return where the comparison departs from the paper's protocol."""
    if not comparison.deviations:
        return ""
    lines = "\n".join(f"<li>{text(sentence)}</li>" for sentence in comparison.deviations)
    about = (
        "Silva-Rodríguez et al., Medical Image Analysis 2025 (FSEFT), whose protocol this follows but for:"
    )
    return section("Deviations from the paper", f"<p>{about}</p>\n<ul>\n{lines}\n</ul>")


def folds(comparison: Comparison) -> str:
    """Return each fold's support, in the order in which shots take it, and its test cases."""
    lines = "\n".join(
        f'<tr><th scope="row">{number}</th><td class="text">{text(", ".join(fold.support))}</td>'
        f'<td class="text">{text(", ".join(fold.test))}</td></tr>'
        for number, fold in enumerate(comparison.folds)
    )
    return (
        "<section><details><summary>Folds</summary>\n"
        '<p class="soft" style="margin-top:1rem">k shots take the first k support cases.</p>\n'
        '<div class="scroll"><table class="full"><thead><tr><th scope="col">fold</th><th scope="col" class="text">'
        'support, in order</th><th scope="col" class="text">tested</th></tr></thead>\n'
        f"<tbody>\n{lines}\n</tbody></table></div></details></section>"
    )


def origin(comparison: Comparison) -> str:
    """Return who made the page."""
    software = comparison.settings.get("software")
    made = f"Made by adapters compare ({text(software)})." if software else "Made by adapters compare."
    return f"{made} Research software, not a medical device."


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
