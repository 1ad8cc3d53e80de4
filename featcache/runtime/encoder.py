"""One window -> its features: what every runtime checks before and at every window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featcache.card import GOLDEN_VALUES, EncoderCard
from featcache.errors import EncoderError
from featcache.geometry import Triple, feature_size

ComputePrecision = Literal["float32", "bfloat16"]

_BFLOAT16_TOLERANCE = 0.05  # of an output's range: what a golden window may differ by in bfloat16


class WindowEncoder(ABC):
    """A frozen encoder, one window at a time; a subclass knows the library that computes it.

    Parameters
    ----------
    path : Path
        The ONNX file.
    card : EncoderCard
        Its card; every output is checked against it.
    precision : {"float32", "bfloat16"}
        What it computes in.

    Raises
    ------
    EncoderError
        If the model lacks an output that the card names, or does not reproduce the card's golden values.
    """

    device = "cpu"

    def __init__(self, path: Path, card: EncoderCard, precision: ComputePrecision = "float32") -> None:
        self.path, self.card, self.precision = path, card, precision
        self._names = [output.name for output in card.outputs]
        if card.head is not None and card.head.output is not None:
            self._names.append(card.head.output)
        self._check_names(*self._graph())
        self._check_golden()

    @abstractmethod
    def _graph(self) -> tuple[list[str], list[str]]:
        """Return the names of the graph's inputs and outputs."""

    @abstractmethod
    def _run(self, window: NDArray[np.float32]) -> Sequence[NDArray[Any]]:
        """Return the outputs `self._names`, (1, C, x, y, z), of a window (1, 1, X, Y, Z)."""

    @abstractmethod
    def _errors(self) -> tuple[type[Exception], ...]:
        """Return what `_run` may raise."""

    def __call__(self, window: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return every level (and the head's output), (C, x, y, z) float32, of one window (1, X, Y, Z).

        Raises
        ------
        EncoderError
            If the model fails, or yields another rank, size or number of channels than the card says.
        """
        try:
            values = self._run(window[None])
        except self._errors() as error:
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

    def _check_names(self, inputs: list[str], outputs: list[str]) -> None:
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
        tolerance = golden.tolerance
        if self.precision == "bfloat16":
            tolerance = max(tolerance, _BFLOAT16_TOLERANCE)
        found = golden_values(self(golden_input(golden.shape)), list(golden.values))
        for name, expected in golden.values.items():
            reference = np.asarray(expected)
            error = np.abs(np.asarray(found[name]) - reference).max() / max(np.abs(reference).max(), 1e-12)
            if not error <= tolerance:
                raise EncoderError(
                    f"{self.path}: on {self.device}, output {name!r} of the card's golden window differs by "
                    f"{error:.2g} of its range; expected at most {tolerance:g}. The runtime does not "
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
