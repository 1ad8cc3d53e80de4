"""An ONNX file as bytes: its metadata, its fingerprint, its inputs and outputs. No session is created.

An ONNX file is one protobuf message (onnx.proto3, ModelProto). Metadata entries are its top-level field 14;
walking the top-level fields lets us read, replace and leave them out of the fingerprint without parsing
or rewriting the weights.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from featcache.card import METADATA_KEY, EncoderCard
from featcache.card_json import canonical_digest, parse_card
from featcache.errors import CardError, EncoderError

if TYPE_CHECKING:
    import onnx

_METADATA_TAG = (14 << 3) | 2
_BLOCK = 1 << 22


@dataclass(frozen=True)
class TensorInfo:
    """Name and shape of a graph input or output; a symbolic or unknown size is a text."""

    name: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class ModelInfo:
    """What a graph declares, read without a session."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    opset: int
    external_files: tuple[Path, ...]


def inspect_model(path: Path) -> ModelInfo:
    """Return what the ONNX file at `path` declares.

    Raises
    ------
    EncoderError
        If the file is missing or no ONNX model.
    """
    model = _parse(path)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    return ModelInfo(
        tuple(_tensor_info(v) for v in graph.input if v.name not in weights),
        tuple(_tensor_info(v) for v in graph.output),
        int(opset),
        tuple(path.parent / name for name in sorted(_external_locations(graph))),
    )


def read_card(path: Path) -> EncoderCard:
    """Return the card inside the ONNX file, or of ``<model>.card.json`` beside it.

    Raises
    ------
    CardError
        If there is none, telling how to write one; if it is malformed; if the two differ.
    EncoderError
        If the file is missing or no ONNX model.
    """
    inside = read_metadata(path).get(METADATA_KEY)
    beside = card_path(path)
    outside = read_card_file(beside) if beside.is_file() else None
    if inside is None and outside is None:
        raise CardError(
            f"{path}: the model has no encoder card, so its orientation, spacing and intensity range are "
            f"unknown. Write one: `featcache encoder template {path}` makes {beside.name}, fill in what it "
            f"marks with 'FILL IN', then `featcache encoder attach {path}`",
            path=path,
        )
    card = None if inside is None else parse_card(inside, f"{path}, metadata {METADATA_KEY}")
    if outside is not None:
        # Golden values are computed by `attach`, so a card file that lacks them agrees all the same.
        if card is not None and _without_golden(card) != _without_golden(outside):
            raise CardError(
                f"{path} holds a card that differs from {beside}: "
                f"run `featcache encoder attach {path}` to take over the file, or remove the file",
                path=path,
            )
        card = card or outside
    assert card is not None
    return card


def read_card_file(path: Path) -> EncoderCard:
    """Return the card in a JSON file; CardError if it cannot be read."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(
            f"{path}: the card cannot be read: {error}; expected JSON in UTF-8", path=path
        ) from error
    return parse_card(text, str(path))


def _without_golden(card: EncoderCard) -> dict[str, Any]:
    return {k: v for k, v in card.to_json().items() if k != "golden"}


def card_path(path: Path) -> Path:
    """Return where a card may lie beside the model: ``<model>.card.json``."""
    return path.with_name(path.name.removesuffix(".onnx") + ".card.json")


def encoder_id(path: Path, card: EncoderCard) -> str:
    """Return the encoder's fingerprint: sha256 of the model's bytes (without metadata) and its card.

    Golden values are left out: they check a runtime, and differ in their last digits with the machine that
    attached the card.
    """
    external = [[p.name, _file_digest(p)] for p in inspect_model(path).external_files]
    document = {"model": _model_digest(path), "external": external, "card": _without_golden(card)}
    return canonical_digest(document)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the file's metadata_props."""
    found = {}
    with _opened(path) as file:
        for tag, start, end in _fields(file, path):
            if tag == _METADATA_TAG:
                file.seek(start)
                key, value = _entry(file.read(end - start), path)
                found[key] = value
    return found


def write_card(path: Path, card: EncoderCard) -> None:
    """Write `card` into the ONNX file's metadata, in place of an earlier one; all other bytes stay.

    The new file is written beside the old one and then takes its place.
    """
    import json

    import onnx

    text = json.dumps(card.to_json(), sort_keys=True)
    entry = onnx.ModelProto(metadata_props=[onnx.StringStringEntryProto(key=METADATA_KEY, value=text)])
    part = path.with_name(f".{path.name}.part")
    try:
        with _opened(path) as source, part.open("wb") as target:
            for start, end in _kept(source, path):
                for block in _blocks(source, start, end):
                    target.write(block)
            target.write(entry.SerializeToString())
            target.flush()
            os.fsync(target.fileno())
        part.replace(path)
    except OSError as error:
        raise EncoderError(f"{path}: the card could not be written: {error}", path=path) from error
    finally:
        part.unlink(missing_ok=True)


def _kept(file: BinaryIO, path: Path) -> Iterator[tuple[int, int]]:
    """Yield the byte ranges of all top-level fields but an earlier card."""
    begin = 0
    for tag, start, end in _fields(file, path):
        is_card = False
        if tag == _METADATA_TAG:
            file.seek(start)
            is_card = _entry(file.read(end - start), path)[0] == METADATA_KEY
        if not is_card:
            yield begin, end
        begin = end


def _model_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with _opened(path) as file:
        begin = 0
        for tag, _, end in _fields(file, path):
            if tag != _METADATA_TAG:
                for block in _blocks(file, begin, end):
                    digest.update(block)
            begin = end
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(
            f"{path}: the model's weights lie in this file, which cannot be read: {error}", path=path
        ) from error


def _blocks(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    file.seek(start)
    while start < end:
        block = file.read(min(_BLOCK, end - start))
        start += len(block)
        yield block


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise EncoderError(f"{path}: cannot read the model: {error.strerror}", path=path) from error


def _fields(file: BinaryIO, path: Path) -> Iterator[tuple[int, int, int]]:
    """Yield (tag, start, end) of every top-level field; start and end enclose its payload."""
    size = file.seek(0, os.SEEK_END)
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(20)
        try:
            tag, used = _varint(head, 0)
            if tag & 7 == 2:
                length, used = _varint(head, used)
                start = position + used
                end = start + length
            elif tag & 7 == 0:
                start = position + used
                end = position + _varint(head, used)[1]
            else:
                raise IndexError
            if end > size:
                raise IndexError
        except IndexError:
            raise EncoderError(
                f"{path}: not a whole ONNX file (broken at byte {position} of {size}); "
                "expected a model exported with torch.onnx.export or the like",
                path=path,
            ) from None
        yield tag, start, end
        position = end


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7


def _entry(payload: bytes, path: Path) -> tuple[str, str]:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        entry = onnx.StringStringEntryProto.FromString(payload)
    except DecodeError as error:
        raise EncoderError(
            f"{path}: not a whole ONNX file (its metadata is damaged); copy or export it again", path=path
        ) from error
    return entry.key, entry.value


def _parse(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    with _opened(path) as file:
        for _ in _fields(file, path):
            pass
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise EncoderError(f"{path}: not an ONNX model: {error}", path=path) from error
    if not model.graph.output:
        raise EncoderError(f"{path}: not an ONNX model: no graph with outputs in it", path=path)
    return model


def _tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    dims = value.type.tensor_type.shape.dim
    return TensorInfo(value.name, tuple(d.dim_param or d.dim_value or "?" for d in dims))


def _external_locations(graph: onnx.GraphProto) -> set[str]:
    import onnx

    found: set[str] = set()
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            tensors.append(attribute.t)
            for inner in (attribute.g, *attribute.graphs):
                found |= _external_locations(inner) if inner.node else set()
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            found |= {entry.value for entry in tensor.external_data if entry.key == "location"}
    return found
