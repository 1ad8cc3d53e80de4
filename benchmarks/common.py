"""What the benchmarks share: real encoders with their cards, versions and hardware, result files."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from adapters.comparison import Fold
from featcache.card_json import parse_card
from featcache.encoder_tools import attach
from featcache.encoders import model_path

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared" / "data"
RESULTS = HERE / "results"

OPENKBP_CLASSES = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Mandible")
"""The structures that all of its cases have."""


def shared_data() -> Path:
    """Return the folder of real scans and encoders; leave with a sentence where it is absent."""
    if not SHARED.is_dir():
        sys.exit(f"{SHARED} is absent: this benchmark needs its real scans and encoders")
    return SHARED


def openkbp_folds(count: int) -> tuple[Fold, ...]:
    """Return folds of the shared head-and-neck CTs: support drawn by the fold's number, the same 12 test cases."""
    with (shared_data() / "openkbp" / "cases.csv").open() as file:
        split = {row["case"]: row["split"] for row in csv.DictReader(file)}
    pool = [case for case, where in split.items() if where == "support"]
    test = tuple(case for case, where in split.items() if where == "test")
    return tuple(
        Fold(tuple(pool[i] for i in np.random.default_rng(fold).permutation(len(pool))), test)
        for fold in range(count)
    )


def encoder(name: str, work: Path) -> Path:
    """Return a copy, in `work`, of a shared encoder with its card from benchmarks/cards attached.

    "builtin" is the encoder that ships, "random" the same network with the weights that it began with.
    """
    work.mkdir(parents=True, exist_ok=True)
    model = work / f"{name}.onnx"
    if name == "builtin":
        return model_path(name)
    if name == "random":
        from pretraining.export import export_random

        return model if model.exists() else export_random(model)
    if not model.exists():
        part = model.with_suffix(".part.onnx")
        shutil.copy(shared_data() / "models" / f"{name}.onnx", part)
        card = HERE / "cards" / f"{name}.card.json"
        attach(part, parse_card(card.read_text("utf-8"), str(card)))
        part.rename(model)
    return model


def environment() -> dict[str, Any]:
    """Return versions and hardware for a result file."""
    names = ("featcache", "numpy", "onnxruntime-gpu", "scikit-learn", "torch", "zarr")
    model = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in names},
        "cpu": model[0] if model else platform.processor(),
        "cores": os.cpu_count(),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def write_result(name: str, document: dict[str, Any]) -> Path:
    """Write ``results/<name>.json`` with versions and hardware."""
    path = RESULTS / f"{name}.json"
    text = json.dumps({**document, "environment": environment()}, indent=1, allow_nan=False)
    path.write_text(text + "\n", "utf-8")
    return path
