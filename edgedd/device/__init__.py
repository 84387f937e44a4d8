"""Device room: train and predict with numpy, onnxruntime and safetensors alone."""

from edgedd.device.student import Student, TrainResult

__all__ = ["Student", "TrainResult"]
