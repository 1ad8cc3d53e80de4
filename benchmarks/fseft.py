"""Does the paper's picture hold? Zero-shot, black-box adapters and white-box fine-tuning on the shifted sites.

    python benchmarks/fseft.py --work /tmp/fseft --site middle --methods zero-shot,linear,pointwise,spatial
    python benchmarks/fseft.py --work /tmp/fseft --site middle --white full,lora_decoder,scratch
    python benchmarks/fseft.py --work /tmp/fseft --site middle --task new --methods linear,spatial@features+features_s2
    python benchmarks/fseft.py --work /tmp/fseft --zero-shot

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
from pathlib import Path

import numpy as np
from common import RESULTS, write_result

from adapters import FewShotSegmenter
from adapters.comparison import Comparison, Fold, Run
from adapters.protocol import Protocol, common_task, compare, score_case_of
from adapters.report import markdown
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
TASKS = {"known": KNOWN_STRUCTURES, "new": NEW_STRUCTURES}


def main() -> None:
    """Make cohorts and features, run what is asked for, print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--task", default="known", choices=tuple(TASKS))
    parser.add_argument("--site", default="middle", choices=tuple(SHIFTED_SITES))
    parser.add_argument("--methods", default="")
    parser.add_argument("--white", default="", help="full, decoder, lora_decoder, scratch")
    parser.add_argument("--shots", default="1,5,10")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--zero-shot", action="store_true", help="On all shifted and all training sites.")
    arguments = parser.parse_args()
    if arguments.zero_shot:
        _zero_shot(arguments.work)
        return
    store = features(arguments.work, arguments.site, POOL + TEST)
    names = [f"{arguments.site}_{number:02d}" for number in range(POOL + TEST)]
    folds = tuple(
        Fold(tuple(names[i] for i in np.random.default_rng(fold).permutation(POOL)), tuple(names[POOL:]))
        for fold in range(arguments.folds)
    )
    shots = tuple(map(int, arguments.shots.split(",")))
    methods = tuple(filter(None, arguments.methods.split(","))) or ("zero-shot",)
    protocol = Protocol(methods, shots, folds, classes=",".join(TASKS[arguments.task]))
    out = arguments.work / f"{arguments.site}-{arguments.task}"
    found, failed = compare(
        store, protocol, out, jobs=arguments.jobs, on_run=lambda *n: print(*n, flush=True)
    )
    runs = list(found.runs)
    for fold in range(arguments.folds):
        for count in shots:
            for method in filter(None, arguments.white.split(",")):
                kept = out / "white" / f"{method}-{count}-{fold}.json"
                if not kept.exists():
                    run = _white(arguments.work, arguments.site, protocol, (method, count, fold))
                    kept.parent.mkdir(exist_ok=True)
                    kept.write_text(json.dumps(run.to_json()))
                    print(run.name, f"{run.dice:.3f}", flush=True)
    for kept in sorted((out / "white").glob("*.json")):
        runs.append(Run.from_json(json.loads(kept.read_text())))
    found = dataclasses.replace(found, runs=tuple(runs))
    _save(f"{arguments.site}-{arguments.task}", found)
    print(f"\n{markdown(found)}\n{failed or ''}")


def _save(key: str, found: Comparison) -> None:
    """Keep a part of results/fseft.json: each run's Dice by class, and the table."""
    path = RESULTS / "fseft.json"
    document = json.loads(path.read_text()) if path.exists() else {}
    whole = found.to_json()
    runs = [
        {k: run.to_json()[k] for k in ("method", "shots", "fold", "support", "seconds", "trainable")}
        | {"classes": {n: round(d, 4) for n, d in run.class_dice().items()}, "dice": run.dice}
        for run in found.runs
    ]
    parts = document.get("parts", {}) | {key: {"table": whole["table"], "runs": runs}}
    write_result("fseft", {"pool": POOL, "test": TEST, "parts": parts})


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


def _zero_shot(work: Path) -> None:
    """The encoder's own head on five test cases of every site, structure by structure."""
    rows = {}
    for site in (*TRAINING_SITES, *SHIFTED_SITES):
        unseen = site in SHIFTED_SITES
        store = features(work, site, POOL + TEST if unseen else TEST)
        test = tuple(
            f"{site}_{number:02d}" for number in range(POOL if unseen else 0, POOL + TEST if unseen else TEST)
        )
        names = [n for n in find_site(site).annotated if n in KNOWN_STRUCTURES]
        protocol = Protocol(("zero-shot",), (1,), (Fold((), test),), classes=",".join(names))
        found, _ = compare(store, protocol, work / f"{site}-zero-shot")
        rows[site] = found.runs[0].class_dice() | {"mean": found.runs[0].dice}
        print(site, f"{rows[site]['mean']:.3f}", flush=True)
    write_result("zero_shot_sites", {"test": TEST, "sites": rows})
    sites = list(rows)
    lines = ["| structure | " + " | ".join(sites) + " |", "|---|" + "---|" * len(sites)]
    for name in ("mean", *KNOWN_STRUCTURES):
        cells = [f"{rows[site][name]:.2f}" if rows[site].get(name) is not None else "" for site in sites]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    print("\n" + "\n".join(lines))


def _white(work: Path, site: str, protocol: Protocol, key: tuple[str, int, int]) -> Run:
    """One white-box fit, exported, extracted and predicted like any encoder."""
    import whitebox

    method, shots, number = key
    fold = protocol.folds[number]
    support = fold.support[:shots]
    names = str(protocol.classes).split(",")
    model, trainable, seconds, curve = whitebox.fit(
        work / site, method, list(support), names, number, work / "tuned.onnx"
    )
    tuned = work / "tuned.zarr"
    shutil.rmtree(tuned, ignore_errors=True)
    tuned.with_name("tuned.private.json").unlink(missing_ok=True)
    scans = [work / site / "scans" / f"{case}.nii.gz" for case in fold.test]
    extract(model, scans, tuned, labels=work / site / "labels")
    store = FeatureStore.open(tuned)
    task = common_task(store, dataclasses.replace(protocol, folds=(Fold((), fold.test),)))
    fitted = FewShotSegmenter(method="zero-shot", classes=task).fit(store)
    scores = {
        case: score_case_of(store, task, case, fitted.predict(store.case(case)).values) for case in fold.test
    }
    return Run(method, shots, number, support, scores, seconds, 0.0, trainable, tuple(curve))


if __name__ == "__main__":
    main()
