"""Options and reports that several commands share."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import console

if TYPE_CHECKING:
    from featcache.events import ExtractResult
    from featcache.extraction import ExtractOptions
    from featcache.geometry import FloatTriple
    from featcache.store import FeatureStore

Encoder = Annotated[
    Path,
    typer.Option(
        "--model", help="ONNX file of the encoder, with its card; or builtin (CT), builtin-mr (MR)."
    ),
]
Inputs = Annotated[
    list[Path],
    typer.Option("--in", help="Folder of scans, a scan, dataset.json, CSV or DICOM folder; may be repeated."),
]
Runtime = Annotated[
    str,
    typer.Option(
        "--runtime", help="What computes the encoder: onnxruntime; or openvino (an extra), faster on CPUs."
    ),
]
ComputePrecision = Annotated[
    str,
    typer.Option(
        "--compute-precision",
        help="float32; or bfloat16 with openvino, faster still on CPUs that have it. Part of the recipe.",
    ),
]
EncoderDevice = Annotated[
    str, typer.Option("--device", help="auto, cpu or cuda; cuda fails if it is not really used.")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; all cores by default.")]
Spacing = Annotated[
    str | None,
    typer.Option("--spacing", help="x,y,z in mm in place of the card's; becomes part of the recipe."),
]
StorePrecision = Annotated[
    str,
    typer.Option(
        "--store-precision",
        help="float32, float16; float16-m7, -m5, -m4, -m3 with fewer mantissa bits; int8, int6, int5, int4 a channel.",
    ),
]
NanTo = Annotated[
    float | None, typer.Option("--nan-to", help="Value for NaN voxels, which are refused otherwise.")
]
AssumeHu = Annotated[
    bool, typer.Option("--assume-hu", help="Take CT values as HU even if they do not look so.")
]

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


def extract_options(
    runtime: str,
    compute_precision: str,
    device: str,
    threads: int | None,
    spacing: str | None,
    store_precision: str,
    nan_to: float | None,
    assume_hu: bool,
    annotated: str = "all",
) -> ExtractOptions:
    """Return how scans are read and features are made; what is no such option is wrong usage."""
    from featcache.extraction import ExtractOptions
    from featcache.quantise import PRECISIONS

    if nan_to is not None and not math.isfinite(nan_to):
        raise typer.BadParameter(f"{nan_to}: expected a finite number", param_hint="--nan-to")
    return ExtractOptions(
        runtime=console.choice("--runtime", runtime, ("onnxruntime", "openvino")),
        compute_precision=console.choice("--compute-precision", compute_precision, ("float32", "bfloat16")),
        device=console.choice("--device", device, ("auto", "cpu", "cuda")),
        threads=threads,
        spacing=_spacing(spacing),
        store_precision=console.choice("--store-precision", store_precision, tuple(PRECISIONS)),
        nan_to=nan_to,
        assume_hu=assume_hu,
        annotated=console.choice("--annotated", annotated, ("all", "present")),
    )


def _spacing(text: str | None) -> FloatTriple | None:
    if text is None:
        return None
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: expected three numbers such as 1.5,1.5,3", param_hint="--spacing"
        ) from None
    if not all(0 < v < math.inf for v in (x, y, z)):
        raise typer.BadParameter(f"{text!r}: expected positive mm", param_hint="--spacing")
    return x, y, z
