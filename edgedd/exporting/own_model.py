"""Somebody's own network: an inference model in ONNX with its weights as initializers, or a torch module."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.shape_inference
import onnx.version_converter
from onnx import TensorProto, numpy_helper

from edgedd.errors import ExportError, MissingExtra
from edgedd.exporting.builder import OPSET, GraphBuilder
from edgedd.exporting.folding import fold_constants, settle_reshapes, without_unused
from edgedd.exporting.forward import Forward
from edgedd.exporting.group_normalization import decompose_group_normalization
from edgedd.parameters import ParameterSpec

Shape = tuple[int, int, int]
WEIGHTS = {"Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (0, 1, 2), "MatMul": (0, 1), "Add": (0, 1), "Mul": (0, 1)}
WEIGHTS |= dict.fromkeys(
    ("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"), (1, 2)
)
BUFFERS = {"BatchNormalization": (3, 4)}
PASSES_ON = ("Identity", "Transpose", "Reshape", "Unsqueeze", "Squeeze")


def own_model(source: Any, shape: Shape, num_classes: int) -> Forward:
    """A path of an .onnx file, an onnx.ModelProto, or a torch.nn.Module -> the network for images (C, H, W).

    Its one input takes normalised float32 images (b, C, H, W) and its one output gives logits (b, K). Float weights of
    convolutions, matrix products, norms and added biases can be trained and start as they are in the file. Raises
    ExportError when it cannot be read, has another input or output, fixes the batch size, or leaves the standard
    operators.
    """
    if isinstance(source, str | os.PathLike):
        name, model = Path(source).name, _load(Path(source))
    elif isinstance(source, onnx.ModelProto):
        name, model = source.graph.name or "model.onnx", onnx.ModelProto()
        model.CopyFrom(source)
    else:
        name, model = type(source).__name__, _traced(source, shape)
    model = _standard(name, model)
    image = _check_interface(name, model, shape)
    settle_reshapes(model, image, shape)
    return _forward(name, model.graph, image, shape, num_classes)


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror or error}; wanted an .onnx file") from error
    except Exception as error:
        raise ExportError(f"{path} is no ONNX model ({type(error).__name__}): export it again") from error


def _traced(module: Any, shape: Shape) -> onnx.ModelProto:
    """The module in evaluation mode, by torch's exporter."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("torch", "exporting a torch module", "distill") from error
    if not isinstance(module, torch.nn.Module):
        raise ExportError(f"a model of type {type(module).__name__}, wanted an .onnx file or a torch.nn.Module")
    was_training = module.training
    try:
        example = torch.zeros(2, *shape, device=next((p.device for p in module.parameters()), None))
        batch = torch.export.Dim("batch")
        program: Any = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=({0: batch},),
            optimize=False,
            verbose=False,
        )
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(f"torch cannot export {type(module).__name__} for images of {shape} ({first})") from error
    finally:
        module.train(was_training)
    model: onnx.ModelProto = program.model_proto
    return model


def _standard(name: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """Functions inlined, and the operators of the opset that the training graph uses."""
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise ExportError(f"{name} is no valid ONNX model ({str(error).strip().splitlines()[0]})") from error
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), OPSET)
    if version != OPSET:
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise ExportError(
                f"{name} has opset {version}, which does not convert to {OPSET} ({reason}): export with opset {OPSET}"
            ) from error
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or any(a.HasField("g") for a in node.attribute):
            raise ExportError(
                f"{name}: node {node.name!r} ({node.op_type}) is no plain standard operator: export without"
            )
    return model


def _check_interface(name: str, model: onnx.ModelProto, shape: Shape) -> str:
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        got = f"{len(inputs)} inputs and {len(model.graph.output)} outputs"
        raise ExportError(f"{name} has {got}, wanted one input of images and one output of logits")
    kind = inputs[0].type.tensor_type
    sides = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    fits = len(sides) == 4 and all(side in (None, wanted) for side, wanted in zip(sides[1:], shape, strict=True))
    if kind.elem_type != TensorProto.FLOAT or not fits:
        got = "x".join("?" if side is None else str(side) for side in sides)
        kind_name = TensorProto.DataType.Name(kind.elem_type).lower()
        wanted = "x".join(map(str, shape))
        raise ExportError(f"{name} takes {kind_name} {got}, wanted float images (batch)x{wanted}, as the set has them")
    return str(inputs[0].name)


def _forward(name: str, graph: onnx.GraphProto, image: str, shape: Shape, num_classes: int) -> Forward:
    initializers = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes, stored, constants = fold_constants(list(graph.node), initializers)
    output = str(graph.output[0].name)
    nodes = without_unused(nodes, output)
    weights, buffers = (_used_as(nodes, stored, places) for places in (WEIGHTS, BUFFERS))
    weights = {n: a for n, a in weights.items() if n not in buffers}
    constants |= {n: a for n, a in stored.items() if n not in weights and n not in buffers}
    needed = {name for node in nodes for name in node.input}
    constants = {n: a for n, a in constants.items() if n in needed}

    def append(b: GraphBuilder, values: Mapping[str, str], images: str) -> str:
        names: dict[str, str] = {"": "", image: images, **values}
        names |= {n: b.constant(a, a.dtype) for n, a in constants.items()}
        for node in nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            names |= {n: f"{b.prefix}net.{n}" for n in node.output if n}
            copy.input[:], copy.output[:] = [names[n] for n in node.input], [names[n] for n in node.output]
            copy.name = f"{b.prefix}net.{node.name or node.output[0]}"
            b.nodes.append(copy)
        decompose_group_normalization(b)
        try:
            found = b.shapes().get(names[output])
        except onnx.shape_inference.InferenceError as error:
            reason = str(error).strip().splitlines()[0]
            raise ExportError(f"{name} does not fit images of {shape} ({reason}): export it for them") from error
        _check_logits(name, found, num_classes)
        return names[output]

    specs = [{n: ParameterSpec(a.shape, "given") for n, a in given.items()} for given in (weights, buffers)]
    if not weights:
        raise ExportError(f"{name} has no float32 weights as initializers: export it with its weights inside")
    return Forward(name, shape, num_classes, specs[0], specs[1], append, {**weights, **buffers})


def _used_as(
    nodes: list[onnx.NodeProto], stored: Mapping[str, np.ndarray], places: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Of `stored`, what stands at one of the places, directly or reshaped."""
    stands_for = {name: name for name in stored}
    found = {}
    for node in nodes:
        if node.op_type in PASSES_ON and node.input[0] in stands_for:
            stands_for[node.output[0]] = stands_for[node.input[0]]
        for place in places.get(node.op_type, ()):
            if place < len(node.input) and node.input[place] in stands_for:
                origin = stands_for[node.input[place]]
                found[origin] = stored[origin]
    return found


def _check_logits(name: str, shape: tuple[int | None, ...] | None, num_classes: int) -> None:
    if shape == (None, num_classes):
        return
    if shape and len(shape) == 2 and shape[1] == num_classes:
        raise ExportError(f"{name} works for {shape[0]} images at once only: export it with a dynamic batch")
    got = "of unknown shape" if shape is None else "x".join("?" if side is None else str(side) for side in shape)
    raise ExportError(f"{name} gives logits {got}, wanted (batch)x{num_classes}, one for each class of the set")
