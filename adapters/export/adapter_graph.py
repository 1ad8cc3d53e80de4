"""An adapter -> nodes: the levels' features in, task logits out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from adapters.export.builder import GraphBuilder
from adapters.export.residual import add_residual
from adapters.features import LinearMap
from adapters.model import Adapter
from featcache.errors import TaskError
from featcache.geometry import FloatTriple, Triple

LOGITS = "logits"
PLACE = "place"


@dataclass(frozen=True)
class LevelTensor:
    """One level's features in the graph.

    Parameters
    ----------
    tensor : str
        Name, (N, C, X, Y, Z) float32.
    stride : tuple of 3 int
    offset : tuple of 3 float
        As in the card, in the order of the graph's axes.
    """

    tensor: str
    stride: Triple = (1, 1, 1)
    offset: FloatTriple = (0.0, 0.0, 0.0)


def finest(levels: Mapping[str, LevelTensor]) -> str:
    """Return the level on whose grid the logits lie: `adapters.features` takes the one of smallest voxels."""
    return min(levels, key=lambda name: math.prod(levels[name].stride))


def add_adapter(
    builder: GraphBuilder, adapter: Adapter, levels: Mapping[str, LevelTensor], axes: Triple, method: str
) -> None:
    """Add the nodes of `adapter`; their output is called `LOGITS`, (N, K', X, Y, Z) float32.

    Parameters
    ----------
    builder : GraphBuilder
    adapter : Adapter
        On the CPU.
    levels : mapping of str to LevelTensor
        The levels that it reads.
    axes : tuple of 3 int
        ``axes[k]`` is the graph's axis that stored axis k lies along. Adapters are trained in stored order.
    method : str
        For messages.

    Raises
    ------
    TaskError
        If the residual, or a head without a row for one of the classes, cannot be exported.
    """
    if adapter.residual is None:
        rows = _mapped(builder, [adapter.linear_map()], levels)
    else:
        values = _mapped(builder, adapter.maps, levels)
        width = adapter.head.in_channels
        x = builder.channels(values, 0, width)
        rest = builder.channels(values, width, width + len(adapter.groups))
        seen = x
        if adapter.positions:
            seen = builder.joined([x, _positions(builder, x, axes)])
        y = builder.op("Add", x, add_residual(builder, adapter.residual, seen, axes, method))
        assert adapter.head.bias is not None
        rows = builder.pointwise(y, _array(adapter.head.weight.flatten(1)), _array(adapter.head.bias))
        rows = builder.op("Add", rest, rows)
    builder.op("Identity", _merged(builder, adapter, rows, method))
    builder.nodes[-1].output[0] = LOGITS


def _mapped(builder: GraphBuilder, maps: list[LinearMap], levels: Mapping[str, LevelTensor]) -> str:
    """Return what `FeatureVolume.read` yields with `maps`: each level mapped, then brought to the finest grid."""
    fine = levels[finest(levels)]
    bias = _array(torch.cat([m.bias for m in maps]))
    total = ""
    for level_name, level in levels.items():
        weights = _array(torch.cat([m.weights[level_name] for m in maps]))
        part = builder.pointwise(level.tensor, weights, bias if level is fine else None)
        for axis in range(3):
            part = _interpolated(builder, part, level, fine, axis)
        total = builder.op("Add", total, part) if total else part
    return total


def _interpolated(
    builder: GraphBuilder, values: str, level: LevelTensor, fine: LevelTensor, axis: int
) -> str:
    """Return `values` of one level at the voxels of the finest along one axis: linear, its border repeats."""
    if (level.stride[axis], level.offset[axis]) == (fine.stride[axis], fine.offset[axis]):
        return values
    # Fine voxel i lies over input voxel i * stride + offset.
    place = builder.op("Mul", builder.count(fine.tensor, axis), builder.number(fine.stride[axis]))
    place = builder.op("Add", place, builder.number(fine.offset[axis] - level.offset[axis]))
    place = builder.op("Div", place, builder.number(level.stride[axis]))
    zero, one = builder.number(0), builder.number(1)
    last = builder.op("Sub", builder.float(builder.size(values, axis)), one)
    inside = builder.op("Min", builder.op("Max", place, zero), last)
    low = builder.op("Floor", inside)
    high = builder.op("Min", builder.op("Add", low, one), last)
    first, second = (
        builder.op("Gather", values, builder.op("Cast", index, to=7), axis=axis + 2) for index in (low, high)
    )
    weight = builder.along(builder.op("Sub", inside, low), axis)
    step = builder.op("Mul", builder.op("Sub", second, first), weight)
    return builder.op("Add", first, step)


def _positions(builder: GraphBuilder, x: str, axes: Triple) -> str:
    """Return `adapters.positions` of x's voxels, (N, 3, X, Y, Z): channel k is along STORED axis k.

    The input `PLACE` says which part of the scan x is, in the order of the graph's axes.
    """
    shape = builder.op("Shape", x)
    each = [builder.op("Gather", shape, builder.indices(*i), axis=0) for i in ((0,), (2, 3, 4))]
    target = builder.op("Concat", each[0], builder.indices(1), each[1], axis=0)
    place = builder.float(PLACE)
    parts = []
    for axis in axes:
        start, whole = (
            builder.op("Slice", place, builder.indices(row, axis), builder.indices(row + 1, axis + 1))
            for row in (0, 1)
        )
        start, whole = (builder.op("Reshape", value, builder.indices(1)) for value in (start, whole))
        index = builder.op("Add", builder.count(x, axis), start)
        middle = builder.op("Add", index, builder.number(0.5))
        share = builder.op("Mul", builder.op("Div", middle, whole), builder.number(2))
        position = builder.op("Sub", share, builder.number(1))
        parts.append(builder.op("Expand", builder.along(position, axis), target))
    return builder.joined(parts)


def _merged(builder: GraphBuilder, adapter: Adapter, rows: str, method: str) -> str:
    """Return task logits of row logits, as `adapters.model.merge_rows`."""
    task, groups = adapter.task, adapter.groups
    wanted = range(1, 2) if task.binary and 0 not in groups else range(len(task.classes) + 1)
    merged = rows
    if groups != tuple(wanted):
        parts = []
        for value in wanted:
            members = [row for row, group in enumerate(groups) if group == value]
            if not members:
                name = ("background", *task.names)[value]
                raise TaskError(
                    f"an adapter of method {method!r} cannot be exported: its head has no row for {name!r}; "
                    "expected one a class. Train with another --method"
                )
            part = builder.op("Gather", rows, builder.indices(*members), axis=1)
            parts.append(builder.logsumexp(part) if len(members) > 1 else part)
        merged = builder.joined(parts)
    if task.binary and len(wanted) == 2:
        return builder.op("Sub", builder.channels(merged, 1, 2), builder.channels(merged, 0, 1))
    return merged


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = tensor.detach().float().numpy()
    return values
