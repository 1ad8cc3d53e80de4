"""Few-shot adaptation in a few lines: choose support cases, fit, predict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from adapters.budget import Budget
from adapters.checkpoint import AdapterInfo, check_encoder, load_adapter, save_adapter
from adapters.features import FeatureVolume, check_levels
from adapters.inference import OnProbabilities, Segmentation, segment
from adapters.labels import LABELS, known_classes, labelled_cases
from adapters.methods import FitContext, get_method
from adapters.methods.base import Fitted
from adapters.model import Adapter
from adapters.postprocess import largest_components
from adapters.progress import Progress
from adapters.recipe import RecipeName
from adapters.sampling import Support
from adapters.task import Task, TaskClass, check_known, parse_classes, task_of_all
from adapters.training import OnStep
from featcache import __version__
from featcache.card_json import canonical_digest, card_from_json
from featcache.errors import TaskError
from featcache.geometry import Triple, axis_map
from featcache.head import LinearHead
from featcache.store import Case, FeatureStore


@dataclass(frozen=True)
class FewShotSegmenter:
    """How an adapter is fitted on a store.

    Parameters
    ----------
    method : str
        A name that `adapters.methods.method_names` lists.
    shots : int, optional
        Support cases drawn from the labelled ones; all of them if neither this nor `support` is given.
    support : sequence of str, optional
        Support cases by id.
    classes : str or Task, optional
        Such as "liver,kidney=2+3"; every annotated class that the support cases show if not given.
    levels : sequence of str, optional
        Levels to read; if not given, the card's defaults, or all of them for methods that read every level.
    recipe : {"fast", "paper"}
    width : int
        Channels that a residual reads where the levels have more than 64.
    seed : int
        Of the draw of support cases and of the training.
    device : str
        "auto", "cpu" or "cuda".
    memory : int
        Bytes for keeping support cases in memory while training.
    budget : float, optional
        Seconds that the fit may take: a number of steps is made of them once, and recorded in the recipe.
    """

    method: str = "spatial"
    shots: int | None = None
    support: Sequence[str] | None = None
    classes: str | Task | None = None
    levels: Sequence[str] | None = None
    recipe: RecipeName = "fast"
    width: int = 48
    seed: int = 0
    device: str = "auto"
    memory: int = 3 * 2**30
    budget: float | None = None

    def fit(
        self, store: FeatureStore, on_step: OnStep | None = None, keep: Path | None = None
    ) -> FittedSegmenter:
        """Return the segmenter fitted on the support cases of `store`.

        Parameters
        ----------
        store : FeatureStore
        on_step : callable, optional
            Told about progress.
        keep : Path, optional
            A file for the training's state: where a run before this one was killed, this one goes on, to the
            same adapter. It goes when the training is over.

        Raises
        ------
        TaskError
            If there are no labels, too few cases, an unknown class or case, or both shots and support.
        """
        begun = time.perf_counter()
        method = get_method(self.method)
        head = None if store.root.head is None else LinearHead.from_json(store.root.head)
        cases = choose_support(store, self) if method.needs_labels else []
        task = self._task(store, cases, head)
        _check_known(store, cases, task)
        card = card_from_json(store.root.card)
        usual = tuple(o.name for o in card.outputs) if method.every_level else card.default_levels
        names = tuple(self.levels or usual)
        channels, strides = _levels(store, cases, names)
        device = choose_device(self.device)
        context = FitContext(
            task=task,
            support=[Support.of(store.case(c), task, names, device) for c in cases],
            channels=channels,
            strides=strides,
            head=head,
            recipe_name=self.recipe,
            width=self.width,
            seed=self.seed,
            device=device,
            memory=self.memory,
            on_step=on_step,
            budget=None if self.budget is None else Budget(self.budget, begun),
        )
        _check_annotated(context)
        if keep is not None:
            context = replace(context, progress=Progress(keep, self._digest(store, context, cases)))
        fitted = method.fit(context)
        info = self._info(store, cases, fitted, time.perf_counter() - begun)
        return FittedSegmenter(fitted.adapter, info, device)

    def _task(self, store: FeatureStore, cases: Sequence[str], head: LinearHead | None) -> Task:
        if self.classes is not None:
            return parse_classes(self.classes) if isinstance(self.classes, str) else self.classes
        names: dict[str, int] = {}
        for case in cases:
            labels = store.case(case).labels(LABELS)
            assert labels is not None
            shown = set(np.unique(labels.read()).tolist())
            names |= {n: v for n, v in labels.classes.items() if n in labels.annotated and v in shown}
        if not cases and head is not None:
            first = 0 if head.multilabel else 1
            return Task(tuple(TaskClass(n, (n,)) for n in head.classes[first:]))
        if not cases:
            return task_of_all(["?"])  # the method says what is missing
        if not names:
            raise TaskError(
                f"none of the support cases {_few(cases)} shows any class; expected labelled voxels. Choose "
                "others with --support"
            )
        return task_of_all(sorted(names, key=lambda n: (names[n], n)))

    def _digest(self, store: FeatureStore, context: FitContext, cases: Sequence[str]) -> str:
        """Return the digest of all that the outcome of a fit depends on."""
        seen = []
        for name in cases:
            case = store.case(name)
            labels = case.labels(LABELS)
            seen.append([name, case.seal, None if labels is None else labels.document.seal])
        return canonical_digest(
            {
                "encoder": [store.root.encoder_id, store.root.recipe_id, store.root.head],
                "cases": seen,
                "task": context.task.to_json(),
                "levels": [[name, count] for name, count in context.channels.items()],
                "fit": [self.method, self.recipe, self.width, self.seed, context.device, self.budget],
                "software": [__version__, torch.__version__],
            }
        )

    def _info(self, store: FeatureStore, cases: Sequence[str], fitted: Fitted, seconds: float) -> AdapterInfo:
        return AdapterInfo(
            method=self.method,
            encoder_id=store.root.encoder_id,
            recipe_id=store.root.recipe_id,
            encoder_name=str(store.root.card.get("name", "")),
            support=tuple(cases),
            seed=self.seed,
            recipe=None if fitted.recipe is None else fitted.recipe.to_json(),
            curve=tuple(round(v, 6) for v in fitted.curve),
            trainable=fitted.trainable,
            seconds=round(seconds, 2),
            software=f"featcache {__version__}",
            features=store.root.recipe,
        )


@dataclass(frozen=True)
class FittedSegmenter:
    """An adapter and what it was fitted on.

    Parameters
    ----------
    adapter : Adapter
    info : AdapterInfo
    device : str
    """

    adapter: Adapter
    info: AdapterInfo
    device: str = "cpu"

    def predict(
        self,
        case: Case,
        *,
        largest_component: bool = False,
        on_probabilities: OnProbabilities | None = None,
    ) -> Segmentation:
        """Return the label map of `case` on its scan's own grid.

        Parameters
        ----------
        case : featcache.store.Case
        largest_component : bool
            Keep the largest component of each class only (`adapters.postprocess.largest_components`).
        on_probabilities : callable, optional
            Told the probabilities slab by slab, in memory that does not grow with the scan's length
            (`adapters.inference.segment`). `largest_component` does not change them.
        """
        result = segment(self.adapter, case, device=self.device, on_probabilities=on_probabilities)
        return largest_components(result) if largest_component else result

    def probabilities(self, case: Case) -> NDArray[np.float32]:
        """Return how probable each class is at the voxels of the scan's own grid, all in memory.

        `predict` with `on_probabilities` yields the same slab by slab, along with the label map.

        Returns
        -------
        ndarray, shape (X, Y, Z, K), float32, 0 to 1
            Classes in the order of the task, without background: their softmax (background's share is what is
            missing to 1), or the sigmoid of a binary task. 0 outside of the foreground crop.
        """
        values = np.zeros((*case.info.native.shape, len(self.adapter.task.classes)), np.float32)

        def keep(box: tuple[slice, ...], part: NDArray[np.float32]) -> None:
            values[box] = part

        segment(self.adapter, case, device=self.device, on_probabilities=keep)
        return values

    def save(self, folder: Path | str) -> None:
        """Write the adapter to a new folder; an existing one is refused."""
        save_adapter(Path(folder), self.adapter, self.info)

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto") -> FittedSegmenter:
        """Return the segmenter that `save` wrote."""
        adapter, info = load_adapter(folder)
        return cls(adapter, info, choose_device(device))

    def check(self, store: FeatureStore) -> str | None:
        """Raise AdapterMismatchError for another encoder's store; return a warning for another recipe's."""
        check_encoder(self.info, store.root.encoder_id, str(store.root.card.get("name", "")), store.path)
        if store.root.recipe_id != self.info.recipe_id:
            return (
                f"{store.path} was made by another recipe (windows, spacing or precision) than the features that "
                "the adapter was trained on; masks may be worse. `featcache info` shows the recipe"
            )
        return None


def choose_support(store: FeatureStore, wanted: FewShotSegmenter) -> list[str]:
    """Return the support cases: those named, or as many as asked for drawn by the seed, or all labelled.

    The draw is a shuffle of the labelled cases: the first one of 5 shots is the one of 1 shot.
    """
    labelled = labelled_cases(store)
    if wanted.support is not None and wanted.shots is not None:
        raise TaskError(
            "found both --shots and --support; expected one: a number of cases to draw, or their ids"
        )
    if wanted.support is not None:
        unknown = [case for case in wanted.support if case not in labelled]
        if unknown or not wanted.support:
            raise TaskError(
                f"--support: {unknown or 'nothing'} is not among the labelled cases: {_few(labelled)}",
                path=store.path,
            )
        return list(dict.fromkeys(wanted.support))
    if wanted.shots is None:
        return labelled
    if not 1 <= wanted.shots <= len(labelled):
        raise TaskError(
            f"--shots {wanted.shots}: {store.path} has {len(labelled)} labelled cases; expected 1 to {len(labelled)}",
            path=store.path,
        )
    order = np.random.default_rng(wanted.seed).permutation(len(labelled))
    return [labelled[i] for i in order[: wanted.shots]]


def choose_device(device: str) -> str:
    """Return "cpu" or "cuda" for "auto", and refuse a CUDA device that is not there."""
    import torch

    if device not in ("auto", "cpu", "cuda") and not device.startswith("cuda:"):
        raise TaskError(f"--device {device!r}: expected auto, cpu or cuda")
    there = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if there else "cpu"
    if device.startswith("cuda") and not there:
        raise TaskError(
            f"--device {device}: torch finds no CUDA device; expected a GPU with its driver and a CUDA build of "
            "torch. Use --device cpu"
        )
    return device


def _levels(store: FeatureStore, cases: Sequence[str], names: Sequence[str]) -> tuple[dict[str, int], Triple]:
    """Return channels a level, and the finest level's stride in prepared voxels."""
    some = list(cases) or store.cases()[:1]
    if not some:
        raise TaskError(f"{store.path} holds no cases; run `featcache extract` first", path=store.path)
    case = store.case(some[0])
    check_levels(case, names)
    volume = FeatureVolume(case, names)
    # By the map, not axis by axis: features may be stored in another order than they were prepared in.
    x, y, z = (max(round(abs(s)), 1) for s in axis_map(case.info.prepared, volume.grid).scale)
    return volume.channels, (x, y, z)


def _check_known(store: FeatureStore, cases: Sequence[str], task: Task) -> None:
    """Raise TaskError for a class that no support case knows."""
    if cases:
        check_known(task, known_classes(store, cases), str(store.path))


def _check_annotated(context: FitContext) -> None:
    if not context.support:
        return
    for number, name in enumerate(context.task.names):
        if not any(item.labels.annotated[number] for item in context.support):
            raise TaskError(
                f"class {name!r} is annotated in none of the support cases; choose others with --support, or "
                "leave it out with --classes"
            )
    if context.task.binary:
        without = [i.features.case.id for i in context.support if not i.labels.annotated[0]]
        if without:
            raise TaskError(
                f"class {context.task.names[0]!r} is not annotated in {_few(without)}; a task of one class learns "
                "nothing from them: choose others with --support"
            )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
