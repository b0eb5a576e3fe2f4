"""From a checkpoint to graphs that read without torch: `export_model`. Needs torch, onnx and onnxruntime."""

from str_app.export.exporting import export_model

__all__ = ["export_model"]
