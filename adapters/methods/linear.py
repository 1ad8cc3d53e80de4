"""FSEFT's linear probe: the head alone, trained for soft Dice."""

from __future__ import annotations

from adapters.methods.base import FitContext, Fitted, Method, fit_linear
from adapters.model import Adapter


def fit(context: FitContext) -> Fitted:
    """Return the head, started from the encoder's own or the logistic solution."""
    recipe = context.recipe(linear=True)
    if recipe.name == "paper":
        adapter = Adapter(context.task, context.start, context.channels)
        return context.train(adapter, context.patches(adapter, recipe), recipe)
    return fit_linear(context)


METHOD = Method("linear", "FSEFT's linear probe: the head alone, trained for Dice", fit, from_own_head=True)
