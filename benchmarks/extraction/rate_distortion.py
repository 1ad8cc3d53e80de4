"""How many bits do stored features need? Rate against error, the head's decisions and adapters' Dice.

    python benchmarks/extraction/rate_distortion.py --work /tmp/rate_distortion

The 36 head-and-neck CTs of `openkbp.py` through the built-in encoder, stored as float16, then requantised to every
coarser precision. Adapters `linear` and `spatial` are fitted on 5 scans of the stored features, and tested on the
stored features of 12 others: Dice of five structures on the scans' own grid. The run resumes. `--store` names a float16
store of these scans that is there already, of any encoder; it is only read.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import OPENKBP_CLASSES, openkbp_folds, shared_data, write_result

from adapters.comparison import table_rows
from adapters.protocol import Protocol, compare
from featcache import FeatureStore, extract, requantise
from featcache.quantise import PRECISIONS

REFERENCE = "float16"
COLUMNS = ("bits a value", "bytes a voxel", "error, σ", "clipped", "head alike", "read, M values/s")


def main() -> None:
    """Requantise, fit, evaluate, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--store", type=Path, help="a float16 store; extracted with the built-in encoder if absent"
    )
    coarser = [name for name in PRECISIONS if name not in ("float32", REFERENCE)]
    parser.add_argument("--precisions", default=",".join(coarser))
    parser.add_argument("--methods", default="linear,spatial", help="'' to leave adapters out")
    parser.add_argument("--folds", type=int, default=1)
    parser.add_argument("--name", default="rate_distortion", help="of the result file")
    arguments = parser.parse_args()
    source = arguments.store or arguments.work / f"{REFERENCE}.zarr"
    if arguments.store is None:
        extract("builtin", shared_data() / "openkbp" / "cases.csv", source)
    methods = tuple(filter(None, arguments.methods.split(",")))
    rows = []
    for precision in (REFERENCE, *arguments.precisions.split(",")):
        path = source if precision == REFERENCE else arguments.work / f"{precision}.zarr"
        if path != source:
            requantise(source, path, precision)
        store = FeatureStore.open(path)
        dice = adapters_dice(store, methods, arguments.folds, arguments.work / f"{precision}-runs")
        row = {"precision": precision, **stored(store), **read_speed(store), "dice": dice}
        rows.append(row)
        print(json.dumps(row), flush=True)
    settings = {
        "encoder": store.root.card["name"],
        "cases": len(store.cases()),
        "shots": 5,
        "folds": arguments.folds,
        "fitted": bool(methods),
    }
    path = write_result(arguments.name, {"settings": settings, "rows": rows})
    print(f"\n{markdown(rows, methods)}\n{path}")


def adapters_dice(store: FeatureStore, methods: tuple[str, ...], folds: int, out: Path) -> dict[str, float]:
    """Return the mean Dice of adapters fitted on 5 scans, on 12 others, by method."""
    if not methods:
        return {}
    protocol = Protocol(
        methods=methods, shots=(5,), folds=openkbp_folds(folds), classes=",".join(OPENKBP_CLASSES)
    )
    found, failed = compare(store, protocol, out)
    assert not failed, failed
    return {row.method: row.dice for row in table_rows(found)}


def stored(store: FeatureStore) -> dict[str, Any]:
    """Return size and error of a store's features: the default level's, clipped and bits those of all levels."""
    cases = store.describe()["cases"]
    default = next(output["name"] for output in store.root.card["outputs"] if output.get("default", True))
    levels = [level for case in cases for level in case["levels"].values()]
    values = sum(level["channels"] * math.prod(level["shape"]) for level in levels)
    bits = 8 * sum(level["bytes"] for level in levels) / values
    errors = [case["levels"][default]["stored_error"] for case in cases]
    heads = [error["head_agreement"] for error in errors if "head_agreement" in error]
    sigmas = [error["relative_sigma"] for error in errors if "relative_sigma" in error]
    clipped = sum(level["stored_error"].get("clipped", 0) for level in levels)
    return {
        "bits": round(bits, 3),
        "bytes_a_voxel": round(bits / 8 * cases[0]["levels"][default]["channels"], 2),
        "relative_sigma": round(statistics.fmean(sigmas), 5) if sigmas else None,
        "clipped_share": clipped / values,
        "head_agreement": round(statistics.fmean(heads), 5) if heads else None,
        "gigabytes": round(bits / 8 * values / 1e9, 3),
    }


def read_speed(store: FeatureStore) -> dict[str, float]:
    """Return how many million values a second are read of one case's largest level, whole; best of three."""
    case = store.case(store.cases()[0])
    level = max((case.level(name) for name in case.levels), key=lambda found: math.prod(found.grid.shape))
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        level.read((0, 0, 0), level.grid.shape)
        times.append(time.perf_counter() - begun)
    return {
        "read_million_values_a_second": round(level.channels * math.prod(level.grid.shape) / min(times) / 1e6)
    }


def markdown(rows: list[dict[str, Any]], methods: tuple[str, ...]) -> str:
    """Return the rows as a Markdown table; Dice in points, with the difference to float16."""
    reference = rows[0]["dice"]
    titles = ("precision", *COLUMNS, *(f"{method}, 5 shots" for method in methods))
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for row in rows:
        sigma, head = row["relative_sigma"], row["head_agreement"]
        cells = [
            row["precision"],
            f"{row['bits']:.2f}",
            f"{row['bytes_a_voxel']:.1f}",
            "-" if sigma is None else f"{sigma:.4f}",
            "-" if row["precision"].startswith("float") else f"{row['clipped_share']:.1e}",
            "-" if head is None else f"{head:.2%}",
            str(row["read_million_values_a_second"]),
        ]
        cells += [
            f"{100 * row['dice'][method]:.1f} ({100 * (row['dice'][method] - reference[method]):+.2f})"
            for method in methods
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
