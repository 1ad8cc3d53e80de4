"""Which of ONNX Runtime's execution providers really run a model: it lists them whether or not they can."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from featcache.runtime.onnxruntime import runtime_errors

_SILENT = 4  # ONNX Runtime's severity "fatal"
_USUAL = 2


def listed_providers() -> list[str]:
    """Return the providers that the installed ONNX Runtime was built with."""
    return list(ort.get_available_providers())


def provider_fault(name: str) -> str | None:
    """Return why a provider does not run a tiny model, None if it does.

    ONNX Runtime falls back to the CPU in silence, so what the session really uses is compared with what was asked.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    ort.set_default_logger_severity(_SILENT)
    try:
        # What cannot be loaded, and what it falls back to, is printed.
        with contextlib.redirect_stdout(io.StringIO()):
            if name in ("CUDAExecutionProvider", "TensorrtExecutionProvider"):
                ort.preload_dlls()
            session = ort.InferenceSession(_tiny_model(), options, providers=[name])
        used = session.get_providers()
        if used[0] != name:
            return f"asked for {name}, ONNX Runtime uses {', '.join(used)}"
        session.run(None, {"x": np.ones(1, np.float32)})
    except runtime_errors() as error:
        return str(error).splitlines()[0]
    finally:
        ort.set_default_logger_severity(_USUAL)
    return None


def _tiny_model() -> bytes:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "tiny", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
