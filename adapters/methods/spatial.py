"""FSEFT's spatial adapter: head(f + conv3(relu(conv3(f))))."""

from __future__ import annotations

from torch import nn

from adapters.methods.base import FitContext, Fitted, Method, fit_residual
from adapters.model import Residual


def residual(width: int) -> nn.Module:
    """Return the residual of `width` channels."""
    return Residual(width, kernel=3)


def fit(context: FitContext) -> Fitted:
    """Return the adapter, trained on patches."""
    return fit_residual(context, METHOD)


METHOD = Method(
    "spatial",
    "FSEFT's spatial adapter: 3x3x3 convolutions before the head",
    fit,
    residual,
    radius=2,
    from_own_head=True,
)
