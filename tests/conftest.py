"""Small encoders and scans that the tests of all parts share, handed out by fixtures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from featcache.card import Blending, EncoderCard, EncoderInput, Head, Intensity, Output, Preparation
from featcache.onnxfile import write_card
from featcache.store import files

AS_IT_IS = Intensity("none")
CLASSES = ("background", "liver", "spleen")


def save_model(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    outputs: dict[str, int],
    weights: dict[str, NDArray[Any]],
    size: Sequence[int | str] = ("x", "y", "z"),
) -> None:
    """Write a graph with the input "image" (1, 1, *size); `outputs` are names and channels."""
    graph = helper.make_graph(
        list(nodes),
        "encoder",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, *size])],
        [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, [1, channels, *(f"{name}_{a}" for a in "xyz")]
            )
            for name, channels in outputs.items()
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def make_card(outputs: Sequence[Output], **changes: Any) -> EncoderCard:
    """Return a card for an MR encoder whose window is 16 voxels wide."""
    fields: dict[str, Any] = {
        "name": "toy",
        "version": "1",
        "licence": "MIT",
        "modality": "MR",
        "input": EncoderInput("image", (16, 16, 16), True),
        "preparation": Preparation("RAS", None, AS_IT_IS),
        "blending": Blending("halo", (4, 4, 4)),
        "outputs": tuple(outputs),
    }
    return EncoderCard(**fields | changes)


def conv_weights(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    shapes = {"w1": (4, 1, 3, 3, 3), "w2": (6, 4, 3, 3, 3), "w3": (8, 6, 3, 3, 3), "w4": (3, 6, 1, 1, 1)}
    weights = {n: rng.normal(size=s, scale=np.prod(s[1:]) ** -0.5) for n, s in shapes.items()}
    weights |= {f"b{n[1]}": rng.normal(size=s[0], scale=0.2) for n, s in shapes.items()}
    return {name: value.astype(np.float32) for name, value in weights.items()}


def conv_encoder(path: Path, *, seed: int = 0, head: str = "linear", **changes: Any) -> EncoderCard:
    """Write a convolutional encoder with levels of stride (1, 1, 1), (2, 2, 2) and (4, 4, 2), and a head.

    Parameters
    ----------
    path : Path
        The ONNX file.
    seed : int
        Of the weights.
    head : {"linear", "softmax", "sigmoid", "nonlinear", "none"}
        What the output "logits" is: a 1x1x1 convolution of level l2 and what comes after it.
    **changes
        Fields of the card.
    """
    pads = {"kernel_shape": [3, 3, 3], "pads": [1] * 6}
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], **pads),
        helper.make_node("Relu", ["c1"], ["l1"]),
        helper.make_node("Conv", ["l1", "w2", "b2"], ["l2"], strides=[2, 2, 2], **pads),
        helper.make_node("Relu", ["l2"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["l3"], strides=[2, 2, 1], **pads),
    ]
    outputs = {"l1": 4, "l2": 6, "l3": 8}
    if head != "none":
        last = {"linear": "Identity", "softmax": "Softmax", "sigmoid": "Sigmoid", "nonlinear": "Abs"}[head]
        axis = {"axis": 1} if head == "softmax" else {}
        nodes.append(helper.make_node("Conv", ["l2", "w4", "b4"], ["raw"], kernel_shape=[1, 1, 1]))
        nodes.append(helper.make_node(last, ["raw"], ["logits"], **axis))
        outputs["logits"] = 3
        activation = head if head in ("softmax", "sigmoid") else "none"
        own: Any = Head("l2", CLASSES, activation, head == "sigmoid", "logits")
        changes = {"head": own} | changes
    save_model(path, nodes, outputs, conv_weights(seed), changes.pop("size", ("x", "y", "z")))
    levels = [
        Output("l1", 4, (1, 1, 1), (0, 0, 0)),
        Output("l2", 6, (2, 2, 2), (0, 0, 0)),
        Output("l3", 8, (4, 4, 2), (0, 0, 0)),
    ]
    card = make_card(levels, **changes)
    write_card(path, card)
    return card


def faulty_encoder(path: Path, value: float, above: float = 100.0) -> EncoderCard:
    """Write an encoder that copies its input, and puts out `value` where it is brighter than `above`."""
    nodes = [
        helper.make_node("Greater", ["image", "above"], ["bright"]),
        helper.make_node("Where", ["bright", "value", "image"], ["features"]),
    ]
    weights = {"above": np.float32([above]), "value": np.float32([value])}
    save_model(path, nodes, {"features": 1}, weights)
    card = make_card([Output("features", 1, (1, 1, 1), (0, 0, 0))])
    write_card(path, card)
    return card


POSITION_STRIDES = ((1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8), (4, 4, 2))


def position_encoder(path: Path, **changes: Any) -> EncoderCard:
    """Write an encoder that yields values at, and averages around, where its card says its features lie.

    On a scan whose voxels hold a world coordinate, every feature is then the coordinate of its own place.
    Per stride there is a level with offset 0, every s-th voxel, and one with (s - 1) / 2, average pooling.
    """
    nodes, levels, weights = [], [], {"from": np.int64([0, 0, 0]), "axes": np.int64([2, 3, 4])}
    weights["to"] = np.int64([2**31] * 3)
    for stride in POSITION_STRIDES:
        code = "".join(map(str, stride))
        weights[f"step{code}"] = np.int64(stride)
        nodes.append(
            helper.make_node("Slice", ["image", "from", "to", "axes", f"step{code}"], [f"slice{code}"])
        )
        levels.append(Output(f"slice{code}", 1, stride, (0, 0, 0)))
        if stride != (1, 1, 1):
            nodes.append(
                helper.make_node(
                    "AveragePool", ["image"], [f"pool{code}"], kernel_shape=stride, strides=stride
                )
            )
            x, y, z = ((s - 1) / 2 for s in stride)
            levels.append(Output(f"pool{code}", 1, stride, (x, y, z)))
    save_model(path, nodes, {level.name: 1 for level in levels}, weights)
    card = make_card(levels, **{"blending": Blending("halo"), **changes})
    write_card(path, card)
    return card


def write_scan(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64] | None = None) -> Path:
    """Write a NIfTI file; the affine is in the sform, code 1."""
    image = nib.Nifti1Image(voxels, None)
    image.set_sform(np.eye(4) if affine is None else affine, 1)
    image.set_qform(None, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


class Fakes:
    """What the fixture `fakes` hands out."""

    CLASSES = CLASSES
    POSITION_STRIDES = POSITION_STRIDES
    save_model = staticmethod(save_model)
    make_card = staticmethod(make_card)
    conv_weights = staticmethod(conv_weights)
    conv_encoder = staticmethod(conv_encoder)
    faulty_encoder = staticmethod(faulty_encoder)
    position_encoder = staticmethod(position_encoder)
    write_scan = staticmethod(write_scan)


@pytest.fixture(scope="session")
def fakes() -> type[Fakes]:
    """Return the functions that write small encoders and scans."""
    return Fakes


@pytest.fixture
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Leave fsync out, where a test does not ask what survives a crash."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "fsync", lambda descriptor: None)
        yield
