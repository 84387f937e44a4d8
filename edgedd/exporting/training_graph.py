"""The two graphs of a bundle: one optimizer step, and prediction. Neither contains weights.

Letters: n stored images, k rows of them and m images from outside make a batch of b = k + m, K classes.
"""

import json
from dataclasses import asdict

import onnx

import edgedd
from edgedd.errors import ExportError, SettingError
from edgedd.exporting.augment import augment
from edgedd.exporting.builder import INT64, GraphBuilder
from edgedd.exporting.decode import decode, factor_inputs
from edgedd.exporting.differentiate import differentiate
from edgedd.exporting.memory import peak_bytes_per_image
from edgedd.exporting.networks import forward, parameter_inputs
from edgedd.parameterization import Parameterization
from edgedd.recipe import Recipe
from edgedd.students import ConvNet

MODES = ("full", "head", "bias")


def trained_names(network: ConvNet, mode: str) -> tuple[str, ...]:
    """Parameters that `mode` trains: all, the last layer, or all biases with the norms' scales."""
    if mode not in MODES:
        raise SettingError(f"unknown mode {mode!r}, wanted one of {', '.join(MODES)}")
    names = network.parameters()
    if mode == "head":
        return tuple(name for name in names if name.startswith("head."))
    return tuple(name for name in names if mode == "full" or name.endswith(".bias") or ".norm." in name)


def training_graph(
    network: ConvNet, parameterization: Parameterization, recipe: Recipe, *, mode: str = "full", student: str = ""
) -> onnx.ModelProto:
    """One step of SGD on soft-label cross-entropy.

    Inputs: `p.<name>`, `momentum.<name>`, `factors.<name>`, `labels` (n, K), `rows` (k,) int64, `images` (m, C, H, W),
    `soft_labels` (m, K), `lr` (), and the arrays of `augment`. Outputs: `next.p.<name>`, `next.momentum.<name>` of
    the trained parameters and `loss` (), the mean over the batch before the step. Raises ExportError when the images
    do not fit the network.
    """
    if parameterization.shape != network.shape:
        wanted, got = ("x".join(map(str, s)) for s in (network.shape, parameterization.shape))
        raise ExportError(f"the set's images are {got}, the student wants {wanted}: export a student for {got}")
    trained = trained_names(network, mode)
    b, specs = GraphBuilder(), network.parameters()
    parameters = parameter_inputs(b, network)
    momentum = {name: b.input(f"momentum.{name}", specs[name].shape) for name in trained}
    images, labels = _batch(b, network, parameterization)
    images = augment(b, recipe.augmentation, network.shape, images)
    loss = _cross_entropy(b, forward(b, network, parameters, images), labels)
    gradients = differentiate(b, loss, [parameters[name] for name in trained])
    outputs = {"loss": list[int]()}
    rate = b.input("lr", ())
    for name in trained:
        parameter = parameters[name]
        moved = _sgd(b, recipe, (parameter, gradients[parameter], momentum[name]), rate, name)
        outputs |= {output: list(specs[name].shape) for output in moved}
    facts = _facts(network, recipe, trained) | {
        "student": student,
        "mode": mode,
        "activation_bytes": peak_bytes_per_image(b),
    }
    return b.model(outputs, {"edgedd": json.dumps(facts, separators=(",", ":"))})


def prediction_graph(network: ConvNet) -> onnx.ModelProto:
    """`p.<name>` and `images` (b, C, H, W), float32 and normalised -> `logits` (b, K)."""
    b = GraphBuilder()
    parameters = parameter_inputs(b, network)
    logits = forward(b, network, parameters, b.input("images", ("b", *network.shape)))
    return b.model({logits: ["b", network.num_classes]})


def _batch(b: GraphBuilder, network: ConvNet, parameterization: Parameterization) -> tuple[str, str]:
    """Rows of the set followed by images from outside, and their soft labels."""
    factors = factor_inputs(b, parameterization)
    stored_labels, rows = b.input("labels", ("n", network.num_classes)), b.input("rows", ("k",), INT64)
    images = b.input("images", ("m", *network.shape))
    soft_labels = b.input("soft_labels", ("m", network.num_classes))
    decoded = decode(b, parameterization, factors, rows)
    chosen = b.node("Gather", stored_labels, rows, axis=0)
    return b.node("Concat", decoded, images, axis=0), b.node("Concat", chosen, soft_labels, axis=0)


def _cross_entropy(b: GraphBuilder, logits: str, labels: str) -> str:
    """Mean over the batch of -sum_K label log softmax(logit)."""
    products = b.node("Mul", b.node("LogSoftmax", logits, axis=1), labels)
    each = b.node("ReduceSum", products, b.integers(1), keepdims=0)
    return b.node("Mul", b.node("ReduceMean", each, keepdims=0), b.constant(-1.0), name="loss")


def _sgd(b: GraphBuilder, recipe: Recipe, values: tuple[str, str, str], rate: str, name: str) -> tuple[str, str]:
    """g += wd p;  buffer = momentum buffer + g;  p -= lr buffer: torch.optim.SGD without dampening."""
    parameter, gradient, buffer = values
    if recipe.weight_decay:
        gradient = b.node("Add", gradient, b.scaled(parameter, recipe.weight_decay))
    kept = b.node("Mul", buffer, b.constant(recipe.momentum))
    buffer = b.node("Add", kept, gradient, name=f"next.momentum.{name}")
    return b.node("Sub", parameter, b.node("Mul", buffer, rate), name=f"next.p.{name}"), buffer


def _facts(network: ConvNet, recipe: Recipe, trained: tuple[str, ...]) -> dict[str, object]:
    """What a device needs to know of the graph; read from the session's metadata."""
    return {
        "edgedd": edgedd.__version__,
        "image_shape": network.shape,
        "classes": network.num_classes,
        "parameters": {name: asdict(spec) for name, spec in network.parameters().items()},
        "trained": trained,
        "augmentation": recipe.augmentation.as_dict(),
    }
