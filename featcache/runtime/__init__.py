"""An ONNX file -> a function from one window to its features."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from featcache.card import EncoderCard
from featcache.errors import EncoderError
from featcache.runtime.encoder import ComputePrecision, WindowEncoder
from featcache.runtime.onnxruntime import Device, OnnxEncoder

Runtime = Literal["onnxruntime", "openvino"]


def open_encoder(
    path: Path,
    card: EncoderCard,
    *,
    runtime: Runtime = "onnxruntime",
    device: Device = "auto",
    threads: int | None = None,
    precision: ComputePrecision = "float32",
) -> WindowEncoder:
    """Return the encoder as `runtime` computes it.

    Raises
    ------
    EncoderError
        If the model cannot be loaded so, or the options do not go together.
    """
    if runtime == "openvino":
        if device == "cuda":
            raise EncoderError(
                "--runtime openvino computes on the CPU; found --device cuda. Leave one of them out",
                path=path,
            )
        from featcache.runtime.openvino import OpenVinoEncoder

        return OpenVinoEncoder(path, card, threads, precision)
    if precision != "float32":
        raise EncoderError(
            f"--compute-precision {precision}: ONNX Runtime computes this file in float32; expected --runtime openvino "
            "with it",
            path=path,
        )
    return OnnxEncoder(path, card, device, threads)


__all__ = ["ComputePrecision", "Device", "Runtime", "WindowEncoder", "open_encoder"]
