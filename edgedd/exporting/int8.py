"""Prediction in 8-bit integers, by onnxruntime's static quantiser, calibrated on the synthetic set alone."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

BATCH = 32
QUANTISED = (
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "Add",
    "Relu",
    "Clip",
    "AveragePool",
    "GlobalAveragePool",
    "MaxPool",
)


def int8_prediction(model: onnx.ModelProto, weights: Mapping[str, np.ndarray], images: np.ndarray) -> bytes:
    """The graph `images` (b, C, H, W) -> `logits` (b, K) with `weights` inside, quantised.

    `model` is a prediction graph with its weights as inputs `p.<name>` and `b.<name>`; `images` (n, C, H, W) float32
    set the ranges of activations. Weights are quantised by output channel.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        """The set once, in batches."""

        def __init__(self) -> None:
            self._batches = iter(np.split(images, range(BATCH, len(images), BATCH)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"images": batch}

    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, quantised = (str(Path(folder) / name) for name in ("plain.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(_with_weights(model, weights), plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        settings: dict[str, Any] = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        settings |= {"per_channel": True, "op_types_to_quantize": list(QUANTISED)}
        quantize_static(prepared, quantised, Batches(), quant_format=QuantFormat.QDQ, reduce_range=False, **settings)
        content: bytes = _without_unused_domains(onnx.load(quantised)).SerializeToString()
        return content


def _without_unused_domains(model: onnx.ModelProto) -> onnx.ModelProto:
    """Preparing imports every domain that the runtime here knows, in versions that an older one refuses."""
    used = {"", *(node.domain for node in model.graph.node)}
    imports = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    return model


def _with_weights(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The weights as initializers instead of inputs."""
    baked = onnx.ModelProto()
    baked.CopyFrom(model)
    inputs = [value for value in baked.graph.input if value.name == "images"]
    for value in baked.graph.input:
        if value.name != "images":
            baked.graph.initializer.append(numpy_helper.from_array(weights[value.name[2:]], value.name))
    del baked.graph.input[:]
    baked.graph.input.extend(inputs)
    return baked
