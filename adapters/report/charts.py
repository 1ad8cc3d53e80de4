"""The page's charts, under one legend."""

from __future__ import annotations

from adapters.comparison import Comparison
from adapters.report import figures
from adapters.report.findings import Findings
from adapters.report.markup import key, section, text
from adapters.report.svg import colours


def charts(comparison: Comparison, found: Findings) -> str:
    """Return the charts, under one legend."""
    paint = colours(figures.method_names(found))
    untrained = {row.method for row in found.rows if not row.shots}
    legend = "".join(
        f"<li>{key(colour, dashed=name in untrained)}{text(name)}</li>" for name, colour in paint.items()
    )
    at = f"at {_scans(found.most)}" if found.most else "without training"
    drawn = []
    if found.most:
        drawn.append(
            _figure(
                "Dice by number of labelled scans",
                figures.dice_by_shots(found),
                "Bars: standard deviation over folds."
                + (" Dashed: needs no labels, nothing is trained." if untrained else ""),
            )
        )
    curves = figures.learning_curves(comparison, found)
    if curves is not None:
        drawn.append(
            _figure(
                f"Learning curves {at}",
                curves,
                "Running mean of the training loss, mean over folds. Methods minimise losses of their own: compare how "
                "curves level off, not how high they lie.",
            )
        )
    boxes = _figure(
        f"Dice of each class {at}",
        figures.class_boxes(comparison, found),
        "Boxes: quartiles and median over test cases; dots: cases, each the mean over folds; whiskers: the last case "
        "within 1.5 times the box.",
        tall=len(drawn) > 1,
    )
    drawn.insert(1, boxes)
    body = "\n".join(drawn)
    return section("Charts", f'<ul class="legend">{legend}</ul>\n<div class="charts">\n{body}\n</div>')


def _figure(title: str, svg: str, caption: str, *, tall: bool = False) -> str:
    opening = '<figure class="tall">' if tall else "<figure>"
    return f"{opening}<h3>{text(title)}</h3>\n{svg}\n<figcaption>{text(caption)}</figcaption></figure>"


def _scans(count: int) -> str:
    return f"{count} labelled {'scan' if count == 1 else 'scans'}"
