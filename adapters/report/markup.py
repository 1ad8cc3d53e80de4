"""Small pieces of HTML."""

from __future__ import annotations

import html
from typing import Any


def text(value: Any) -> str:
    """Return text as it may stand in HTML."""
    return html.escape(str(value))


def section(title: str, body: str) -> str:
    """Return a part of the page with its heading; `body` is HTML."""
    return f"<section>\n<h2>{text(title)}</h2>\n{body}\n</section>"


def key(colour: str, *, dashed: bool) -> str:
    """Return a method's mark: a dot in its colour, or dashes where nothing is trained."""
    return f'<span class="key{" dashed" if dashed else ""}" style="--hue:{colour}" aria-hidden="true"></span>'
