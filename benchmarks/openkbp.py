"""How good are few-shot adapters on real CT? 36 head-and-neck CTs, 3 folds, 1 and 5 shots, 12 test cases.

    python benchmarks/openkbp.py --work /tmp/openkbp

Features of both levels of ct_i3resnet152_l1l2 at 1 x 1 x 1.25 mm over the body's bounding box (about 13 GB).
Support cases are drawn from the support pool by the fold's number; Dice on the scans' own grid. The run
resumes: extracted cases and finished fits are kept. `--encoder builtin` or `random` (the built-in network without its
training) take the place of that encoder: 3 mm, about 1 GB.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import encoder, shared_data, write_result

from adapters import FewShotSegmenter
from adapters.recipe import RecipeName
from adapters.task import parse_classes, resolve
from featcache import FeatureStore, extract

DEFAULT = "ct_i3resnet152_l1l2"
CORE = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Mandible")


def main() -> None:
    """Extract, fit, evaluate, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--methods", default="logistic,linear,spatial")
    parser.add_argument("--shots", default="1,5")
    parser.add_argument("--folds", type=int, default=3)
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
    with (data / "cases.csv").open() as file:
        split = {row["case"]: row["split"] for row in csv.DictReader(file)}
    pool = [c for c, s in split.items() if s == "support"]
    test = [c for c, s in split.items() if s == "test"]
    kept = arguments.work / ("runs.json" if name == "openkbp" else f"runs_{arguments.encoder}.json")
    runs: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    recipe: RecipeName = "paper" if arguments.recipe == "paper" else "fast"
    for fold in range(arguments.folds):
        order = np.random.default_rng(fold).permutation(len(pool))
        for shots in map(int, arguments.shots.split(",")):
            support = [pool[i] for i in order[:shots]]
            for method in arguments.methods.split(","):
                key = {"method": method, "recipe": recipe, "shots": shots, "fold": fold}
                if not any(key.items() <= run.items() for run in runs):
                    runs.append({**key, **one(store, method, recipe, support, test, fold)})
                    kept.write_text(json.dumps(runs))
                    print({k: runs[-1][k] for k in (*key, "mean", "seconds")}, flush=True)
    path = write_result(name, {"classes": CORE, "test": test, "runs": runs})
    print(f"\n{table(runs)}\n\n{path}")


def one(
    store: FeatureStore, method: str, recipe: RecipeName, support: list[str], test: list[str], seed: int
) -> dict[str, Any]:
    """Fit one adapter and return its Dice per test case and class."""
    segmenter = FewShotSegmenter(
        method=method, recipe=recipe, support=support, classes=",".join(CORE), seed=seed
    )
    fitted = segmenter.fit(store)
    begun = time.perf_counter()
    scores = {case: dice(fitted.predict(store.case(case)).values, store, case) for case in test}
    return {
        "support": support,
        "dice": scores,
        "mean": float(np.mean(list(scores.values()))),
        "seconds": fitted.info.seconds,
        "predict_seconds": round((time.perf_counter() - begun) / len(test), 2),
        "trainable": fitted.info.trainable,
    }


def dice(mask: np.ndarray, store: FeatureStore, case: str) -> list[float]:
    """Return the Dice of each core structure against the stored labels, on the scan's grid."""
    labels = store.case(case).labels()
    assert labels is not None
    task = parse_classes(",".join(CORE))
    truth = resolve(task, labels.classes, labels.annotated, case).apply(labels.read())
    pairs = [(mask == value, truth == value) for value in task.values.values()]
    return [float(2 * (a & b).sum() / (a.sum() + b.sum())) for a, b in pairs]


def table(runs: list[dict[str, Any]]) -> str:
    """Return a Markdown table: mean over cases and structures, then over folds, with the folds' spread."""
    head = ["method", "shots", "mean Dice ± sd over folds", *CORE, "fit, s", "predict, s a case", "trainable"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for shots in sorted({run["shots"] for run in runs}):
        for method, recipe in dict.fromkeys((run["method"], run["recipe"]) for run in runs):
            wanted = {"method": method, "recipe": recipe, "shots": shots}
            mine = [run for run in runs if wanted.items() <= run.items()]
            if not mine:
                continue
            means = [run["mean"] for run in mine]
            classes = np.mean([np.mean(list(run["dice"].values()), axis=0) for run in mine], axis=0)
            name = method if recipe == "fast" else f"{method}, {recipe} recipe, {len(mine)} fold(s)"
            cells = [name, str(shots), f"{np.mean(means):.3f} ± {np.std(means):.3f}"]
            cells += [f"{value:.2f}" for value in classes]
            cells += [f"{np.mean([run[k] for run in mine]):.0f}" for k in ("seconds",)]
            cells += [f"{np.mean([run['predict_seconds'] for run in mine]):.1f}", f"{mine[0]['trainable']:,}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
