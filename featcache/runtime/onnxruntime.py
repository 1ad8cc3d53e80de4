"""An ONNX file -> a function from one window to its features, with ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featcache.card import EncoderCard
from featcache.errors import EncoderError
from featcache.machine import usable_cores
from featcache.runtime.devices import cuda_device_count
from featcache.runtime.encoder import WindowEncoder

Device = Literal["auto", "cpu", "cuda"]


def create_session(path: Path, device: Device = "auto", threads: int | None = None) -> tuple[Any, str]:
    """Return an onnxruntime.InferenceSession and the device that it really uses ("cpu" or "cuda").

    Raises
    ------
    EncoderError
        If the model cannot be loaded, or CUDA was asked for and is not used.
    """
    import onnxruntime as ort

    if device == "auto":
        device = "cuda" if cuda_device_count() and _has_cuda_provider(ort) else "cpu"
    elif device == "cuda" and not (cuda_device_count() and _has_cuda_provider(ort)):
        raise EncoderError(
            f"--device cuda: found {cuda_device_count()} CUDA devices and the ONNX Runtime providers "
            f"{ort.get_available_providers()}; expected a GPU with its driver, and onnxruntime-gpu "
            "(not onnxruntime beside it). Use --device cpu, or repair the installation"
        )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    cores = usable_cores()
    if threads is None and cores < (os.cpu_count() or 1):
        threads = cores  # ONNX Runtime counts the machine's; threads that share a core wait for each other
    if threads is not None:
        options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    if device == "cuda":
        ort.preload_dlls()
        providers.insert(0, "CUDAExecutionProvider")
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except runtime_errors() as error:
        raise EncoderError(f"{path}: ONNX Runtime cannot load the model: {error}", path=path) from error
    if device == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise EncoderError(
            f"--device cuda: ONNX Runtime fell back to {session.get_providers()}; its CUDA libraries could "
            "not be loaded. Install the CUDA and cuDNN versions that onnxruntime-gpu names, or use --device cpu",
            path=path,
        )
    return session, device


def runtime_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that ONNX Runtime raises; they share no base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (v for v in vars(state).values() if isinstance(v, type) and issubclass(v, Exception))
    return (*own, RuntimeError, ValueError)


def _has_cuda_provider(ort: Any) -> bool:
    return "CUDAExecutionProvider" in ort.get_available_providers()


class OnnxEncoder(WindowEncoder):
    """An encoder that ONNX Runtime computes, in float32.

    Parameters
    ----------
    path : Path
        The ONNX file.
    card : EncoderCard
        Its card; every output is checked against it.
    device : {"auto", "cpu", "cuda"}
        "auto" takes a GPU that is there. Asked-for CUDA that is not used is an error.
    threads : int, optional
        CPU threads, all usable cores by default.

    Raises
    ------
    EncoderError
        If the model cannot be loaded, lacks an output that the card names, or does not reproduce the
        card's golden values.
    """

    def __init__(
        self, path: Path, card: EncoderCard, device: Device = "auto", threads: int | None = None
    ) -> None:
        self._session, self.device = create_session(path, device, threads)
        super().__init__(path, card)

    def _graph(self) -> tuple[list[str], list[str]]:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        return [i.name for i in inputs], [o.name for o in outputs]

    def _run(self, window: NDArray[np.float32]) -> Sequence[NDArray[Any]]:
        values: Sequence[NDArray[Any]] = self._session.run(self._names, {self.card.input.name: window})
        return values

    def _errors(self) -> tuple[type[Exception], ...]:
        return runtime_errors()
