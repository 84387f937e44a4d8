"""Device room: train and predict with numpy, onnxruntime and safetensors alone."""

from edgedd.device.rehearsal import Rehearsal, RehearsalResult
from edgedd.device.student import Student, TrainResult

__all__ = ["Rehearsal", "RehearsalResult", "Student", "TrainResult"]
