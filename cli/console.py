"""What a person sees: progress, tables, messages, and errors as exit codes."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from featcache import text as words
from featcache.errors import FeatcacheError

if TYPE_CHECKING:
    from featcache.events import Event

EXIT_ERROR, EXIT_SOME_FAILED = 1, 3
_PLAIN_EVERY = 30.0  # seconds between lines where the output is no terminal

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)
size_text = words.size_text


def run(app: typer.Typer) -> None:
    """Run a program: our own errors become one message and exit code 1.

    Exit codes: 0 all done, 1 error, 2 wrong usage, 3 some cases failed.
    """
    # Before torch is loaded: threads that spin long while they wait crawl as soon as another program wants a core.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    try:
        app()
    except FeatcacheError as error:
        fail(str(error))
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        fail("interrupted; what is complete is kept, run the same command to go on")
        sys.exit(130)
    except MemoryError as error:
        fail(f"out of memory: {error}. Use a smaller window in the card, or a machine with more memory")
        sys.exit(EXIT_ERROR)


def show_version(show: bool) -> None:
    """Print the version and leave."""
    if show:
        from featcache import __version__

        say(f"featcache {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
]


def choice(option: str, value: str, allowed: tuple[str, ...]) -> Any:
    """Return `value` if it is allowed, else leave as wrong usage (exit code 2)."""
    if value not in allowed:
        raise typer.BadParameter(f"{value!r}: expected one of {', '.join(allowed)}", param_hint=option)
    return value


def split(text: str) -> list[str]:
    """Return the parts of ``a,b,c``."""
    return [part.strip() for part in text.split(",") if part.strip()]


def say(text: str) -> None:
    """Print a line."""
    out.print(escape(text))


def note(text: str) -> None:
    """Print a remark on stderr."""
    err.print(f"[dim]{escape(text)}[/dim]")


def warn(text: str) -> None:
    """Print a warning on stderr."""
    err.print(f"[yellow]warning:[/yellow] {escape(text)}")


def fail(text: str) -> None:
    """Print an error on stderr."""
    err.print(f"[bold red]error:[/bold red] {escape(text)}")


def print_json(document: Any) -> None:
    """Print a JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, left: int = 1) -> None:
    """Print a table; the first `left` columns are left-aligned, the others right."""
    grid = Table(title=escape(title) if title else None, title_justify="left")
    for number, column in enumerate(columns):
        grid.add_column(escape(column), justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        grid.add_row(*(escape(str(cell)) for cell in row))
    # Wide enough for every column where the output is a file.
    Console(highlight=False, width=None if out.is_terminal else 160).print(grid)


def time_text(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class Steps:
    """A progress bar over `total` steps; plain lines now and then where the output is no terminal."""

    def __init__(self, title: str, unit: str) -> None:
        self._title, self._unit = title, unit
        self._first: tuple[float, float] | None = None  # time and steps done at the first update
        self._said = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._task = self._bar.add_task(title, total=None, text="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, done: float, total: float, text: str = "", title: str | None = None) -> None:
        """Show that `done` of `total` steps are over."""
        self._bar.update(self._task, completed=done, total=total, text=text, description=title or self._title)
        now = time.monotonic()
        self._first = self._first or (now, done)
        begun, before = self._first
        if not err.is_terminal and now - self._said >= _PLAIN_EVERY and done > before:
            self._said = now
            left = (now - begun) / (done - before) * (total - done)
            err.print(
                escape(
                    f"{title or self._title}: {done:.4g} of {total:g} {self._unit}, {text} {time_text(left)} left"
                )
            )

    def on_step(self, step: int, total: int, loss: float) -> None:
        """Show a training step."""
        self.update(step, total, f"loss {loss:.3f}")


class ExtractDisplay:
    """Shows an extraction's events: cases, windows, time left."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._windows = 0
        self._skipped = 0
        self._begun = 0.0

    def __call__(self, event: Event) -> None:
        """Show one event."""
        number = f"[{event.index}/{event.total}]"
        done = event.index - 1 - self._skipped
        total = max(event.total - self._skipped, 1)
        show: dict[str, Callable[[], None]] = {
            "note": lambda: note(f"{event.case}: {event.text}" if event.case else event.text),
            "skip": self._skip,
            "start": lambda: self._start(done, total, f"{number} {event.case}"),
            "window": lambda: self._window(event, done, total),
            "done": lambda: note(
                f"{number} {event.case}: {self._windows} windows, {time_text(time.monotonic() - self._begun)}"
            ),
            "fail": lambda: note(f"{number} {event.case}: failed, told at the end"),
        }
        show.get(event.kind, lambda: None)()

    def _skip(self) -> None:
        self._skipped += 1

    def _start(self, done: int, total: int, title: str) -> None:
        self._windows, self._begun = 0, time.monotonic()
        self._steps.update(done, total, "reading", title)

    def _window(self, event: Event, done: int, total: int) -> None:
        self._windows += 1
        fraction = done + self._windows / max(event.count, 1)
        text = f"window {self._windows} of {event.count},"
        self._steps.update(fraction, total, text, f"[{event.index}/{event.total}] {event.case}")
