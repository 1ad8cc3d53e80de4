"""`featcache encoder inspect | template | attach`: getting from a vendor's ONNX file to a card."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.card import CARD_VERSION, FILL_IN, METADATA_KEY, EncoderCard, Golden
from featcache.errors import EncoderError
from featcache.geometry import SizeRule, Triple
from featcache.onnxfile import ModelInfo, inspect_model, write_card
from featcache.runtime.encoder import golden_input, golden_values
from featcache.runtime.onnxruntime import OnnxEncoder, create_session, runtime_errors

_PROBE_SIZES = (64, 96, 128, 32)
_LOGITS = re.compile(r"logit|prob|softmax|sigmoid|seg", re.IGNORECASE)


@dataclass(frozen=True)
class ProbedOutput:
    """What one probe window tells about a graph output."""

    name: str
    channels: int
    stride: Triple
    size: SizeRule


@dataclass(frozen=True)
class Probe:
    """What the graph and probe windows tell about a model.

    Parameters
    ----------
    info : ModelInfo
        What the graph declares.
    window : tuple of 3 int
        The graph's fixed window, or the probe window of a dynamic one.
    dynamic : bool
        Whether other sizes are accepted.
    multiple : tuple of 3 int
        What sizes have to be multiples of, as far as probing shows.
    outputs : tuple of ProbedOutput
    """

    info: ModelInfo
    window: Triple
    dynamic: bool
    multiple: Triple
    outputs: tuple[ProbedOutput, ...]


def probe_model(path: Path) -> Probe:
    """Return what the graph and a few windows of zeros tell: sizes, channels, strides.

    Raises
    ------
    EncoderError
        If the model is no encoder of single-channel volumes, or no probe window passes.
    """
    info = inspect_model(path)
    if len(info.inputs) != 1 or len(info.inputs[0].shape) != 5:
        shapes = [(i.name, i.shape) for i in info.inputs]
        raise EncoderError(
            f"{path}: found the inputs {shapes}; expected one input of rank 5 (batch, 1, X, Y, Z)", path=path
        )
    _check_ranks(path, info)
    declared = info.inputs[0].shape[2:]
    dynamic = any(isinstance(n, str) for n in declared)
    session, _ = create_session(path, "cpu")
    run = _Runner(path, session, info)
    for size in _PROBE_SIZES if dynamic else (0,):
        x, y, z = (n if isinstance(n, int) else size for n in declared)
        found = run((x, y, z))
        if found is not None:
            break
    else:
        raise EncoderError(
            f"{path}: no probe window of {_PROBE_SIZES} voxels passed ({run.error}); expected a model that "
            "takes a float32 volume (1, 1, X, Y, Z)",
            path=path,
        )
    window = (x, y, z)
    # One voxel for a whole window is a pooled vector: nothing to lay over a scan.
    pooled = [name for name, shape in found.items() if max(shape[2:]) == 1 < max(window)]
    found = {name: shape for name, shape in found.items() if name not in pooled}
    if not found:
        raise _no_dense_output(path, [(o.name, o.shape) for o in info.outputs])
    stride = {name: _stride(path, name, window, shape[2:]) for name, shape in found.items()}
    multiple, rule = (1, 1, 1), dict.fromkeys(found, "ceil")
    if dynamic:
        multiple = _multiple(run, window, declared)
        rule = _size_rules(run, window, declared, stride)
    outputs = tuple(
        ProbedOutput(name, shape[1], stride[name], "floor" if rule[name] == "floor" else "ceil")
        for name, shape in found.items()
    )
    return Probe(info, window, dynamic, multiple, outputs)


class _Runner:
    """Runs windows of zeros; a size that the model refuses gives None."""

    def __init__(self, path: Path, session: Any, info: ModelInfo) -> None:
        self._session, self._info = session, info
        self.error = ""

    def __call__(self, size: Triple) -> dict[str, tuple[int, ...]] | None:
        window: NDArray[np.float32] = np.zeros((1, 1, *size), np.float32)
        names = [o.name for o in self._info.outputs]
        try:
            values = self._session.run(names, {self._info.inputs[0].name: window})
        except runtime_errors() as error:
            self.error = str(error).splitlines()[0]
            return None
        return {n: v.shape for n, v in zip(names, values, strict=True) if v.ndim == 5}


def _check_ranks(path: Path, info: ModelInfo) -> None:
    wrong = [(o.name, o.shape) for o in info.outputs if o.shape and len(o.shape) != 5]
    if len(wrong) == len(info.outputs):
        raise _no_dense_output(path, wrong)


def _no_dense_output(path: Path, found: list[tuple[str, tuple[int | str, ...]]]) -> EncoderError:
    return EncoderError(
        f"{path}: found the outputs {found}; expected a dense output of rank 5 (batch, channels, X, Y, Z): "
        "export the encoder without pooling or flattening",
        path=path,
    )


def _stride(path: Path, name: str, window: Triple, size: tuple[int, ...]) -> Triple:
    strides = [round(n / m) for n, m in zip(window, size, strict=True)]
    for n, m, s in zip(window, size, strides, strict=True):
        if s < 1 or m not in (-(-n // s), n // s):
            raise EncoderError(
                f"{path}: output {name!r} has {size} voxels for a window of {window}; expected a size that is the "
                "window's divided by a whole stride (padded convolutions)",
                path=path,
            )
    return strides[0], strides[1], strides[2]


def _multiple(run: _Runner, window: Triple, declared: tuple[int | str, ...]) -> Triple:
    """Return the smallest power of two per axis by which a window may grow."""
    found = []
    for axis in range(3):
        step = 1
        while step < 64 and isinstance(declared[axis], str):
            grown = list(window)
            grown[axis] += step
            if run((grown[0], grown[1], grown[2])) is not None:
                break
            step *= 2
        found.append(step)
    return found[0], found[1], found[2]


def _size_rules(
    run: _Runner, window: Triple, declared: tuple[int | str, ...], stride: dict[str, Triple]
) -> dict[str, str]:
    """Return "ceil" or "floor" per output, seen on a window one voxel larger where that passes."""
    x, y, z = (n + isinstance(d, str) for n, d in zip(window, declared, strict=True))
    odd = run((x, y, z))
    rules = {}
    for name, steps in stride.items():
        size = odd[name][2:] if odd else ()
        floor = [m == n // s for m, n, s in zip(size, (x, y, z), steps, strict=False) if n % s]
        rules[name] = "floor" if floor and all(floor) else "ceil"
    return rules


def template(path: Path) -> dict[str, Any]:
    """Return a card for the model at `path`: what probing tells, and FILL IN where a person must.

    Raises
    ------
    EncoderError
        As `probe_model`.
    """
    probe = probe_model(path)
    heads = [o for o in probe.outputs if _LOGITS.search(o.name)]
    levels = [o for o in probe.outputs if o not in heads] or list(probe.outputs)
    step = [math.lcm(probe.multiple[a], *(o.stride[a] for o in levels)) for a in range(3)]
    window = [-(-128 // s) * s for s in step] if probe.dynamic else list(probe.window)
    head: Any = None
    if heads and levels != heads:
        level = next((o for o in levels if o.stride == heads[0].stride), levels[-1])
        head = {
            "output": heads[0].name,
            "level": level.name,
            "activation": f"{FILL_IN}: 'none' if {heads[0].name} holds logits, else 'softmax' or 'sigmoid'",
            "classes": f"{FILL_IN}: {heads[0].channels} class names in the order of the output's channels, "
            'such as ["background", "liver", ...]',
        }
    return {
        "format": METADATA_KEY,
        "card_version": CARD_VERSION,
        "name": path.stem,
        "version": f"{FILL_IN}: the model's version, such as '1.0'",
        "licence": f"{FILL_IN}: the model's licence, such as 'Apache-2.0'",
        "modality": f"{FILL_IN}: 'CT' (voxels in HU) or 'MR'",
        "input": {
            "name": probe.info.inputs[0].name,
            "window": window,
            "dynamic": probe.dynamic,
            "multiple": list(probe.multiple),
        },
        "preparation": {
            "orientation": f"{FILL_IN}: direction of the axes, such as 'RAS'; ask the vendor, an error is silent",
            "spacing": f"{FILL_IN}: [x, y, z] in mm along these axes, such as [1.5, 1.5, 1.5], or null for the "
            "scan's own",
            "intensity": f"{FILL_IN}: such as {{'kind': 'window', 'low': -175, 'high': 250, 'output': [0, 1]}}, or "
            "kind 'percentile', 'zscore' or 'none'",
            "crop": f"{FILL_IN}: {{'above': -300, 'margin': 10}} to keep the box of brighter voxels, or null",
            "pad_value": 0.0,
        },
        "blending": f"{FILL_IN}: {{'kind': 'gaussian', 'overlap': 0.25}}, or, for a purely convolutional encoder "
        f"without instance norm, {{'kind': 'halo', 'halo': {[n // 4 for n in window]}}}",
        "outputs": [_template_output(o) for o in levels],
        "head": head,
    }


def _template_output(output: ProbedOutput) -> dict[str, Any]:
    half = [(s - 1) / 2 for s in output.stride]
    unit = output.stride == (1, 1, 1)
    return {
        "name": output.name,
        "channels": output.channels,
        "stride": list(output.stride),
        "offset": [0.0, 0.0, 0.0]
        if unit
        else f"{FILL_IN}: [0, 0, 0] for padded odd-kernel strided convolutions, {half} for patch embeddings "
        "and pooling with even kernels",
        "size": output.size,
        "default": True,
    }


def attach(path: Path, card: EncoderCard, *, golden: bool = True) -> EncoderCard:
    """Check `card` against the model, add golden values, write it into the ONNX file; return it.

    Raises
    ------
    EncoderError
        If the model contradicts the card; nothing is written then.
    """
    bare = dataclasses.replace(card, golden=None)
    encoder = OnnxEncoder(path, bare, "cpu")
    shape = _golden_shape(bare)
    features = encoder(golden_input(shape))
    for name, values in features.items():
        if not np.isfinite(values).all():
            raise EncoderError(
                f"{path}: output {name!r} holds NaN or infinite values on a window of {shape} voxels in 0..1; "
                "expected finite ones. Is the export whole?",
                path=path,
            )
    if golden:
        names = [output.name for output in card.outputs]
        bare = dataclasses.replace(bare, golden=Golden(shape, golden_values(features, names)))
    write_card(path, bare)
    return bare


def _golden_shape(card: EncoderCard) -> Triple:
    if not card.input.dynamic:
        return card.input.window
    x, y, z = (min(w, -(-64 // s) * s) for w, s in zip(card.input.window, card.window_step, strict=True))
    return x, y, z
