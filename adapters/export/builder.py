"""Nodes and weights of a graph under construction, at one opset of ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

PREFIX = "featcache.adapter/"
"""Of every tensor that is added: an encoder's own names are not met."""

OLDEST_OPSET = 11  # Range


class GraphBuilder:
    """Collects nodes and weights.

    Parameters
    ----------
    opset : int
        Of ONNX's default domain, `OLDEST_OPSET` or newer; operators that changed are written in its form.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its one output."""
        from onnx import helper

        output = f"{PREFIX}{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, value: NDArray[Any]) -> str:
        """Add a weight and return its name."""
        from onnx import numpy_helper

        name = f"{PREFIX}weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def number(self, value: float) -> str:
        """Add a scalar, float32, and return its name."""
        return self.constant(np.array(value, np.float32))

    def indices(self, *values: int) -> str:
        """Add a vector of int64 and return its name."""
        return self.constant(np.array(values, np.int64))

    def pointwise(self, tensor: str, weights: NDArray[np.float32], bias: NDArray[np.float32] | None) -> str:
        """Return ``weights @ tensor + bias`` at each voxel: weights (R, C), bias (R,)."""
        inputs = [self.constant(weights[:, :, None, None, None])]
        if bias is not None:
            inputs.append(self.constant(bias))
        return self.op("Conv", tensor, *inputs, kernel_shape=[1, 1, 1])

    def channels(self, tensor: str, start: int, stop: int) -> str:
        """Return the channels from `start` up to `stop`."""
        return self.op("Slice", tensor, self.indices(start), self.indices(stop), self.indices(1))

    def joined(self, tensors: list[str]) -> str:
        """Return `tensors` one after the other along the channels."""
        return self.op("Concat", *tensors, axis=1) if len(tensors) > 1 else tensors[0]

    def logsumexp(self, tensor: str) -> str:
        """Return log(sum(exp)) over the channels, which stay as one."""
        if self.opset < 18:
            return self.op("ReduceLogSumExp", tensor, axes=[1], keepdims=1)
        return self.op("ReduceLogSumExp", tensor, self.indices(1), keepdims=1)

    def size(self, tensor: str, axis: int) -> str:
        """Return how many voxels `tensor` (N, C, X, Y, Z) has along a spatial axis: a scalar, int64."""
        return self.op(
            "Gather", self.op("Shape", tensor), self.constant(np.array(axis + 2, np.int64)), axis=0
        )

    def float(self, tensor: str) -> str:
        """Return `tensor` as float32."""
        return self.op("Cast", tensor, to=1)

    def count(self, tensor: str, axis: int) -> str:
        """Return 0, 1, 2, ... for every voxel of `tensor` along a spatial axis: a vector, float32."""
        zero, one = (self.constant(np.array(n, np.int64)) for n in (0, 1))
        return self.float(self.op("Range", zero, self.size(tensor, axis), one))

    def along(self, vector: str, axis: int) -> str:
        """Return a vector such that it broadcasts along one spatial axis of a tensor (N, C, X, Y, Z)."""
        shape = [1] * 5
        shape[axis + 2] = -1
        return self.op("Reshape", vector, self.indices(*shape))
