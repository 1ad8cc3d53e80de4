"""matplotlib figures -> SVG that stands inside a page, takes its colours, and is the same every time."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours that can be told apart by everyone; black, and yellow on white, cannot be seen everywhere.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
MARKERS = "os^DvPX"
INK, RULE, PAPER = "#010203", "#c0c1c2", "#fdfcfb"
"""Stand-ins for the page's text, line and background colours, which differ between light and dark."""
_WIDTH = 5.0  # inches


def colours(methods: Sequence[str]) -> dict[str, str]:
    """Return each method's colour."""
    return {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(methods)}


def markers(methods: Sequence[str]) -> dict[str, str]:
    """Return each method's marker, for those who do not see the colour."""
    return {name: MARKERS[number % len(MARKERS)] for number, name in enumerate(methods)}


@contextmanager
def chart(height: float, x: str, y: str) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure and its plain axes, named; draw and `render` inside the context.

    Parameters
    ----------
    height : float
        Inches.
    x, y : str
        Names of the axes.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "featcache",
        "font.family": "sans-serif",
        "font.size": 9.0,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.edgecolor": RULE,
        "grid.color": RULE,
        "grid.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.major.size": 0.0,
        "ytick.major.size": 0.0,
        "axes.axisbelow": True,
        "path.simplify": True,
    }
    with mpl.rc_context(style), warnings.catch_warnings():
        # The reader's browser has the glyphs; matplotlib only measures the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.add_subplot(xlabel=x, ylabel=y, facecolor="none")
        figure.patch.set_visible(False)
        yield figure, axes


def render(figure: Figure, name: str, description: str) -> str:
    """Return a figure as an inline <svg>, without anything that differs from one time to the next.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    name : str
        Begins every id in it; one a page.
    description : str
        What is read out in its place.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    box = re.search(r'viewBox="([^"]+)"', text)
    assert box is not None
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<[^<>]*>", lambda found: _tag(found[0], name), body)
    title = html.escape(description)
    body = "\n".join(line.rstrip() for line in body.splitlines() if line.strip())
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{title}">\n{body}'


def _tag(tag: str, name: str) -> str:
    """Return a tag with ids of its own, and the page's colours."""
    tag = tag.replace("xlink:href", "href")
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    tag = re.sub(r'(href="|url\()#', rf"\1#{name}-", tag)
    for stand_in, colour in ((INK, "currentColor"), (RULE, "var(--rule)"), (PAPER, "var(--paper)")):
        tag = tag.replace(stand_in, colour)
    return tag
