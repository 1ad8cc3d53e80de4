"""`featcache doctor`: what works on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from cli import console


def doctor(
    model: Annotated[
        Path, typer.Option(help="The encoder that is timed: ONNX file with its card, builtin or builtin-mr.")
    ] = Path("builtin"),
    out: Annotated[Path, typer.Option(help="Where a store is to lie, for the free disk.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Tell what works on this machine: packages, ONNX Runtime's providers, memory, disk, and a timed window.

    Exit code 0 without problems, 1 otherwise; a note is no problem.
    """
    from featcache.doctor import Request, examine

    findings = examine(Request(model, out))
    problems = [finding for finding in findings if finding.level == "problem"]
    if as_json:
        console.print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        console.table("", ("what", "", "found"), [(f.check, f.level, f.text) for f in findings], left=3)
        for finding in problems:
            console.fail(f"{finding.check}: {finding.text}. What to do: {finding.advice}")
        console.say(f"{len(problems) or 'no'} problem{'s' * (len(problems) != 1)}")
    if problems:
        raise typer.Exit(console.EXIT_ERROR)
