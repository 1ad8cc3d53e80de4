"""What a method is, and what several of them start from: a linear head, and what a residual reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from adapters.budget import Budget
from adapters.methods.heads import own_head, regress
from adapters.methods.standard import standardised
from adapters.model import Adapter, HeadRows
from adapters.progress import Progress
from adapters.recipe import Recipe, RecipeName, fast_recipe, paper_recipe
from adapters.sampling import PatchBatches, Support, VoxelBatches, VoxelSample, channel_moments, sample_voxels
from adapters.task import Task
from adapters.training import Batches, OnStep, bfloat16_if_fast, train
from featcache.errors import TaskError
from featcache.geometry import Triple
from featcache.head import LinearHead

WIDEST_IN_FULL = 64
"""Channels up to which a residual works on the features themselves, as in the paper."""

_VOXELS = 16_000  # voxels a step of `fit_linear`


@dataclass(frozen=True)
class FitContext:
    """Everything a method may use to fit.

    Parameters
    ----------
    task : Task
    support : sequence of Support
        Labelled cases; empty for zero-shot.
    channels : mapping of str to int
        Channels of each level.
    strides : tuple of 3 int
        Of the finest level, in prepared voxels.
    head : LinearHead or None
        The encoder's own.
    recipe_name : {"fast", "paper"}
    width : int
        Channels of the projection that a residual reads where there are more than 64.
    seed : int
    device : str
    memory : int
        Bytes for keeping support cases in memory.
    on_step : callable, optional
    progress : Progress, optional
        Where the state of a training is kept, so that a killed one goes on.
    budget : Budget, optional
        Time for the fit; steps that do not fit in are left out.
    """

    task: Task
    support: Sequence[Support]
    channels: Mapping[str, int]
    strides: Triple
    head: LinearHead | None
    recipe_name: RecipeName = "fast"
    width: int = 48
    seed: int = 0
    device: str = "cpu"
    memory: int = 3 * 2**30
    on_step: OnStep | None = None
    progress: Progress | None = None
    budget: Budget | None = None

    def recipe(self, *, linear: bool) -> Recipe:
        """Return the numbers of the training."""
        make = paper_recipe if self.recipe_name == "paper" else fast_recipe
        recipe = make(len(self.support), linear=linear)
        return recipe if self._own is not None else replace(recipe, anchor=0.0)

    @cached_property
    def sample(self) -> VoxelSample:
        """Voxels of the support, drawn once."""
        if not self.support:
            raise TaskError("this method needs labelled support cases; found none")
        return sample_voxels(self.support, np.random.default_rng(self.seed))

    @cached_property
    def start(self) -> HeadRows:
        """The encoder's own head where it knows the classes, else a logistic regression on voxels."""
        return self._own or regress(self.sample, self.task)

    @cached_property
    def _own(self) -> HeadRows | None:
        return None if self.head is None else own_head(self.head, self.task, self.channels)

    def patches(self, adapter: Adapter, recipe: Recipe) -> PatchBatches:
        """Return where patches for `adapter` come from."""
        x, y, z = (max(min(recipe.patch // stride, recipe.largest_patch), 1) for stride in self.strides)
        return PatchBatches(
            self.support,
            adapter.maps,
            (x, y, z),
            recipe.patches,
            one_case=recipe.one_case,
            positions=adapter.positions,
            random=np.random.default_rng(self.seed + 1),
            memory=self.memory,
        )

    def train(
        self, adapter: Adapter, batches: Batches, recipe: Recipe, *, first_of_two: bool = False
    ) -> Fitted:
        """Train `adapter` and return it with its curve; nobody is told of the first of two trainings."""
        trainable = adapter.trainable
        on_step, progress = (None, None) if first_of_two else (self.on_step, self.progress)
        if self.budget is not None and not first_of_two:
            begun = None if progress is None else progress.steps()
            if begun is None:
                recipe = self.budget.fit_in(recipe, adapter, batches, self.device)
            else:
                recipe = self.budget.of_steps(recipe, begun)
        curve = train(adapter, batches, recipe, device=self.device, on_step=on_step, progress=progress)
        return Fitted(adapter, curve, trainable, recipe)


@dataclass(frozen=True)
class Fitted:
    """What a method returns.

    Parameters
    ----------
    adapter : Adapter
    curve : list of float
        Loss of each step.
    trainable : int
        Parameters that were trained.
    recipe : Recipe or None
        None where nothing was trained step by step.
    """

    adapter: Adapter
    curve: list[float] = field(default_factory=list)
    trainable: int = 0
    recipe: Recipe | None = None


@dataclass(frozen=True)
class Method:
    """A way to adapt.

    Parameters
    ----------
    name : str
        As in ``--method``.
    summary : str
        One line for people.
    fit : callable
    residual : callable, optional
        Channels -> module, for methods that have one.
    radius : int
        Feature voxels around a voxel that its logits depend on.
    positions : bool
        Whether the residual gets where each voxel lies, as three more channels (`adapters.positions`).
    every_level : bool
        Whether it reads all levels of the store, where none are named; else those that the card names.
    needs_labels : bool
    from_own_head : bool
        Whether it starts from the encoder's own head, so that classes that the head knows need not occur in the
        support.
    """

    name: str
    summary: str
    fit: Callable[[FitContext], Fitted]
    residual: Callable[[int], nn.Module] | None = None
    radius: int = 0
    positions: bool = False
    every_level: bool = False
    needs_labels: bool = True
    from_own_head: bool = False


def fit_linear(context: FitContext, *, first_of_two: bool = False) -> Fitted:
    """Return the starting head, trained for soft Dice on sampled voxels: the fast recipe of `linear`.

    A step takes voxels of one whole case, weighted by what they stand for, on standardised features, so that one
    learning rate suits every encoder.
    """
    recipe = context.recipe(linear=True)
    sample, head, restore = standardised(context.sample, context.start)
    adapter = Adapter(context.task, head, context.channels)
    dtype = torch.bfloat16 if bfloat16_if_fast(context.device) else torch.float32
    batches = VoxelBatches(sample, _VOXELS, np.random.default_rng(context.seed + 1), dtype)
    fitted = context.train(adapter, batches, recipe, first_of_two=first_of_two)
    restore(adapter)
    return fitted


def head_before_residual(context: FitContext) -> HeadRows:
    """Return the head that a residual starts at: where `linear` ends, or in the paper recipe, where it starts."""
    if context.recipe_name == "paper":
        return context.start
    adapter = fit_linear(context, first_of_two=True).adapter
    assert adapter.head.bias is not None
    return HeadRows(adapter.head.weight.detach().flatten(1), adapter.head.bias.detach(), adapter.groups)


def with_residual(context: FitContext, method: Method) -> Adapter:
    """Return an adapter of a method with a residual that starts exactly at `head_before_residual`.

    Up to 64 channels the residual reads the features, standardised (as they are in the paper recipe). Above
    it reads a projection on the principal components of the standardised support voxels, whitened.
    """
    assert method.residual is not None
    torch.manual_seed(context.seed)
    head = head_before_residual(context)
    channels = head.weights.shape[1]
    if channels <= WIDEST_IN_FULL and context.recipe_name == "paper":
        projection, shift = torch.eye(channels), torch.zeros(channels)
        start = head.weights
    else:
        features = context.sample.features
        mean, deviation = channel_moments(features)
        if channels <= WIDEST_IN_FULL:
            projection = torch.diag(1 / deviation)
            start = head.weights * deviation
        else:
            directions, gains = _principal(features, mean, deviation, context.width)
            projection = (directions / gains).T / deviation
            # x is white, so the head's regression on it is its covariance with it.
            start = (head.weights * deviation) @ (directions * gains)
        shift = -projection @ mean
    return Adapter(
        context.task,
        head,
        context.channels,
        projection=(projection, shift),
        start=start,
        residual=method.residual(len(projection)),
        radius=method.radius,
        positions=method.positions,
    )


def fit_residual(context: FitContext, method: Method) -> Fitted:
    """Return an adapter with a residual, trained on patches."""
    recipe = context.recipe(linear=False)
    adapter = with_residual(context, method)
    return context.train(adapter, context.patches(adapter, recipe), recipe)


def _principal(
    features: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first `width` principal directions (C, W) of standardised voxels, and their deviations."""
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for part in torch.split(features, 20_000):
        standard = (part - mean) / deviation
        covariance += (standard.T @ standard).double()
    values, vectors = torch.linalg.eigh(covariance / len(features))
    order = values.argsort(descending=True)[: min(width, len(values))]
    return vectors[:, order].float(), values[order].clamp(min=1e-8).sqrt().float()
