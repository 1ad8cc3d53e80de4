"""Logistic regression on sampled voxels."""

from __future__ import annotations

from adapters.methods.base import FitContext, Fitted, Method
from adapters.methods.heads import regress
from adapters.model import Adapter


def fit(context: FitContext) -> Fitted:
    """Return a linear head fitted by L-BFGS; the convex reference for `linear`."""
    adapter = Adapter(context.task, regress(context.sample, context.task), context.channels)
    return Fitted(adapter, trainable=adapter.trainable)


METHOD = Method("logistic", "logistic regression on sampled voxels, seconds", fit)
