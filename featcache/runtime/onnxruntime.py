"""An ONNX file -> a function from one window to its features, with ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featcache.card import GOLDEN_VALUES, EncoderCard
from featcache.errors import EncoderError
from featcache.geometry import Triple, feature_size
from featcache.runtime.devices import cuda_device_count, usable_cores

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
        threads = (
            cores  # ONNX Runtime counts the whole machine's; threads that share a core wait for each other
        )
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


class OnnxEncoder:
    """A frozen encoder, one window at a time.

    Parameters
    ----------
    path : Path
        The ONNX file.
    card : EncoderCard
        Its card; every output is checked against it.
    device : {"auto", "cpu", "cuda"}
        "auto" takes a GPU that is there. Asked-for CUDA that is not used is an error.
    threads : int, optional
        CPU threads, all cores by default.

    Raises
    ------
    EncoderError
        If the model cannot be loaded, lacks an output that the card names, or does not reproduce the
        card's golden values.
    """

    def __init__(
        self, path: Path, card: EncoderCard, device: Device = "auto", threads: int | None = None
    ) -> None:
        self.path = path
        self.card = card
        self._session, self.device = create_session(path, device, threads)
        self._names = [output.name for output in card.outputs]
        if card.head is not None and card.head.output is not None:
            self._names.append(card.head.output)
        self._check_names()
        self._check_golden()

    def __call__(self, window: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return every level (and the head's output), (C, x, y, z) float32, of one window (1, X, Y, Z).

        Raises
        ------
        EncoderError
            If the model fails, or yields another rank, size or number of channels than the card says.
        """
        try:
            values = self._session.run(self._names, {self.card.input.name: window[None]})
        except runtime_errors() as error:
            raise EncoderError(
                f"{self.path}: the model failed on a window of {window.shape[1:]} voxels: {error}",
                path=self.path,
            ) from error
        found = dict(zip(self._names, values, strict=True))
        x, y, z = window.shape[1:]
        for output in self.card.outputs:
            size = [feature_size(n, s, output.size) for n, s in zip((x, y, z), output.stride, strict=True)]
            self._check_shape(output.name, found[output.name], (1, output.channels, *size), (x, y, z))
        return {name: np.asarray(value[0], dtype=np.float32) for name, value in found.items()}

    def _check_shape(self, name: str, value: NDArray[Any], expected: tuple[int, ...], window: Triple) -> None:
        if value.shape != expected:
            raise EncoderError(
                f"{self.path}: output {name!r} of a window of {window} voxels has the shape {value.shape}; "
                f"expected {expected} (batch, channels, X, Y, Z) from the card's channels and strides. "
                "Correct the card (`featcache encoder inspect` shows what the graph yields)",
                path=self.path,
            )

    def _check_names(self) -> None:
        outputs = [o.name for o in self._session.get_outputs()]
        inputs = [i.name for i in self._session.get_inputs()]
        missing = [name for name in self._names if name not in outputs]
        if missing or inputs != [self.card.input.name]:
            raise EncoderError(
                f"{self.path}: the card names the input {self.card.input.name!r} and the outputs {self._names}; "
                f"the graph has the inputs {inputs} and the outputs {outputs}. Correct the card",
                path=self.path,
            )

    def _check_golden(self) -> None:
        golden = self.card.golden
        if golden is None:
            return
        found = golden_values(self(golden_input(golden.shape)), list(golden.values))
        for name, expected in golden.values.items():
            reference = np.asarray(expected)
            error = np.abs(np.asarray(found[name]) - reference).max() / max(np.abs(reference).max(), 1e-12)
            if not error <= golden.tolerance:
                raise EncoderError(
                    f"{self.path}: on {self.device}, output {name!r} of the card's golden window differs by "
                    f"{error:.2g} of its range; expected at most {golden.tolerance:g}. The runtime does not "
                    "compute this model rightly, or the card belongs to another file",
                    path=self.path,
                )


def golden_input(shape: Triple) -> NDArray[np.float32]:
    """Return the window, (1, X, Y, Z) in 0..1, on which golden values are taken: a formula, no generator."""
    x, y, z = np.ogrid[: shape[0], : shape[1], : shape[2]]
    ramp = (x * 7 + y * 13 + z * 29 + (x * y * z) % 31) % 97
    window: NDArray[np.float32] = (ramp / 96.0).astype(np.float32)[None]
    return window


def golden_values(features: dict[str, NDArray[np.float32]], names: list[str]) -> dict[str, tuple[float, ...]]:
    """Return 16 values of each named output at evenly spaced flat indices."""
    taken = {}
    for name in names:
        flat = features[name].ravel()
        index = np.linspace(0, flat.size - 1, GOLDEN_VALUES).astype(np.int64)
        taken[name] = tuple(float(v) for v in flat[index])
    return taken
