"""Options and reports that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import console

if TYPE_CHECKING:
    from featcache.events import ExtractResult
    from featcache.store import FeatureStore

Stores = Annotated[
    list[Path] | None,
    typer.Option(
        "--store",
        help="The feature store; the one in this folder by default. Repeat it to pool several of one encoder.",
    ),
]
OtherRecipe = Annotated[
    bool, typer.Option("--other-recipe", help="Pool stores even if their recipes differ (spacing, windows).")
]
Levels = Annotated[str | None, typer.Option(help="Levels to read, a,b; the card's by default.")]
Recipe = Annotated[str, typer.Option(help="fast, or paper: FSEFT's own numbers, hours on a CPU.")]
Width = Annotated[int, typer.Option(min=1, help="Channels that pointwise and spatial read of more than 64.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


StorePrecisionName = Annotated[
    str,
    typer.Option(
        "--store-precision",
        help="float32, float16; float16-m7, -m5, -m4, -m3 with fewer mantissa bits; int8, int6, int5, int4 a channel.",
    ),
]


def report_cases(result: ExtractResult, done: str) -> None:
    """Say how many cases are `done`, and leave with the exit code of those that failed."""
    console.say(
        f"{result.store}: {len(result.done)} cases {done}, {len(result.skipped)} complete before, "
        f"{len(result.failed)} failed"
    )
    if result.labelled:
        console.say(f"labels of {len(result.labelled)} cases written")
    exit_code_of(result)


def exit_code_of(result: ExtractResult) -> None:
    """Leave with the code of what failed; every failed case is named once more at the end."""
    if not result.failed:
        return
    for case, message in result.failed.items():
        console.fail(f"{case}: {message}")
    some = result.done or result.skipped or result.labelled
    raise typer.Exit(console.EXIT_SOME_FAILED if some else console.EXIT_ERROR)


def stored_error_text(levels: list[dict[str, Any]]) -> str:
    """Return what storing did to a case's levels: the largest error, all that was clipped, how the head agrees."""
    if all("relative_sigma" not in level for level in levels):
        return f"{max(level['relative_rms'] for level in levels):.2g} rms"
    parts = [f"{max(level['relative_sigma'] for level in levels):.2g} σ"]
    if clipped := sum(level["clipped"] for level in levels):
        parts.append(f"{clipped} clipped")
    parts += [f"head {level['head_agreement']:.2%} alike" for level in levels if "head_agreement" in level]
    return ", ".join(parts)


def open_stores(paths: list[Path] | None, *, other_recipe: bool) -> FeatureStore:
    """Return the store named, the one in this folder, or several as one."""
    from featcache.store import FeatureStore, StorePool

    return StorePool.of(paths or [FeatureStore.find(Path())], other_recipe=other_recipe)
