"""Options that several commands share."""

from __future__ import annotations

import re
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
Budget = Annotated[
    str | None,
    typer.Option(help="Time for the fit, such as 90s, 5min or 1h: steps that do not fit in are left out."),
]
Runtime = Annotated[
    str, typer.Option(help="What computes the encoder: onnxruntime; or openvino (an extra), faster on CPUs.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]

_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def parse_budget(text: str | None) -> float | None:
    """Return the seconds of "90s", "5min" or "1h"."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|h)", text.strip())
    if found is None or float(found[1]) == 0:
        raise typer.BadParameter(
            f"found {text!r}; expected a time such as 90s, 5min or 1h", param_hint="--budget"
        )
    return float(found[1]) * _UNITS[found[2]]


def open_stores(paths: list[Path] | None, *, other_recipe: bool) -> FeatureStore:
    """Return the store named, the one in this folder, or several as one."""
    from featcache.store import FeatureStore, StorePool

    return StorePool.of(paths or [FeatureStore.find(Path())], other_recipe=other_recipe)
