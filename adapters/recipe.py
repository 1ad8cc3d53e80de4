"""How an adapter is trained: every number in one place, recorded in the checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

RecipeName = Literal["fast", "paper"]


@dataclass(frozen=True)
class Recipe:
    """Numbers of a training.

    Parameters
    ----------
    name : {"fast", "paper"}
    steps : int
        Optimiser steps at most.
    learning_rate : float
        Peak; AdamW without weight decay, linear warm-up, then cosine to zero.
    warm_up : int
        Steps of the warm-up.
    patch : int
        Edge of a patch in prepared voxels; 96 is 24 features at stride 4.
    largest_patch : int
        Features per axis of a patch at most.
    patches : int
        Patches a step.
    one_case : bool
        All patches of a step from one case.
    dice_per_item : bool
        Dice of each patch (paper), or of the step's patches together over the classes that they show.
    cross_entropy : float
        Weight of the cross-entropy beside Dice.
    foreground : float
        Weight of structures against background in the cross-entropy.
    epoch : int
        Steps an epoch: the support cases.
    plateau : bool
        Stop when the training loss no longer falls.
    anchor : float
        Weight of the parameters' squared distance from their start (L2-SP; Li et al., ICML 2018), where that is the
        encoder's own head.
    budget : float, optional
        Seconds that the fit was given, where they decided on the steps.
    """

    name: RecipeName
    steps: int
    learning_rate: float
    warm_up: int
    patch: int
    largest_patch: int
    patches: int
    one_case: bool
    dice_per_item: bool
    cross_entropy: float
    foreground: float
    epoch: int
    plateau: bool
    anchor: float
    budget: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        return asdict(self)


def paper_recipe(shots: int, *, linear: bool) -> Recipe:
    """Return the numbers of FSEFT (Medical Image Analysis 2025): 200 epochs of one step a support case."""
    return Recipe(
        name="paper",
        steps=200 * shots,
        learning_rate=1e-2 if linear else 1e-4,
        warm_up=shots,
        patch=96,
        largest_patch=96,
        patches=6,
        one_case=True,
        dice_per_item=True,
        cross_entropy=0.0,
        foreground=1.0,
        epoch=shots,
        plateau=True,
        anchor=0.0,
    )


def fast_recipe(shots: int, *, linear: bool) -> Recipe:
    """Return numbers for a CPU and minutes; benchmarks/README.md says what they reach.

    ``linear`` keeps the paper's learning rate and Dice, on sampled voxels of whole cases in place of patches. The
    other methods add cross-entropy. Dice counts the classes that a step shows: else a structure that is not in a patch,
    or that a patient does not have, pushes its class away everywhere. One scan says little, and what it says
    wrongly costs more than it gains: the fewer there are, the closer an adapter stays to the encoder's own head.
    """
    return Recipe(
        name="fast",
        steps=200 if linear else 400,
        learning_rate=1e-2 if linear else 5e-4,
        warm_up=20 if linear else 40,
        patch=96,
        largest_patch=32,
        patches=2,
        one_case=False,
        dice_per_item=False,
        cross_entropy=0.0 if linear else 1.0,
        foreground=3.0,
        epoch=shots,
        plateau=False,
        anchor=(0.005 if linear else 0.5) / max(shots, 1) ** 2,
    )
