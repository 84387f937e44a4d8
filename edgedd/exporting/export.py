"""Synthetic set + student -> a bundle that trains on stock onnxruntime."""

import os

import onnx

import edgedd
from edgedd.bundle import PREDICT, SET, TRAIN_STEP, Bundle, write_bundle
from edgedd.errors import ExportError, SettingError
from edgedd.exporting.training_graph import prediction_graph, training_graph
from edgedd.parameterization import MAX_SIDE
from edgedd.students import ConvNet, default_student
from edgedd.students import student as student_named
from edgedd.synthetic_set import SyntheticSet

MAX_GRAPH_BYTES = 150_000


def export(
    synthetic: SyntheticSet,
    out: str | os.PathLike[str],
    *,
    student: str | None = None,
    target: str | None = None,
    mode: str = "full",
) -> Bundle:
    """Write the bundle folder `out`, whole or not at all; an earlier bundle there is replaced.

    Args:
        synthetic: the set that travels in the bundle; its recipe's momentum, weight decay and augmentation are
            baked into the training graph.
        out: a new folder, an empty one, or an earlier bundle.
        student: the network's name; by default the ConvNet of width 64 that suits the image size.
        target: name of a board (see `edgedd.targets`), recorded in the manifest.
        mode: what is trained: "full", "head" (last layer) or "bias" (biases and the norms' scales).

    Raises:
        ExportError: the student does not fit the set's images.
        SettingError: an unknown mode or student, or `out` is something else than a bundle.
    """
    shape = synthetic.parameterization.shape
    name = student or default_student(shape)
    network = _network(name, shape, len(synthetic.classes))
    graphs = {
        TRAIN_STEP: training_graph(network, synthetic.parameterization, synthetic.recipe, mode=mode, student=name),
        PREDICT: prediction_graph(network),
    }
    contents = {SET: synthetic.to_bytes()} | {file: _serialize(file, model) for file, model in graphs.items()}
    facts = {
        "edgedd": edgedd.__version__,
        "student": name,
        "image_shape": list(shape),
        "classes": list(synthetic.classes),
        "mode": mode,
        "target": target,
    }
    return write_bundle(out, contents, facts)


def _network(name: str, shape: tuple[int, int, int], num_classes: int) -> ConvNet:
    """The student for images of `shape`; SettingError for an unknown name, ExportError when the images do not fit."""
    student_named(name, (shape[0], MAX_SIDE, MAX_SIDE), num_classes)
    try:
        return student_named(name, shape, num_classes)
    except SettingError as error:
        raise ExportError(f"{error}: choose a lower depth, such as {default_student(shape)}") from error


def _serialize(file: str, model: onnx.ModelProto) -> bytes:
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    if len(content) > MAX_GRAPH_BYTES:
        raise ExportError(f"{file} has {len(content)} bytes, wanted at most {MAX_GRAPH_BYTES}: choose fewer layers")
    return content
