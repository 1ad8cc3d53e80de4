"""The one shape of every black-box adapter: a linear head over all channels, and maybe a residual before it.

FSEFT (Silva-Rodríguez et al., Medical Image Analysis 2025) writes ``logits = head(f + residual(f))``. With

    rest = H f + b - G x        (what the head sees of f beyond x)
    logits = rest + G (x + residual(x))

the same form serves wide encoders: x is f itself for up to 64 channels, and a projection of f above, where
the residual of the paper's form would have C² * 27 * 2 weights. At the start, residual(x) = 0, so an adapter
starts exactly at its linear head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from adapters.features import LinearMap, split_channels
from adapters.task import Task


@dataclass(frozen=True)
class HeadRows:
    """A linear head over all channels, whose rows are summed up (as probabilities) to a task's classes.

    A row a class is the usual case. An encoder's own softmax head keeps all its rows, so that the structures
    that are no part of the task compete as they did in pre-training and count as background.

    Parameters
    ----------
    weights : Tensor, shape (R, C), float32
    bias : Tensor, shape (R,), float32
    groups : tuple of int
        Per row, the task value (0 background, 1..K) that it belongs to.
    """

    weights: torch.Tensor
    bias: torch.Tensor
    groups: tuple[int, ...]


def merge_rows(rows: torch.Tensor, groups: tuple[int, ...], task: Task) -> torch.Tensor:
    """Return task logits, (N, K', ...), of row logits (N, R, ...).

    Probabilities of a group's rows add up, so logits are joined by log-sum-exp. A binary task has one logit:
    that of its class against the background's, or the class' alone where no row is background (sigmoid).
    """
    wanted = range(1, 2) if task.binary and 0 not in groups else range(len(task.classes) + 1)
    if groups == tuple(wanted):
        merged = rows
    else:
        members = [[r for r, group in enumerate(groups) if group == value] for value in wanted]
        merged = torch.stack([rows[:, m].logsumexp(1) for m in members], dim=1)
    return merged[:, 1:] - merged[:, :1] if task.binary and merged.shape[1] == 2 else merged


class Adapter(nn.Module):
    """What is trained, saved and applied: reads boxes through `maps`, returns task logits.

    Parameters
    ----------
    task : Task
    head : HeadRows
        Linear head over all channels of all levels.
    channels : mapping of str to int
        Channels of each level, in the order of the head's columns.
    projection : LinearMap-like pair of Tensors, optional
        (P, p): x = P f + p, shapes (W, C) and (W,); needed with a residual.
    start : Tensor, shape (R, W), optional
        G at the start: the part of the head that can be told from x.
    residual : nn.Module, optional
        (N, W, ...) -> (N, W, ...), zero at the start.
    radius : int
        Voxels around a voxel that its logits depend on.
    positions : bool
        Whether `forward` gets three more channels, `adapters.positions`, for the residual.
    """

    projection: torch.Tensor
    projection_bias: torch.Tensor
    rest: torch.Tensor
    rest_bias: torch.Tensor

    def __init__(
        self,
        task: Task,
        head: HeadRows,
        channels: Mapping[str, int],
        *,
        projection: tuple[torch.Tensor, torch.Tensor] | None = None,
        start: torch.Tensor | None = None,
        residual: nn.Module | None = None,
        radius: int = 0,
        positions: bool = False,
    ) -> None:
        super().__init__()
        self.task, self.groups, self.channels = task, head.groups, dict(channels)
        self.radius, self.positions = radius, positions
        self.residual = residual
        weights, bias = head.weights.clone(), head.bias.clone()
        if residual is None:
            self.head = nn.Conv3d(weights.shape[1], weights.shape[0], 1)
            _fill(self.head, weights, bias)
            return
        assert projection is not None
        assert start is not None
        self.register_buffer("projection", projection[0].clone())
        self.register_buffer("projection_bias", projection[1].clone())
        self.register_buffer("rest", weights - start @ projection[0])
        self.register_buffer("rest_bias", bias - start @ projection[1])
        self.head = nn.Conv3d(start.shape[1], start.shape[0], 1)
        _fill(self.head, start, torch.zeros(len(start)))

    @property
    def maps(self) -> list[LinearMap]:
        """What `FeatureVolume.read` applies, so that `forward` gets its input."""
        if self.residual is None:
            return []
        pairs = [(self.projection, self.projection_bias), (self.rest, self.rest_bias)]
        return [LinearMap(split_channels(w, self.channels), b) for w, b in pairs]

    def linear_map(self) -> LinearMap:
        """Return the head as a map, for an adapter without a residual: cheaper than reading all channels."""
        weights = self.head.weight.detach().flatten(1)
        assert self.head.bias is not None
        return LinearMap(split_channels(weights, self.channels), self.head.bias.detach())

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return task logits (N, K', ...) of what was read through `maps`, (N, channels, X, Y, Z).

        An adapter with `positions` takes them as the last three channels.
        """
        if self.residual is None:
            # For voxels in a row convolutions take a slow path, and so do products with channels in front.
            last = values.movedim(1, -1)
            rows = nn.functional.linear(last, self.head.weight.flatten(1), self.head.bias)
            return self.from_rows(rows.movedim(-1, 1))
        width, end = self.head.in_channels, self.head.in_channels + len(self.groups)
        x, rest = values[:, :width], values[:, width:end]
        seen = torch.cat([x, values[:, end:]], 1) if self.positions else x
        return merge_rows(rest + self.head(x + self.residual(seen)), self.groups, self.task)

    def from_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Return task logits of rows that `linear_map` gave, (N, R, ...)."""
        return merge_rows(rows, self.groups, self.task)

    @property
    def trainable(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def _fill(layer: nn.Conv3d, weights: torch.Tensor, bias: torch.Tensor) -> None:
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.copy_(weights[:, :, None, None, None])
        layer.bias.copy_(bias)


class Residual(nn.Module):
    """conv(relu(conv(x))) without biases, "same" padding; the last convolution starts at zero (FSEFT).

    Parameters
    ----------
    width : int
        Channels in and out.
    kernel : int
        1 for the pointwise, 3 for the spatial adapter.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, kernel, padding=kernel // 2, bias=False)
        self.last = nn.Conv3d(width, width, kernel, padding=kernel // 2, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the residual of x, (N, W, X, Y, Z)."""
        y: torch.Tensor = self.last(torch.relu(self.first(x)))
        return y
