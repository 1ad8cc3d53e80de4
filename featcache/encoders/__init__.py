"""The encoders that ship with the package, by name."""

from __future__ import annotations

from pathlib import Path

BUILTIN = {
    "builtin": "CT of chest and abdomen, Hounsfield units; its head knows 26 structures",
    "builtin-mr": "the same network for MR: intensities between the 1st and the 99th percentile",
}
"""Name to what it is for."""


def model_path(model: Path | str) -> Path:
    """The ONNX file of a built-in encoder, or `model` itself where it is no such name or a file has it."""
    path = Path(model)
    if str(model) in BUILTIN and not path.exists():
        return Path(__file__).with_name(f"{model}.onnx")
    return path
