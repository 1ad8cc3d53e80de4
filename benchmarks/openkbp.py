"""How good are few-shot adapters on real CT? 36 head-and-neck CTs, 3 folds, 1, 5 and 10 shots, 12 test cases.

    python benchmarks/openkbp.py --work /tmp/openkbp --methods linear,spatial,context

Features of both levels of ct_i3resnet152_l1l2 at 1 x 1 x 1.25 mm over the body's bounding box (about 5 GB).
Support cases are drawn from the support pool by the fold's number; Dice on the scans' own grid. The run
resumes: extracted cases and finished fits are kept. `--encoder builtin` or `random` (the built-in network without its
training) take the place of that encoder: 3 mm, about 1 GB.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from common import OPENKBP_CLASSES, encoder, openkbp_folds, shared_data, write_result

from adapters.protocol import Protocol, compare
from adapters.report import markdown
from featcache import FeatureStore, extract

DEFAULT = "ct_i3resnet152_l1l2"


def main() -> None:
    """Extract, fit, evaluate, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--methods", default="prototype,logistic,linear,pointwise,spatial,context")
    parser.add_argument("--shots", default="1,5")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--recipe", default="fast", choices=("fast", "paper"))
    parser.add_argument("--encoder", default=DEFAULT, choices=(DEFAULT, "builtin", "random"))
    arguments = parser.parse_args()
    data = shared_data() / "openkbp"
    model = encoder(arguments.encoder, arguments.work)
    name = "openkbp" if arguments.encoder == DEFAULT else f"openkbp_{arguments.encoder}"
    begun = time.perf_counter()
    extract(model, data / "cases.csv", arguments.work / f"{name}.zarr")
    print(f"features ready, {time.perf_counter() - begun:.0f} s")
    store = FeatureStore.open(arguments.work / f"{name}.zarr")
    protocol = Protocol(
        methods=tuple(arguments.methods.split(",")),
        shots=tuple(map(int, arguments.shots.split(","))),
        folds=openkbp_folds(arguments.folds),
        classes=",".join(OPENKBP_CLASSES),
        recipe="paper" if arguments.recipe == "paper" else "fast",
        baseline="linear" if "linear" in arguments.methods.split(",") else None,
    )
    out = arguments.work / f"{name}-{arguments.recipe}"
    found, failed = compare(
        store, protocol, out, jobs=arguments.jobs, on_run=lambda *n: print(*n, flush=True)
    )
    whole = found.to_json()
    for run in whole["runs"]:
        del run["curve"]
    path = write_result(name if arguments.recipe == "fast" else f"{name}_paper", whole)
    print(f"\n{markdown(found)}\n{failed or ''}\n{path}")


if __name__ == "__main__":
    main()
