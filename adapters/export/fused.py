"""Encoder and adapter as one ONNX file: window in, logits out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adapters.checkpoint import AdapterInfo, load_adapter, refuse_existing
from adapters.export.adapter_graph import LOGITS, PLACE, LevelTensor, add_adapter, finest
from adapters.export.builder import OLDEST_OPSET, PREFIX, GraphBuilder
from adapters.export.check import WindowCase, difference, torch_logits
from adapters.export.encoder_graph import default_opset, keep_only, load_encoder, rename
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
from featcache.card import METADATA_KEY, EncoderCard
from featcache.encode import level_grid, storage_axes
from featcache.encoders import model_path
from featcache.errors import AdapterMismatchError, EncoderError
from featcache.geometry import Grid
from featcache.onnxfile import encoder_id, inspect_model, read_card
from featcache.runtime.onnxruntime import OnnxEncoder

if TYPE_CHECKING:
    import onnx

_LARGEST_FILE = 1_900_000_000  # bytes; a protobuf message holds less than 2 GiB


def export_fused(folder: Path | str, model: Path | str, out: Path | str) -> Exported:
    """Write encoder and adapter as one ONNX file: window in, logits out, at the encoder's opset.

    The input is the encoder's, a window prepared as its card says (which stays in the file). The output is
    ``logits``, (N, K', X, Y, Z), on the window's grid of the finest level that the adapter reads, with the
    axes in the ENCODER's order. An adapter that knows positions has the input ``place`` as well, int64 (2, 3)
    in the encoder's order: the window's first feature, and the number of features, in the whole scan.

    Logits near a window's borders differ from those of `adapters predict`: there the features of overlapping
    windows are blended, and the adapter sees across borders; here a window's border is the border of
    everything. Run overlapping windows and blend their logits, or keep their middles. Rounding of stored
    features to float16 is no part of the graph.

    Parameters
    ----------
    folder : Path or str
        The adapter.
    model : Path or str
        The encoder it was trained on: an ONNX file with its card, or the name of a built-in one.
    out : Path or str
        The file to make; weights go into ``<out>.data`` where the encoder keeps its own outside the file.

    Returns
    -------
    Exported

    Raises
    ------
    AdapterMismatchError
        If `out` exists, `folder` is no adapter, or the model or its card is not the one it was trained on.
    CardError
        If the model has no card.
    EncoderError
        If the model cannot be loaded, its opset is older than 11, or the fused logits differ from the
        adapter's by more than 1e-3; nothing is written then.
    TaskError
        If the method cannot be exported.
    StoreError
        If `out` cannot be written; nothing is left then.
    """
    folder, out, path = Path(folder), Path(out), model_path(model)
    refuse_existing(out)
    adapter, info = load_adapter(folder)
    card = read_card(path)
    _check_same_encoder(info, path, card)
    external = bool(inspect_model(path).external_files) or path.stat().st_size > _LARGEST_FILE
    data = out.with_name(f"{out.name}.data") if external else None
    if data is not None:
        refuse_existing(data)
    feeds, expected = _fused_reference(adapter, path, card)
    fused, levels = _fuse(adapter, path, card, info.method)
    described = describe(adapter, info, levels, card.preparation.orientation)
    documents = {METADATA_KEY: json.dumps(card.to_json(), sort_keys=True), ADAPTER_KEY: json.dumps(described)}
    set_metadata(fused, documents)
    opset = default_opset(fused)
    worst = publish(fused, out, external=external, check=lambda made: difference(made, feeds, expected))
    return Exported(out, data, worst, opset, described)


def _check_same_encoder(info: AdapterInfo, path: Path, card: EncoderCard) -> None:
    found = encoder_id(path, card)
    if found != info.encoder_id:
        raise AdapterMismatchError(
            f"{path} with its card is encoder {card.name!r} ({found[:12]}); the adapter was trained on features of "
            f"{info.encoder_name!r} ({info.encoder_id[:12]}). Pass the very file and card that the features were "
            "extracted with, or train an adapter on this encoder's features",
            path=path,
        )


def _fuse(
    adapter: Adapter, path: Path, card: EncoderCard, method: str
) -> tuple[onnx.ModelProto, dict[str, LevelTensor]]:
    """Return the encoder's model with the adapter behind it, and the levels in the encoder's order."""
    from onnx import TensorProto, helper

    model = load_encoder(path)
    graph, opset = model.graph, default_opset(model)
    if opset < OLDEST_OPSET or card.input.name in (LOGITS, PLACE):
        raise EncoderError(
            f"{path}: found opset {opset} and the input {card.input.name!r}; expected opset {OLDEST_OPSET} or newer "
            f"and an input not called {LOGITS!r} or {PLACE!r}. Export the encoder anew",
            path=path,
        )
    outputs = {output.name: output for output in graph.output if output.name in adapter.channels}
    keep_only(graph, list(outputs))
    builder = GraphBuilder(opset)
    levels = {}
    sizes = {name: list(output.type.tensor_type.shape.dim) for name, output in outputs.items()}
    for name in adapter.channels:
        tensor = name
        if name in (LOGITS, PLACE):
            tensor = f"{PREFIX}level/{name}"
        if outputs[name].type.tensor_type.elem_type != TensorProto.FLOAT:
            tensor = builder.float(tensor)
        levels[name] = LevelTensor(tensor, card.output(name).stride, card.output(name).offset)
    for taken in (LOGITS, PLACE):
        rename(graph, taken, f"{PREFIX}level/{taken}")
    add_adapter(builder, adapter, levels, storage_axes(card), method)
    logits = helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [None] * 5)
    shape = logits.type.tensor_type.shape
    for axis, size in enumerate(sizes[finest(levels)]):
        shape.dim[axis].CopyFrom(size)
    shape.dim[1].Clear()
    shape.dim[1].dim_value = adapter.task.channels
    graph.node.extend(builder.nodes)
    graph.initializer.extend(builder.weights)
    graph.input.extend(place_input(adapter))
    del graph.output[:]
    graph.output.append(logits)
    return model, levels


def _fused_reference(
    adapter: Adapter, path: Path, card: EncoderCard
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
    """Return a random window as inputs of the fused graph, and the torch adapter's logits of it.

    The features take the way that extraction takes: through the encoder alone, then into stored order.
    """
    size = card.input.window
    if card.input.dynamic:
        x, y, z = (min(w, -(-64 // s) * s) for w, s in zip(size, card.window_step, strict=True))
        size = (x, y, z)
    low, high = card.preparation.intensity.output
    window = np.random.default_rng(0).uniform(low, high, (1, *size)).astype(np.float32)
    features = OnnxEncoder(path, card, "cpu")(window)
    axes, grid = storage_axes(card), Grid(size, np.eye(4))
    case = WindowCase(
        {
            name: (level_grid(grid, card, name), features[name].transpose(0, *(1 + axis for axis in axes)))
            for name in adapter.channels
        }
    )
    feeds: dict[str, NDArray[Any]] = {card.input.name: window[None]}
    place = None
    if adapter.positions:
        levels = {name: LevelTensor(name, card.output(name).stride) for name in adapter.channels}
        place = random_place(case.levels[finest(levels)][0].shape)
        feeds[PLACE] = np.zeros((2, 3), np.int64)
        feeds[PLACE][:, list(axes)] = [place.start, place.whole]
    logits = torch_logits(adapter, case, place)
    return feeds, np.moveaxis(logits, [2, 3, 4], [2 + axis for axis in axes])
