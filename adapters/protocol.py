"""FSEFT's protocol on any store: shots x folds x methods, resumable, in parallel.

Silva-Rodríguez et al., Medical Image Analysis 2025: support drawn by the fold's number, fixed test cases, Dice averaged
over cases, then folds. Each run is written to a file of its own when it is whole; what a killed comparison has
finished is not done again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapters.comparison import Comparison, Fold, Run
from adapters.labels import LABELS, known_classes
from adapters.methods import get_method
from adapters.methods.heads import own_head
from adapters.metrics import Score, check_tolerance, dice_case, score_case
from adapters.recipe import RecipeName
from adapters.segmenter import FewShotSegmenter
from adapters.task import Task, check_known, parse_classes, resolve, task_of_all
from featcache import __version__
from featcache.card_json import card_from_json
from featcache.errors import FeatcacheError, StoreError, TaskError
from featcache.geometry import spacing
from featcache.head import LinearHead
from featcache.machine import usable_cores
from featcache.store import FeatureStore

OnRun = Callable[[int, int, str], None]
"""Told how many of how many runs are done, and the name of the one that ended."""


@dataclass(frozen=True)
class Protocol:
    """What is compared, and how.

    Parameters
    ----------
    methods : tuple of str
        A name, or name@level+level to read other levels than the rest.
    shots : tuple of int
    folds : tuple of Fold
    classes : str or Task, optional
        As in `FewShotSegmenter`; every class that all cases of the folds annotate if not given.
    levels : tuple of str, optional
    recipe : {"fast", "paper"}
    width : int
    seed : int
        Of the trainings; fold f trains with seed + f.
    device : str
    tolerance_mm : float, optional
        Also score surfaces, NSD at this tolerance and HD95; Dice alone if None.
    baseline : str, optional
        The method that others are tested against: zero-shot, else linear, else the first, if not given.
    """

    methods: tuple[str, ...]
    shots: tuple[int, ...]
    folds: tuple[Fold, ...]
    classes: str | Task | None = None
    levels: tuple[str, ...] | None = None
    recipe: RecipeName = "fast"
    width: int = 48
    seed: int = 0
    device: str = "auto"
    tolerance_mm: float | None = None
    baseline: str | None = None

    def __post_init__(self) -> None:
        for name in self.methods:
            get_method(name.partition("@")[0])
        for what, values in (("methods", self.methods), ("shots", self.shots)):
            if not values or len(set(values)) != len(values):
                raise TaskError(f"--{what}: found {list(values)}; expected one or more, each once")
        if self.tolerance_mm is not None:
            check_tolerance(self.tolerance_mm)
        if min(self.shots) < 1:
            raise TaskError(f"--shots {min(self.shots)}: expected 1 or more")
        if self.baseline is not None and self.baseline not in self.methods:
            raise TaskError(f"--baseline {self.baseline!r}: expected one of {', '.join(self.methods)}")

    @property
    def reference(self) -> str:
        """The baseline, chosen where none is given."""
        usual = [*(name for name in ("zero-shot", "linear") if name in self.methods), *self.methods]
        return self.baseline or usual[0]


@dataclass(frozen=True)
class Job:
    """One run that is to be done."""

    method: str
    shots: int
    fold: int

    @property
    def name(self) -> str:
        """As `Run.name`."""
        return f"{self.method}-{self.shots}-{self.fold}"


def compare(
    store: FeatureStore, protocol: Protocol, out: Path, *, jobs: int = 1, on_run: OnRun | None = None
) -> tuple[Comparison, dict[str, str]]:
    """Return what was found, and the runs that failed with their messages.

    Parameters
    ----------
    store : FeatureStore
    protocol : Protocol
    out : Path
        Folder for `plan.json`, `runs/` and `adapters/`. Finished runs in it are kept; more methods and shots may be
        asked for later.
    jobs : int
        Processes that share the runs and the processor's cores.
    on_run : callable, optional

    Raises
    ------
    TaskError
        If no class is common to all cases, or one is unknown.
    StoreError
        If `out` holds another comparison, or cannot be written.
    """
    task = common_task(store, protocol)
    _prepare(out, _plan(store, protocol, task))
    wanted = list(_jobs(protocol))
    missing = [job for job in wanted if not _run_path(out, job).exists()]
    failed: dict[str, str] = {}
    done = len(wanted) - len(missing)
    work = _Work(store, protocol, task, out)
    for name, error in _each(work, missing, jobs):
        if name is not None and error is not None:
            failed[name] = error
        done += name is not None
        if on_run is not None:
            on_run(done, len(wanted), name or "")
    runs = tuple(_read(_run_path(out, job)) for job in wanted if _run_path(out, job).exists())
    comparison = Comparison(
        settings=_settings(store, protocol, task),
        classes=task.names,
        folds=protocol.folds,
        runs=runs,
        baseline=protocol.reference,
        deviations=deviations(store, protocol),
    )
    return comparison, failed


def run_one(store: FeatureStore, protocol: Protocol, task: Task, job: Job, out: Path) -> Run:
    """Fit once, predict the fold's test cases, and keep the adapter.

    A class that no support case shows cannot be learned. Where the method starts from the encoder's own head and
    that knows the class, it stays as it is there; else the other classes are learned and it counts as missed.
    """
    fold = protocol.folds[job.fold]
    method, _, levels = job.method.partition("@")
    trained = get_method(method).needs_labels
    support = fold.support[: job.shots] if trained else ()
    known = _known_to_head(store, task) if get_method(method).from_own_head else False
    shown = _shown(store, task, support) if trained and not known else task
    fitted = FewShotSegmenter(
        method=method,
        support=support or None,
        classes=shown,
        levels=levels.split("+") if levels else protocol.levels,
        recipe=protocol.recipe,
        width=protocol.width,
        seed=protocol.seed + job.fold,
        device=protocol.device,
    ).fit(store)
    target = out / "adapters" / job.name
    shutil.rmtree(target, ignore_errors=True)
    fitted.save(target)
    scores: dict[str, dict[str, Score]] = {}
    spent = 0.0
    for case in fold.test:
        begun = time.perf_counter()
        values = fitted.predict(store.case(case)).values
        spent += time.perf_counter() - begun
        table = np.zeros(len(shown.classes) + 1, values.dtype)
        for name, value in shown.values.items():
            table[value] = task.values[name]
        scores[case] = score_case_of(store, task, case, table[values], protocol.tolerance_mm)
    return Run(
        method=job.method,
        shots=job.shots,
        fold=job.fold,
        support=tuple(support),
        scores=scores,
        seconds=fitted.info.seconds,
        predict_seconds=round(spent / len(fold.test), 3),
        trainable=fitted.info.trainable,
        curve=fitted.info.curve,
    )


def common_task(store: FeatureStore, protocol: Protocol) -> Task:
    """Return the task: the classes asked for, or those that every case of the folds annotates.

    Raises
    ------
    TaskError
        If there is none, or a class is unknown to a case.
    """
    cases = dict.fromkeys(case for fold in protocol.folds for case in (*fold.support, *fold.test))
    if protocol.classes is not None:
        task = parse_classes(protocol.classes) if isinstance(protocol.classes, str) else protocol.classes
        check_known(task, known_classes(store, cases), str(store.path))
        return task
    common: dict[str, int] = {}
    for number, case in enumerate(cases):
        labels = store.case(case).labels(LABELS)
        assert labels is not None
        here = {n: v for n, v in labels.classes.items() if n in labels.annotated}
        common = here if number == 0 else {n: v for n, v in common.items() if n in here}
    if not common:
        raise TaskError(
            f"{store.path}: no class is annotated in all {len(cases)} labelled cases; name some with --classes",
            path=store.path,
        )
    return task_of_all(sorted(common, key=lambda name: (common[name], name)))


def deviations(store: FeatureStore, protocol: Protocol) -> tuple[str, ...]:
    """Return, as sentences, where a comparison departs from FSEFT's protocol."""
    card = store.root.card
    found = [
        f"The encoder is {card.get('name', 'unnamed')}, not the paper's SwinUNETR pre-trained on 2,042 CTs.",
        "Adapters read features that were blended over windows once; the paper adapts each window and blends logits.",
        "Features cannot be augmented by shifting the image's intensities, as the paper does with p = 0.20.",
        f"{len(protocol.folds[0].test)} test cases in the first fold; the paper has 5 (TotalSegmentator) and 22 "
        "(FLARE'22).",
    ]
    if protocol.recipe == "fast":
        found.append(
            "Recipe fast: linear takes sampled voxels; residual methods start where linear ends, take small patches, "
            "cross-entropy beside Dice, and a higher learning rate; with few shots, adapters are held near the "
            "encoder's own head. `--recipe paper` keeps the paper's start, loss, patches, steps and rates."
        )
    if store.root.head is None:
        found.append(
            "The encoder brings no head for these classes: adapters start from a logistic regression instead."
        )
    own = ("zero-shot", "linear", "pointwise", "spatial")
    others = [name for name in protocol.methods if name.partition("@")[0] not in own]
    if others:
        found.append(f"Not in the paper: {', '.join(others)}.")
    return tuple(found)


def _known_to_head(store: FeatureStore, task: Task) -> bool:
    """Return whether the encoder's own head knows every class of the task."""
    if store.root.head is None:
        return False
    head = LinearHead.from_json(store.root.head)
    return own_head(head, task, {head.level: head.weights.shape[1]}) is not None


def _shown(store: FeatureStore, task: Task, support: Sequence[str]) -> Task:
    """Return the classes of the task that occur in the support."""
    found: set[int] = set()
    for case in support:
        found |= set(np.unique(_truth(store, task, case)[0]).tolist())
    classes = tuple(c for c in task.classes if task.values[c.name] in found)
    if not classes:
        raise TaskError(f"none of {', '.join(task.names)} occurs in the support cases {', '.join(support)}")
    return Task(classes)


def _truth(store: FeatureStore, task: Task, case: str) -> tuple[np.ndarray[Any, Any], tuple[bool, ...]]:
    labels = store.case(case).labels(LABELS)
    assert labels is not None
    found = resolve(task, labels.classes, labels.annotated, f"case {case}", unknown_is_error=False)
    return found.apply(labels.read()), found.annotated


def score_case_of(
    store: FeatureStore,
    task: Task,
    case: str,
    values: np.ndarray[Any, Any],
    tolerance_mm: float | None = None,
) -> dict[str, Score]:
    """Return the score of each class of a stored case's mask, whose values are the task's.

    Dice alone, or with a tolerance surface metrics too.
    """
    truth, annotated = _truth(store, task, case)
    if tolerance_mm is None:
        scores = dice_case(values, truth, annotated)
    else:
        scores = score_case(values, truth, annotated, spacing(store.case(case).info.native), tolerance_mm)
    return dict(zip(task.names, scores, strict=True))


def _jobs(protocol: Protocol) -> Iterator[Job]:
    """Yield the runs, fold by fold; what is not trained once a fold, and once in all where folds test the same."""
    tested: set[tuple[str, tuple[str, ...]]] = set()
    for number, fold in enumerate(protocol.folds):
        for shots in (0, *sorted(protocol.shots)):
            for method in protocol.methods:
                if get_method(method.partition("@")[0]).needs_labels == (shots == 0):
                    continue
                if shots == 0:
                    if (method, fold.test) in tested:
                        continue
                    tested.add((method, fold.test))
                yield Job(method, shots, number)


@dataclass(frozen=True)
class _Work:
    """What every run needs; travels to worker processes."""

    store: FeatureStore
    protocol: Protocol
    task: Task
    out: Path

    def __call__(self, job: Job) -> tuple[str, str | None]:
        """Do one run; its name and what went wrong come back."""
        try:
            run = run_one(self.store, self.protocol, self.task, job, self.out)
            _write(_run_path(self.out, job), run.to_json())
        except FeatcacheError as error:
            return job.name, str(error)
        return job.name, None


def _each(work: _Work, jobs: list[Job], processes: int) -> Iterator[tuple[str | None, str | None]]:
    """Do the runs, here or in processes; yield each one's name and what went wrong, and once nothing at the start."""
    yield None, None
    if processes <= 1 or len(jobs) <= 1:
        yield from map(work, jobs)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    threads = max(usable_cores() // processes, 1)
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_limit_threads, initargs=(threads,)
    )
    try:
        for future in as_completed([pool.submit(work, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _limit_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def _run_path(out: Path, job: Job) -> Path:
    return out / "runs" / f"{job.name}.json"


def _read(path: Path) -> Run:
    try:
        return Run.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error!r}); remove it and run again", path=path) from error


def _write(path: Path, document: Any) -> None:
    """Write JSON so that the file is there whole or not at all."""
    part = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
        part.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}", path=path) from error


def _plan(store: FeatureStore, protocol: Protocol, task: Task) -> dict[str, Any]:
    """What runs must share to be comparable: all but the methods and the shots."""
    labels = hashlib.sha256()
    for case in dict.fromkeys(case for fold in protocol.folds for case in (*fold.support, *fold.test)):
        found = store.case(case).labels(LABELS)
        assert found is not None
        labels.update(f"{case} {found.document.seal}\n".encode())
    return {
        "encoder_id": store.root.encoder_id,
        "recipe_id": store.root.recipe_id,
        "labels": labels.hexdigest(),
        "task": task.to_json(),
        "folds": [asdict(fold) for fold in protocol.folds],
        "levels": None if protocol.levels is None else list(protocol.levels),
        "recipe": protocol.recipe,
        "width": protocol.width,
        "seed": protocol.seed,
        "tolerance_mm": protocol.tolerance_mm,
        "software": f"featcache {__version__}",
    }


def _prepare(out: Path, plan: dict[str, Any]) -> None:
    """Begin in a new folder, or go on in one of the same plan."""
    path = out / "plan.json"
    plan = json.loads(json.dumps(plan))
    if path.exists():
        try:
            there = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is damaged ({error}); choose another --out", path=path) from error
        other = [name for name in plan if there.get(name) != plan[name]]
        if other:
            raise StoreError(
                f"--out {out} holds a comparison of another {', '.join(other)}; its runs cannot be set beside these: "
                "choose another folder",
                path=out,
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"--out {out} is there and is no comparison; choose another folder", path=out)
    _write(path, plan)


def _settings(store: FeatureStore, protocol: Protocol, task: Task) -> dict[str, Any]:
    import torch

    return {
        "encoder": str(store.root.card.get("name", "")),
        "encoder_id": store.root.encoder_id,
        "recipe_id": store.root.recipe_id,
        "store": store.name,
        "levels": list(protocol.levels or card_from_json(store.root.card).default_levels),
        "task": task.to_json(),
        "methods": list(protocol.methods),
        "shots": list(protocol.shots),
        "recipe": protocol.recipe,
        "width": protocol.width,
        "seed": protocol.seed,
        "tolerance_mm": protocol.tolerance_mm,
        "software": f"featcache {__version__}, torch {torch.__version__}",
        "threads": torch.get_num_threads(),
    }
