"""Synthetic set + student -> a bundle that trains on stock onnxruntime."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import edgedd
from edgedd.bundle import PREDICT, PREDICT_INT8, SET, TRAIN_STEP, WEIGHTS, Bundle, refuse_other_folder, write_bundle
from edgedd.errors import ExportError, SettingError, TargetError
from edgedd.exporting.forward import Forward
from edgedd.exporting.networks import of_student
from edgedd.exporting.own_model import own_model
from edgedd.exporting.training_graph import prediction_graph, training_graph
from edgedd.parameterization import MAX_SIDE
from edgedd.students import default_student
from edgedd.students import student as student_named
from edgedd.synthetic_set import SyntheticSet
from edgedd.target import Target, load_target
from edgedd.weights import load_weights, weights_bytes

MAX_GRAPH_BYTES = 150_000
MAX_LARGE_GRAPH_BYTES = 1_000_000  # for no board: the training graph of ResNet-18 has up to 190 kB


def export(
    synthetic: SyntheticSet,
    out: str | os.PathLike[str],
    *,
    student: str | None = None,
    model: Any = None,
    target: str | None = None,
    mode: str = "full",
    weights: str | os.PathLike[str] | None = None,
    quantize: bool = False,
) -> Bundle:
    """Write the bundle folder `out`, whole or not at all; an earlier bundle there is replaced.

    Args:
        synthetic: the set that travels in the bundle; its recipe's optimizer, momentum, weight decay and augmentation
            are baked into the training graph.
        out: a new folder, an empty one, or an earlier bundle.
        student: the network's name; by default the ConvNet of width 64 that suits the image size.
        model: instead of a student, an own network with its weights: a path of an .onnx file, an onnx.ModelProto or a
            torch.nn.Module (see `own_model`).
        target: a board (see `edgedd.targets`), recorded in the manifest with its cores.
        mode: what is trained: "full", "head" (last layer), "bias" (biases and norms) or "last-<k>" (last k layers).
        weights: a file that training wrote, for the same network: where training on the device starts.
        quantize: also write an int8 graph for prediction, of `weights`, of the model's own, or else of weights trained
            here on the set; calibrated on the set alone. The bundle then starts from these weights.

    Raises:
        ExportError: the network does not fit the set's images, or has an operator that cannot be differentiated.
        SettingError: an unknown mode or student, or `out` is something else than a bundle.
        TargetError: an unknown board, or one that only infers.
        FormatError: weights of another network.
    """
    if student is not None and model is not None:
        raise SettingError("both a student and a model are given, wanted one of them: leave the student out")
    refuse_other_folder(Path(out))
    board = None if target is None else _training_board(target)
    shape, classes = synthetic.parameterization.shape, len(synthetic.classes)
    network = student_network(student, shape, classes) if model is None else own_model(model, shape, classes)
    start = network.weights if weights is None else load_weights(weights, {**network.parameters, **network.buffers})
    graphs = {
        TRAIN_STEP: training_graph(network, synthetic.parameterization, synthetic.recipe, mode=mode),
        PREDICT: prediction_graph(network),
    }
    contents = {SET: synthetic.to_bytes()} | {
        file: _serialize(file, model, MAX_LARGE_GRAPH_BYTES if board is None else MAX_GRAPH_BYTES)
        for file, model in graphs.items()
    }
    facts = {
        "edgedd": edgedd.__version__,
        "student": network.name,
        "image_shape": list(shape),
        "classes": list(synthetic.classes),
        "mode": mode,
        "target": None if board is None else board.name,
        "threads": None if board is None else board.cores,
    }
    if quantize and not start:
        start = _trained_here(contents, facts)
    if start:
        contents[WEIGHTS] = weights_bytes(start)
    if quantize:
        from edgedd.exporting.int8 import int8_prediction

        contents[PREDICT_INT8] = int8_prediction(graphs[PREDICT], start, synthetic.images(slice(None)))
    return write_bundle(out, contents, facts)


def _training_board(name: str) -> Target:
    """The board; TargetError for one that only infers."""
    board = load_target(name)
    if not board.train:
        raise TargetError(
            f"{board.name} only infers ({board.why_not_train}), wanted a board that trains: see edgedd targets"
        )
    return board


def student_network(name: str | None, shape: tuple[int, int, int], num_classes: int) -> Forward:
    """The student for images of `shape`; SettingError for an unknown name, ExportError when the images do not fit."""
    name = name or default_student(shape)
    student_named(name, (shape[0], MAX_SIDE, MAX_SIDE), num_classes)
    try:
        return of_student(student_named(name, shape, num_classes))
    except SettingError as error:
        raise ExportError(f"{error}: choose a lower depth, such as {default_student(shape)}") from error


def _trained_here(contents: Mapping[str, bytes], facts: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Weights of a student trained on the set by the device's own runtime."""
    from edgedd.device import Student

    with tempfile.TemporaryDirectory() as folder:
        write_bundle(Path(folder) / "bundle", contents, facts)
        student = Student.load(Path(folder) / "bundle")
        student.fit()
        return student.parameters


def _serialize(file: str, model: onnx.ModelProto, most: int) -> bytes:
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    if len(content) > most:
        raise ExportError(f"{file} has {len(content)} bytes, wanted at most {most}: choose fewer layers")
    return content
