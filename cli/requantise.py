"""`featcache requantise`: a store in fewer bits, without the encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import console
from cli.options import StorePrecision, report_cases
from featcache.events import Event


def requantise_command(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A store of float16 or float32 features.")],
    store_precision: StorePrecision,
    out: Annotated[Path, typer.Option("--out", "-o", help="The store to make or to go on with.")],
) -> None:
    """Store features and labels in fewer bits, from a float16 or float32 store.

    The first case by id calibrates integers. Complete cases are skipped, so an interrupted run goes on where it
    was. `featcache info` shows what was lost. Exit code 3: some cases failed.
    """
    from featcache.quantise import PRECISIONS
    from featcache.requantising import requantise

    precision = console.choice("--store-precision", store_precision, tuple(PRECISIONS))
    with console.Steps("requantise", "cases") as steps:

        def show(event: Event) -> None:
            if event.kind == "note":
                console.note(event.text)
            elif event.kind in ("start", "done", "skip", "fail"):
                steps.update(event.index - (event.kind == "start"), event.total, event.case)

        result = requantise(store, out, precision, on_event=show)
    report_cases(result, "requantised")
