"""Synthetic set + student -> a bundle that trains on stock onnxruntime."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import edgedd
from edgedd.bundles.bundle import Bundle
from edgedd.bundles.card import card
from edgedd.bundles.files import CARD, MOST_STUDENTS, PREDICT, PREDICT_INT8, SET, TARGET, TRAIN_STEP, WEIGHTS, file_of
from edgedd.bundles.signature import read_private_key
from edgedd.bundles.writing import refuse_other, write_bundle
from edgedd.errors import ExportError, SettingError
from edgedd.exporting.forward import Forward
from edgedd.exporting.networks import of_student
from edgedd.exporting.own_model import own_model
from edgedd.exporting.training_facts import facts_of
from edgedd.exporting.training_graph import prediction_graph, training_graph
from edgedd.parameterization import MAX_SIDE
from edgedd.planning.placement import load_of, place
from edgedd.planning.target import Target, training_target
from edgedd.planning.target_file import target_text
from edgedd.storage.set_metadata import MAX_CLASSES
from edgedd.students import default_student
from edgedd.students import student as student_named
from edgedd.synthetic_set import SyntheticSet
from edgedd.weights import load_weights, saved_classes, weights_bytes

MAX_GRAPH_BYTES = 150_000
MAX_LARGE_GRAPH_BYTES = 1_000_000  # for no board: the training graph of ResNet-18 has up to 190 kB
MAX_LICENCE = 500


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
    licence: str | None = None,
    accuracies: Sequence[Mapping[str, Any]] = (),
    sign: str | os.PathLike[str] | None = None,
    spare_classes: int = 0,
) -> Bundle:
    """Write the bundle `out`, whole or not at all; an earlier bundle there is replaced.

    Args:
        synthetic: the set that travels in the bundle; its recipe's optimizer, momentum, weight decay and augmentation
            are baked into the training graph.
        out: a new folder, an empty one, or an earlier bundle; a name that ends in .edgedd.zip makes one file.
        student: the network's name; by default the ConvNet of width 64 that suits the image size. Several names with
            commas between them go into one bundle, and the first is what `Student.load` opens unless told otherwise.
        model: instead of a student, an own network with its weights: a path of an .onnx file, an onnx.ModelProto or a
            torch.nn.Module (see `own_model`).
        target: a board (see `edgedd.targets`), recorded in the manifest with the threads and micro-batch of its plan.
        mode: what is trained: "full", "head" (last layer), "bias" (biases and norms) or "last-<k>" (last k layers).
        weights: a file that training wrote, for the same network: where training on the device starts.
        quantize: also write an int8 graph for prediction, of `weights`, of the model's own, or else of weights trained
            here on the set; calibrated on the set alone. The bundle then starts from these weights.
        licence: under which the bundle may be used, in one line, for its manifest and its card.
        accuracies: rows of `edgedd.evaluate`, for its card.
        sign: a file with the Ed25519 key (PEM) that signs the manifest; needs the extra [sign].
        spare_classes: outputs beyond the set's classes, for classes that the device learns; until then they never win.

    Raises:
        ExportError: the network does not fit the set's images, or has an operator that cannot be differentiated.
        SettingError: an unknown mode or student, or `out` is something else than a bundle.
        TargetError: an unknown board, or one that only infers.
        BudgetError: training does not fit the board's memory.
        FormatError: weights of another network.
        MissingExtra: a signature is wanted and the extra [sign] is not installed.
    """
    if student is not None and model is not None:
        raise SettingError("both a student and a model are given, wanted one of them: leave the student out")
    if spare_classes:
        _refuse_spare(spare_classes, len(synthetic.classes), own=model is not None, quantize=quantize)
    _refuse_early(Path(out), licence, sign)
    first, others = _names(student, own=weights is not None or quantize)
    board = None if target is None else training_target(target)
    shape, classes = synthetic.parameterization.shape, len(synthetic.classes) + spare_classes
    network = student_network(first, shape, classes) if model is None else own_model(model, shape, classes)
    start = network.weights if weights is None else _given_weights(weights, network)
    graphs, placement = _graphs(network, synthetic, mode, board)
    contents, more = {SET: synthetic.to_bytes(), **_serialized(graphs, board)}, {}
    for name in others:
        theirs, more[name] = _graphs(student_network(name, shape, classes), synthetic, mode, board)
        contents |= {file_of(name, file): content for file, content in _serialized(theirs, board).items()}
    facts = {
        "edgedd": edgedd.__version__,
        "student": network.name,
        "image_shape": list(shape),
        "classes": list(synthetic.classes),
        "mode": mode,
        "target": None if board is None else board.name,
        **placement,
        "licence": licence,
    } | ({"more_students": more} if more else {})
    if quantize and not start:
        start = _trained_here(contents, facts)
    if start:
        contents[WEIGHTS] = weights_bytes(start)
    if quantize:
        from edgedd.exporting.int8 import int8_prediction

        contents[PREDICT_INT8] = int8_prediction(graphs[PREDICT], start, synthetic.images(slice(None)))
    if board is not None:
        contents[TARGET] = target_text(board).encode()
    sizes = {name: len(content) for name, content in contents.items()}
    contents[CARD] = card(synthetic, facts, sizes, accuracies).encode()
    return write_bundle(out, contents, facts, sign)


def _refuse_early(out: Path, licence: str | None, sign: str | os.PathLike[str] | None) -> None:
    """What would be refused after the work is refused before it."""
    refuse_other(out)
    if licence is not None and not (licence.strip() and licence.isprintable() and len(licence) <= MAX_LICENCE):
        raise SettingError(f"licence {licence!r}, wanted one line of 1 to {MAX_LICENCE} characters, such as CC-BY-4.0")
    if sign is not None:
        read_private_key(sign)


def _refuse_spare(spare: int, classes: int, *, own: bool, quantize: bool) -> None:
    """Raises SettingError for spare outputs that cannot be."""
    if type(spare) is not int or not 0 <= spare <= MAX_CLASSES - classes:
        raise SettingError(f"spare_classes={spare!r}, wanted a whole number in [0, {MAX_CLASSES - classes}]")
    if own:
        raise SettingError("an own model has the outputs that it has, wanted no spare classes: choose a named student")
    if quantize:
        raise SettingError("an int8 graph learns no classes, wanted no spare ones: leave --quantize or them out")


def _given_weights(path: str | os.PathLike[str], network: Forward) -> dict[str, np.ndarray]:
    """Raises FormatError for weights of another network, SettingError when they know classes that no set is about."""
    weights = load_weights(path, {**network.parameters, **network.buffers}, network.num_classes)
    if saved_classes(path):
        raise SettingError(f"{path} holds classes that were learned on a device, wanted weights of the set's alone")
    return weights


def _names(student: str | None, *, own: bool) -> tuple[str | None, list[str]]:
    """The first student and the further ones; `own` says that something is given that only a single one can have."""
    names = [] if student is None else [name.strip() for name in student.split(",")]
    if len(names) > 1 and own:
        raise SettingError(f"weights and int8 graphs are for one student, got {len(names)}: export them one by one")
    if len(set(names)) < len(names) or len(names) > MOST_STUDENTS:
        raise SettingError(f"students {student}: wanted at most {MOST_STUDENTS}, each once")
    return (names[0] if names else None), names[1:]


def _graphs(
    network: Forward, synthetic: SyntheticSet, mode: str, board: Target | None
) -> tuple[dict[str, onnx.ModelProto], dict[str, int | None]]:
    """A network's graphs by file, and threads and micro-batch that fit the board. Raises BudgetError when none do."""
    graphs = {
        TRAIN_STEP: training_graph(network, synthetic.parameterization, synthetic.recipe, mode=mode),
        PREDICT: prediction_graph(network),
    }
    if board is None:
        return graphs, {"threads": None, "micro_batch": None}
    load = load_of(synthetic.parameterization, synthetic.count, len(synthetic.classes), synthetic.recipe)
    placement = place(facts_of(graphs[TRAIN_STEP]), load, board)
    return graphs, {"threads": placement.threads, "micro_batch": placement.micro_batch}


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


def _serialized(graphs: Mapping[str, onnx.ModelProto], board: Target | None) -> dict[str, bytes]:
    most = MAX_LARGE_GRAPH_BYTES if board is None else MAX_GRAPH_BYTES
    return {file: _serialize(file, model, most) for file, model in graphs.items()}


def _serialize(file: str, model: onnx.ModelProto, most: int) -> bytes:
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    if len(content) > most:
        raise ExportError(f"{file} has {len(content)} bytes, wanted at most {most}: choose fewer layers")
    return content
