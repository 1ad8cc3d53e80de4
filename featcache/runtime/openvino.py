"""The same ONNX file with OpenVINO: faster on CPUs, above all on those that compute in bfloat16."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.card import EncoderCard
from featcache.errors import EncoderError
from featcache.machine import usable_cores
from featcache.runtime.encoder import ComputePrecision, WindowEncoder

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def _openvino(path: Path) -> Any:
    """Return the package, imported so that it reports to nobody: it tells its makers of every import otherwise."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise EncoderError(
            "--runtime openvino: the package openvino is not installed; install featcache with its extra, "
            "featcache[openvino], or leave --runtime out",
            path=path,
        ) from error
    return openvino


class OpenVinoEncoder(WindowEncoder):
    """An encoder that OpenVINO computes on the CPU.

    Parameters
    ----------
    path : Path
        The ONNX file.
    card : EncoderCard
        Its card; every output is checked against it.
    threads : int, optional
        CPU threads, all usable cores by default.
    precision : {"float32", "bfloat16"}
        bfloat16 needs a CPU that has it.

    Raises
    ------
    EncoderError
        If OpenVINO is not installed, cannot load the model, or the CPU has no bfloat16; if the model lacks an
        output that the card names, or does not reproduce the card's golden values.
    """

    def __init__(
        self,
        path: Path,
        card: EncoderCard,
        threads: int | None = None,
        precision: ComputePrecision = "float32",
    ) -> None:
        core = _openvino(path).Core()
        if precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EncoderError(
                "--compute-precision bfloat16: this CPU has no bfloat16, which would be slower than float32; "
                "expected AVX512-BF16 or AMX. Use --compute-precision float32",
                path=path,
            )
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads or usable_cores(),
        }
        try:
            self._model = core.compile_model(core.read_model(path), "CPU", settings)
        except RuntimeError as error:
            raise EncoderError(f"{path}: OpenVINO cannot load the model: {error}", path=path) from error
        self._request = self._model.create_infer_request()
        super().__init__(path, card, precision)

    def _graph(self) -> tuple[list[str], list[str]]:
        inputs, outputs = self._model.inputs, self._model.outputs
        return [i.get_any_name() for i in inputs], [name for o in outputs for name in o.get_names()]

    def _run(self, window: NDArray[np.float32]) -> Sequence[NDArray[Any]]:
        self._request.infer({self.card.input.name: window})
        return [self._request.get_tensor(name).data.copy() for name in self._names]

    def _errors(self) -> tuple[type[Exception], ...]:
        return RuntimeError, ValueError
