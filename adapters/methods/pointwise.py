"""FSEFT's pointwise adapter: head(f + conv1(relu(conv1(f))))."""

from __future__ import annotations

from torch import nn

from adapters.methods.base import FitContext, Fitted, Method, fit_residual
from adapters.model import Residual


def residual(width: int) -> nn.Module:
    """Return the residual of `width` channels."""
    return Residual(width, kernel=1)


def fit(context: FitContext) -> Fitted:
    """Return the adapter, trained on patches."""
    return fit_residual(context, METHOD)


METHOD = Method(
    "pointwise",
    "FSEFT's pointwise adapter: 1x1x1 convolutions before the head",
    fit,
    residual,
    from_own_head=True,
)
