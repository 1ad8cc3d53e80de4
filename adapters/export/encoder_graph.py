"""What of an encoder's graph a fused model needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.errors import EncoderError

if TYPE_CHECKING:
    import onnx


def load_encoder(path: Path) -> onnx.ModelProto:
    """Return the model with all its weights, those in files beside it too.

    Raises
    ------
    EncoderError
        If it cannot be read.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path)
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise EncoderError(
            f"{path}: the model cannot be read with its weights: {error}; copy or export it again", path=path
        ) from error


def default_opset(model: onnx.ModelProto) -> int:
    """Return the opset of ONNX's default domain, 0 if the model names none."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def keep_only(graph: onnx.GraphProto, outputs: Sequence[str]) -> None:
    """Leave out, in place, what the tensors called `outputs` do not depend on: other levels, the own head."""
    needed = set(outputs)
    weights = {tensor.name for tensor in graph.initializer}
    for number in reversed(range(len(graph.node))):
        if needed.isdisjoint(graph.node[number].output):
            del graph.node[number]
        else:
            needed.update(_reads(graph.node[number]))
    for number in reversed(range(len(graph.initializer))):
        if graph.initializer[number].name not in needed:
            del graph.initializer[number]
    for number in reversed(range(len(graph.input))):
        if graph.input[number].name in weights - needed:
            del graph.input[number]
    for number in reversed(range(len(graph.output))):
        if graph.output[number].name not in outputs:
            del graph.output[number]
    for number in reversed(range(len(graph.value_info))):
        if graph.value_info[number].name not in needed:
            del graph.value_info[number]


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Call the tensor `old` `new`, in place, wherever it is written or read."""
    for tensor in (*graph.initializer, *graph.value_info, *graph.input, *graph.output):
        if tensor.name == old:
            tensor.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            for number, name in enumerate(names):
                if name == old:
                    names[number] = new
        for inner in _graphs(node):
            rename(inner, old, new)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for graph in _graphs(node):
        for inner in graph.node:
            yield from _reads(inner)
        yield from (output.name for output in graph.output)


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
