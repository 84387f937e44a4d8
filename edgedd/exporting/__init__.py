"""Server room: student networks become ONNX graphs that train on stock onnxruntime."""

from edgedd.exporting.export import export

__all__ = ["export"]
