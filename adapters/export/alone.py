"""An adapter alone as ONNX: features in, logits out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.checkpoint import load_adapter, refuse_existing
from adapters.export.adapter_graph import LOGITS, PLACE, LevelTensor, add_adapter, finest
from adapters.export.builder import GraphBuilder
from adapters.export.check import WindowCase, difference, torch_logits
from adapters.export.file import (
    ADAPTER_KEY,
    Exported,
    describe,
    place_input,
    publish,
    random_place,
    set_metadata,
)
from adapters.model import Adapter
from featcache.card import EncoderCard
from featcache.encode import level_grid, storage_axes
from featcache.errors import AdapterMismatchError, TaskError
from featcache.geometry import Grid, Triple

OPSET = 17
_IR_VERSION = 8
_SHAPE = (12, 9, 11)  # features of the finest level that the export is checked on
_STORED: Triple = (0, 1, 2)


def export_adapter(folder: Path | str, out: Path | str, *, card: EncoderCard | None = None) -> Exported:
    """Write the adapter in `folder` as an ONNX file: features in, logits out, at opset 17.

    Inputs are one tensor per level that it reads, named as the level, (N, C, X, Y, Z) float32 with the axes in
    STORED order (`featcache.encode.storage_axes`), any size; with several levels they must begin at the same
    input voxel. An adapter that knows positions has the input ``place`` as well, int64 (2, 3): first feature
    of this part, and the number of features, of the whole scan. The output is ``logits``, (N, K', X, Y, Z), on
    the finest level's grid.

    Parameters
    ----------
    folder : Path or str
        The adapter.
    out : Path or str
        The file to make.
    card : EncoderCard, optional
        The encoder's: strides and offsets, needed where the adapter reads several levels.

    Returns
    -------
    Exported

    Raises
    ------
    AdapterMismatchError
        If `out` exists, `folder` is no adapter, or the card lacks a level.
    TaskError
        If several levels are read and there is no card, or the method cannot be exported.
    EncoderError
        If the graph's logits differ from the adapter's by more than 1e-3; nothing is written then.
    StoreError
        If `out` cannot be written; nothing is left then.
    """
    from onnx import TensorProto, helper

    folder, out = Path(folder), Path(out)
    refuse_existing(out)
    adapter, info = load_adapter(folder)
    levels = _alone_levels(adapter, card, folder)
    builder = GraphBuilder(OPSET)
    add_adapter(builder, adapter, levels, _STORED, info.method)
    inputs = [
        helper.make_tensor_value_info(
            name, TensorProto.FLOAT, ["N", channels, *(f"{name}_{axis}" for axis in "xyz")]
        )
        for name, channels in adapter.channels.items()
    ]
    sizes: list[str | int | None] = [
        "N",
        adapter.task.channels,
        *(f"{finest(levels)}_{axis}" for axis in "xyz"),
    ]
    output = helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, sizes)
    inputs += place_input(adapter)
    graph = helper.make_graph(builder.nodes, "adapter", inputs, [output], builder.weights)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="featcache")
    described = describe(adapter, info, levels, "stored order", placed=card is not None)
    set_metadata(model, {ADAPTER_KEY: json.dumps(described)})

    def check(path: Path) -> float:
        case = _random_case(adapter, card)
        fine = case.levels[finest(levels)][0]
        place = random_place(fine.shape)
        feeds: dict[str, NDArray[Any]] = {name: values[None] for name, (_, values) in case.levels.items()}
        if adapter.positions:
            feeds[PLACE] = np.array([place.start, place.whole], np.int64)
        return difference(path, feeds, torch_logits(adapter, case, place))

    worst = publish(model, out, external=False, check=check)
    return Exported(out, None, worst, OPSET, described)


def _alone_levels(adapter: Adapter, card: EncoderCard | None, folder: Path) -> dict[str, LevelTensor]:
    if card is None:
        if len(adapter.channels) > 1:
            raise TaskError(
                f"{folder}: the adapter reads the levels {list(adapter.channels)}, and how they lie over each other "
                "stands in the encoder's card; expected --store with its features, or --model to fuse it with"
            )
        return {name: LevelTensor(name) for name in adapter.channels}
    known = {output.name: output.channels for output in card.outputs}
    if any(known.get(name) != channels for name, channels in adapter.channels.items()):
        raise AdapterMismatchError(
            f"{folder}: the adapter reads levels of {adapter.channels} channels; the card has {known}. Expected the "
            "card of the encoder that it was trained on",
            path=folder,
        )
    x, y, z = storage_axes(card)
    levels = {}
    for name in adapter.channels:
        stride, offset = card.output(name).stride, card.output(name).offset
        levels[name] = LevelTensor(name, (stride[x], stride[y], stride[z]), (offset[x], offset[y], offset[z]))
    return levels


def _random_case(adapter: Adapter, card: EncoderCard | None) -> WindowCase:
    """Return random features of every level, of odd and unequal sizes."""
    random = np.random.default_rng(0)
    grids = {name: Grid(_SHAPE, np.eye(4)) for name in adapter.channels}
    if card is not None:
        fine = min((card.output(name).stride for name in adapter.channels), key=math.prod)
        x, y, z = (n * stride - 1 for n, stride in zip(_SHAPE, fine, strict=True))
        grids = {name: level_grid(Grid((x, y, z), np.eye(4)), card, name) for name in adapter.channels}
    return WindowCase(
        {
            name: (grid, random.normal(size=(adapter.channels[name], *grid.shape)).astype(np.float32))
            for name, grid in grids.items()
        }
    )
