"""The options that name feature stores."""

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


def open_stores(paths: list[Path] | None, *, other_recipe: bool) -> FeatureStore:
    """Return the store named, the one in this folder, or several as one."""
    from featcache.store import FeatureStore, StorePool

    return StorePool.of(paths or [FeatureStore.find(Path())], other_recipe=other_recipe)
