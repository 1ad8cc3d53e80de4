"""Does the paper's picture hold? Zero-shot, black-box adapters and white-box fine-tuning on the shifted sites.

    python benchmarks/fseft.py --work /tmp/fseft --zero-shot          # zero-shot everywhere, black-box at `middle`
    python benchmarks/fseft.py --work /tmp/fseft --methods full,lora_decoder,decoder,scratch

Generated scans of sites that the built-in encoder has not seen: a pool of 10 labelled cases, 5 test cases, support
drawn by the fold's number. White-box methods see the network's weights and the images (benchmarks/whitebox.py);
what they trained is exported and run through the very same extraction and zero-shot prediction. Dice on the scans'
own grid. The run resumes: cohorts, features and finished runs are kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import write_result

from adapters import FewShotSegmenter
from featcache import FeatureStore, extract
from featcache.phantom import (
    KNOWN_STRUCTURES,
    NEW_STRUCTURES,
    SHIFTED_SITES,
    STRUCTURES,
    TRAINING_SITES,
    find_site,
    write_cohort,
)

POOL, TEST, SEED = 10, 5, 0
WHITE_BOX = ("full", "decoder", "lora_decoder", "scratch")
TASKS = {"known": KNOWN_STRUCTURES, "new": NEW_STRUCTURES}


def main() -> None:
    """Make cohorts and features, run what is asked for, print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--task", default="known", choices=tuple(TASKS))
    parser.add_argument("--sites", default="middle")
    parser.add_argument("--methods", default="linear,pointwise,spatial")
    parser.add_argument("--shots", default="1,5,10")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--zero-shot", action="store_true", help="On all shifted and all training sites.")
    arguments = parser.parse_args()
    kept = arguments.work / "runs.json"
    runs: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []

    def once(key: dict[str, Any], run: Any) -> None:
        if any(key.items() <= done.items() for done in runs):
            return
        runs.append({**key, **run()})
        kept.write_text(json.dumps(runs))
        print({**key, "mean": round(runs[-1]["mean"], 3), "seconds": runs[-1].get("seconds")}, flush=True)

    if arguments.zero_shot:
        for site in (*SHIFTED_SITES, *TRAINING_SITES):
            once(
                {"task": "known", "site": site, "method": "zero-shot", "shots": 0, "fold": 0},
                lambda s=site: zero_shot(arguments.work, s),
            )
    for site in filter(None, arguments.sites.split(",")):
        for fold in range(arguments.folds):
            order = np.random.default_rng(fold).permutation(POOL)
            for shots in map(int, arguments.shots.split(",")):
                support = [f"{site}_{n:02d}" for n in order[:shots]]
                for method in filter(None, arguments.methods.split(",")):
                    key = {
                        "task": arguments.task,
                        "site": site,
                        "method": method,
                        "shots": shots,
                        "fold": fold,
                    }
                    once(key, lambda k=key, s=support: few_shot(arguments.work, k, s))
    path = write_result("fseft", {"pool": POOL, "test": TEST, "runs": runs})
    print(f"\n{table(runs)}\n\n{path}")


def cohort(work: Path, site: str, cases: int) -> Path:
    """The site's scans and labels; everything is outlined, whatever the site annotates."""
    folder = work / site
    if not (folder / "done").exists():
        every = dataclasses.replace(find_site(site), annotated=tuple(STRUCTURES)[1:])
        write_cohort(folder, every, cases, seed=SEED)
        (folder / "done").touch()
    return folder


def features(work: Path, site: str, cases: int) -> FeatureStore:
    """The store of a site's features by the built-in encoder."""
    folder = cohort(work, site, cases)
    out = folder / "builtin.zarr"
    extract("builtin", folder / "scans", out)
    return FeatureStore.open(out)


def zero_shot(work: Path, site: str) -> dict[str, Any]:
    """The encoder's own head on test cases."""
    unseen = site in SHIFTED_SITES
    store = features(work, site, POOL + TEST if unseen else TEST)
    test = store.cases()[-TEST:]
    names = [n for n in find_site(site).annotated if n in KNOWN_STRUCTURES]
    fitted = FewShotSegmenter(method="zero-shot", classes=",".join(names)).fit(store)
    return score(fitted, store, test, names)


def few_shot(work: Path, key: dict[str, Any], support: list[str]) -> dict[str, Any]:
    """One fit and its Dice on the test cases."""
    store = features(work, key["site"], POOL + TEST)
    test = store.cases()[-TEST:]
    names = list(TASKS[key["task"]])
    method, _, levels = key["method"].partition("@")
    if method not in WHITE_BOX:
        segmenter = FewShotSegmenter(
            method=method,
            support=support,
            classes=",".join(names),
            seed=key["fold"],
            levels=levels.split("+") if levels else None,
        )
        fitted = segmenter.fit(store)
        found = score(fitted, store, test, names)
        return found | {
            "seconds": fitted.info.seconds,
            "trainable": fitted.info.trainable,
            "support": support,
        }
    import whitebox

    model, trainable, seconds = whitebox.fit(
        work / key["site"], method, support, names, key["fold"], work / "tuned.onnx"
    )
    tuned = work / "tuned.zarr"
    shutil.rmtree(tuned, ignore_errors=True)
    tuned.with_name("tuned.private.json").unlink(missing_ok=True)
    scans = [work / key["site"] / "scans" / f"{case}.nii.gz" for case in test]
    extract(model, scans, tuned, labels=work / key["site"] / "labels")
    store = FeatureStore.open(tuned)
    fitted = FewShotSegmenter(method="zero-shot", classes=",".join(names)).fit(store)
    return score(fitted, store, store.cases(), names) | {
        "seconds": seconds,
        "trainable": trainable,
        "support": support,
    }


def score(fitted: Any, store: FeatureStore, test: list[str], names: list[str]) -> dict[str, Any]:
    """Dice per test case and class, None where neither shows it."""
    scores: dict[str, list[float | None]] = {}
    begun = time.perf_counter()
    for case in test:
        mask = fitted.predict(store.case(case))
        labels = store.case(case).labels()
        assert labels is not None
        truth = labels.read()
        row: list[float | None] = []
        for name in names:
            a, b = mask.values == mask.classes[name], truth == labels.classes[name]
            total = int(a.sum() + b.sum())
            row.append(None if total == 0 else float(2 * (a & b).sum() / total))
        scores[case] = row
    every = np.array([[np.nan if v is None else v for v in row] for row in scores.values()])
    return {
        "classes": names,
        "dice": scores,
        "mean": float(np.nanmean(np.nanmean(every, axis=0))),
        "predict_seconds": round((time.perf_counter() - begun) / len(test), 2),
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: mean Dice (over structures, cases and folds) with the folds' spread."""
    lines = [
        "| task | site | method | shots | Dice | folds | trainable | fit, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups = dict.fromkeys((r["task"], r["site"], r["method"], r["shots"]) for r in runs)
    for task, site, method, shots in groups:
        mine = [
            r for r in runs if (r["task"], r["site"], r["method"], r["shots"]) == (task, site, method, shots)
        ]
        means = [r["mean"] for r in mine]
        seconds = [r["seconds"] for r in mine if "seconds" in r]
        cells = [task, site, method, str(shots or "-"), f"{np.mean(means):.3f} ± {np.std(means):.3f}", str(len(mine)),
                 f"{mine[0].get('trainable', 0):,}", f"{np.mean(seconds):.0f}" if seconds else "-"]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
