"""Options that several commands of `adapters` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
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


def open_stores(paths: list[Path] | None, *, other_recipe: bool) -> FeatureStore:
    """Return the store named, the one in this folder, or several as one."""
    from featcache.store import FeatureStore, StorePool

    return StorePool.of(paths or [FeatureStore.find(Path())], other_recipe=other_recipe)
