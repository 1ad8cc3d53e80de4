"""A comparison as one page that needs nothing besides itself: no script, no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapters.comparison import Comparison
from adapters.report import charts, sections
from adapters.report.files import write_whole
from adapters.report.findings import find, headline
from adapters.report.markup import text
from adapters.report.pictures import CasePicture
from adapters.report.style import CSS


def write_html(comparison: Comparison, path: Path, pictures: Sequence[CasePicture] = ()) -> None:
    """Write the page; the same comparison gives the same bytes.

    Parameters
    ----------
    comparison : Comparison
    path : Path
    pictures : sequence of CasePicture
        As `case_pictures` returns them.

    Raises
    ------
    TaskError
        If the comparison holds no runs.
    FeatcacheError
        If the file cannot be written.
    """
    write_whole(path, html_page(comparison, pictures))


def html_page(comparison: Comparison, pictures: Sequence[CasePicture] = ()) -> str:
    """Return the page that `write_html` writes."""
    found = find(comparison)
    said = headline(comparison, found)
    parts = [
        sections.results(comparison, found),
        charts.charts(comparison, found),
        sections.cases(pictures),
        sections.significance_notes(comparison, found),
        sections.settings(comparison, found),
        sections.deviations(comparison),
        sections.folds(comparison),
    ]
    body = "\n".join(part for part in parts if part)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Comparison of adapters: {text(", ".join(dict.fromkeys(r.method for r in found.rows)))}</title>
<style>
{CSS}
</style>
</head>
<body>
<main>
<header>
<p class="kicker">Comparison of adapters on {text(comparison.settings.get("encoder") or "a frozen encoder")}</p>
<h1>{text(said)}</h1>
</header>
{body}
<footer><p>{sections.origin(comparison)}</p></footer>
</main>
</body>
</html>
"""
