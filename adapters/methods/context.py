"""Beyond FSEFT: a residual that sees further and knows where it is."""

from __future__ import annotations

import torch
from torch import nn

from adapters.methods.base import FitContext, Fitted, Method, fit_residual

_DILATION = 3


class Context(nn.Module):
    """conv(relu(conv(x, position))), the second convolution dilated; it starts at zero.

    Parameters
    ----------
    width : int
        Channels of x and out; three more come in, the voxels' positions.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width + 3, width, 3, padding=1, bias=False)
        self.last = nn.Conv3d(width, width, 3, padding=_DILATION, dilation=_DILATION, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the residual of x with positions, (N, W + 3, X, Y, Z) -> (N, W, X, Y, Z)."""
        y: torch.Tensor = self.last(torch.relu(self.first(x)))
        return y


def fit(context: FitContext) -> Fitted:
    """Return the adapter, trained on patches."""
    return fit_residual(context, METHOD)


METHOD = Method(
    "context",
    "wider than spatial: dilated, knows positions, reads every level",
    fit,
    Context,
    radius=1 + _DILATION,
    positions=True,
    every_level=True,
    from_own_head=True,
)
