"""FSEFT's linear probe: the head alone, trained for soft Dice."""

from __future__ import annotations

import numpy as np

from adapters.methods.base import FitContext, Fitted, Method
from adapters.methods.standard import standardised
from adapters.model import Adapter
from adapters.sampling import VoxelBatches

_VOXELS = 16_000  # voxels a step


def fit(context: FitContext) -> Fitted:
    """Return the head, started from the encoder's own or the logistic solution.

    The fast recipe takes a step on the sampled voxels of one whole case, weighted by what they stand for,
    and on standardised features, so that one learning rate suits every encoder.
    """
    recipe = context.recipe(linear=True)
    if recipe.name == "paper":
        adapter = Adapter(context.task, context.start, context.channels)
        return context.train(adapter, context.patches(adapter, recipe), recipe)
    sample, head, restore = standardised(context.sample, context.start)
    adapter = Adapter(context.task, head, context.channels)
    batches = VoxelBatches(sample, _VOXELS, np.random.default_rng(context.seed + 1))
    fitted = context.train(adapter, batches, recipe)
    restore(adapter)
    return fitted


METHOD = Method("linear", "FSEFT's linear probe: the head alone, trained for Dice", fit)
