"""What a run over scans tells while it goes on, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Event:
    """What is going on, for progress displays.

    Parameters
    ----------
    kind : {"note", "start", "windows", "window", "skip", "done", "fail", "labels"}
        ``note``: a sentence. ``start``: a case begins. ``windows``: it has `count` windows. ``window``: one
        more is encoded. ``skip``: it was complete. ``done``, ``fail``: it ended. ``labels``: they were written.
    case : str
        The case, empty for a note.
    text : str
        For people.
    index, total : int
        The case's number from 1, and the number of cases.
    count : int
        Windows of the case.
    """

    kind: Literal["note", "start", "windows", "window", "skip", "done", "fail", "labels"]
    case: str = ""
    text: str = ""
    index: int = 0
    total: int = 0
    count: int = 0


OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class ExtractResult:
    """What an extraction did.

    Parameters
    ----------
    store : Path
        The store.
    done, skipped : tuple of str
        Cases extracted now, and cases that were complete.
    labelled : tuple of str
        Cases whose labels were written now.
    failed : mapping of str to str
        Cases that failed, with the message.
    """

    store: Path
    done: tuple[str, ...]
    skipped: tuple[str, ...]
    labelled: tuple[str, ...]
    failed: Mapping[str, str]


@dataclass
class Tally:
    """An `ExtractResult` in the making."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    labelled: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def freeze(self, store: Path) -> ExtractResult:
        """Return the result."""
        return ExtractResult(
            store, tuple(self.done), tuple(self.skipped), tuple(self.labelled), dict(self.failed)
        )
