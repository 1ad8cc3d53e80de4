"""An adapter as ONNX: alone (features in, logits out), or fused with its encoder (window in, logits out)."""

from adapters.export.alone import export_adapter
from adapters.export.file import ADAPTER_KEY, Exported
from adapters.export.fused import export_fused

__all__ = ["ADAPTER_KEY", "Exported", "export_adapter", "export_fused"]
