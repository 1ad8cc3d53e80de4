"""A residual module -> nodes, by following what its `forward` does.

The module is traced with torch.fx, so the graph is made of what is computed, not of how attributes are
called. What has no counterpart here is refused by name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from adapters.export.builder import GraphBuilder
from featcache.errors import TaskError
from featcache.geometry import Triple

if TYPE_CHECKING:
    import torch.fx

_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout3d)  # in evaluation


def add_residual(builder: GraphBuilder, module: nn.Module, tensor: str, axes: Triple, method: str) -> str:
    """Add the nodes of a residual and return the name of its output.

    Parameters
    ----------
    builder : GraphBuilder
    module : nn.Module
        (N, W, ...) -> (N, W, ...): Conv3d (any kernel, dilation and zero padding, stride 1), ReLU, LeakyReLU
        and sums of them.
    tensor : str
        Its input.
    axes : tuple of 3 int
        ``axes[k]`` is the graph's axis that the module's axis k lies along: kernels are turned alike.
    method : str
        For messages.

    Raises
    ------
    TaskError
        If the module does something else.
    """
    from torch.fx import GraphModule, Tracer
    from torch.fx.proxy import TraceError

    try:
        whole = nn.Sequential(module)  # so that a single layer is met as a layer, too
        traced = GraphModule(whole, Tracer().trace(whole))
    except (TraceError, TypeError, NotImplementedError) as error:
        raise _refused(method, f"its computation depends on its input ({error})") from error
    known: dict[torch.fx.Node, str] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            known[node] = tensor
        elif node.op == "output":
            return known[node.args[0]]
        elif node.op == "call_module":
            layer = traced.get_submodule(str(node.target))
            known[node] = _add_layer(builder, layer, known[node.args[0]], axes, method)
        else:
            known[node] = _add_function(builder, node, known, method)
    raise _refused(method, "it returns nothing")


def turned(kernel: NDArray[np.float32], axes: Triple) -> NDArray[np.float32]:
    """Return a kernel (O, C, x, y, z) whose axis k is brought to axis ``axes[k]``."""
    return np.moveaxis(kernel, [2, 3, 4], [2 + axis for axis in axes])


def _add_layer(builder: GraphBuilder, layer: nn.Module, tensor: str, axes: Triple, method: str) -> str:
    if isinstance(layer, nn.Conv3d):
        return _add_convolution(builder, layer, tensor, axes, method)
    if isinstance(layer, nn.ReLU):
        return builder.op("Relu", tensor)
    if isinstance(layer, nn.LeakyReLU):
        return builder.op("LeakyRelu", tensor, alpha=float(layer.negative_slope))
    if isinstance(layer, _NOTHING):
        return tensor
    raise _refused(method, f"it holds {layer}")


def _add_function(
    builder: GraphBuilder, node: torch.fx.Node, known: dict[torch.fx.Node, str], method: str
) -> str:
    plain: dict[Callable[..., Any], str] = {
        torch.relu: "Relu",
        nn.functional.relu: "Relu",
        operator.add: "Add",
        torch.add: "Add",
    }
    kind = plain.get(node.target) if callable(node.target) else None
    inputs = [known.get(value) if isinstance(value, torch.fx.Node) else None for value in node.args]
    names = [name for name in inputs if name is not None]
    extra = {key for key, value in node.kwargs.items() if (key, value) != ("inplace", False)}
    if kind is None or len(names) != len(inputs) or extra:
        raise _refused(method, f"it computes {node.format_node()}")
    return builder.op(kind, *names)


def _add_convolution(builder: GraphBuilder, layer: nn.Conv3d, tensor: str, axes: Triple, method: str) -> str:
    if layer.padding_mode != "zeros" or set(layer.stride) != {1}:
        raise _refused(method, f"it holds {layer}, neither stride 1 nor padded with zeros")
    reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    if isinstance(layer.padding, str):
        both = [(n // 2, n - n // 2) if layer.padding == "same" else (0, 0) for n in reach]
    else:
        both = [(n, n) for n in layer.padding]
    # attribute of graph axis e is that of the module's axis k with axes[k] == e
    order = [axes.index(axis) for axis in range(3)]
    kernel = turned(layer.weight.detach().numpy(), axes)
    inputs = [builder.constant(kernel)]
    if layer.bias is not None:
        inputs.append(builder.constant(layer.bias.detach().numpy()))
    return builder.op(
        "Conv",
        tensor,
        *inputs,
        kernel_shape=list(kernel.shape[2:]),
        dilations=[layer.dilation[k] for k in order],
        pads=[both[k][0] for k in order] + [both[k][1] for k in order],
        group=layer.groups,
    )


def _refused(method: str, why: str) -> TaskError:
    return TaskError(
        f"an adapter of method {method!r} cannot be exported: {why}; expected a residual of Conv3d (stride 1, zero "
        "padding), ReLU, LeakyReLU and sums. Use `adapters predict`, or train with --method spatial"
    )
