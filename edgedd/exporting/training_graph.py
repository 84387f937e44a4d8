"""The two graphs of a bundle: one optimizer step, and prediction. Neither contains weights.

Letters: n stored images, k rows of them and m images from outside make a batch of b = k + m, K classes. A step walks
over micro-batches of u images inside the graph, so that activations stay small; their gradients are added up.
"""

import json
from dataclasses import asdict

import onnx

import edgedd
from edgedd.errors import ExportError
from edgedd.exporting.builder import INT64, GraphBuilder
from edgedd.exporting.decode import factor_inputs
from edgedd.exporting.forward import Forward
from edgedd.exporting.gradient_graph import PREFIX, GradientGraph, gradient_graph
from edgedd.exporting.memory import peak_bytes_per_image
from edgedd.exporting.micro_batches import over_micro_batches
from edgedd.exporting.optimizers import OPTIMIZER_STEPS
from edgedd.exporting.work import work_of
from edgedd.parameterization import Parameterization
from edgedd.recipe import Recipe


def training_graph(
    network: Forward, parameterization: Parameterization, recipe: Recipe, *, mode: str = "full"
) -> onnx.ModelProto:
    """One optimizer step on soft-label cross-entropy.

    Inputs: `p.<name>`, buffers `b.<name>`, optimizer state such as `momentum.<name>`, `sum.<name>` of trained
    parameters, `factors.<name>`, `labels` (n, K), `rows` (k,) int64, `images` (m, C, H, W), `soft_labels` (m, K), `lr`
    (), `batch` (), `micro_batch` () int64, `step` () counted from 1 where the optimizer needs it, and the arrays of
    `augment`. Outputs: `next.<input>` of all that changes and `loss` (), before the step.

    A step in one call has `batch` = k + m and sums of zero. A batch may also be shared among several calls, in any
    order or at once: each gives `next.sum.<name>` and its share of the loss for its part of `batch` images, and a last
    call without any images, with the total of the sums, gives the next parameters.

    Raises ExportError when the images do not fit the network, SettingError for a mode that it does not have.
    """
    if parameterization.shape != network.shape:
        wanted, got = ("x".join(map(str, s)) for s in (network.shape, parameterization.shape))
        raise ExportError(f"the set's images are {got}, the student wants {wanted}: export a student for {got}")
    gradient = gradient_graph(network, recipe.augmentation, mode)
    b = GraphBuilder()
    _declare(b, network, gradient)
    summed = over_micro_batches(b, gradient, parameterization, factor_inputs(b, parameterization))
    outputs = {"loss": list[int]()}
    for name in gradient.trained:
        shape = list(network.parameters[name].shape)
        moved = OPTIMIZER_STEPS[recipe.optimizer](b, recipe, name, summed[name], shape)
        outputs |= dict.fromkeys([*moved, summed[name]], shape)
    outputs |= {summed[name]: list(network.buffers[name].shape) for name in gradient.next_buffers}
    work = work_of(gradient.builder, parameterization, [network.parameters[name].shape for name in gradient.trained])
    facts = _facts(network, recipe, mode, gradient) | {"work": work.as_dict()}
    return b.model(outputs, {"edgedd": json.dumps(facts, separators=(",", ":"))})


def prediction_graph(network: Forward) -> onnx.ModelProto:
    """`p.<name>`, `b.<name>` and `images` (b, C, H, W), float32 and normalised -> `logits` (b, K)."""
    b = GraphBuilder()
    values = network.declare(b)
    logits = network.append(b, values, b.input("images", ("b", *network.shape)))
    return b.model(
        {b.node("Identity", logits, name="logits") if logits != "logits" else logits: ["b", network.num_classes]}
    )


def _declare(b: GraphBuilder, network: Forward, gradient: GradientGraph) -> None:
    """The inputs that do not depend on the parameterization or the optimizer."""
    network.declare(b)
    for name in gradient.trained:
        b.input(f"sum.{name}", network.parameters[name].shape)
    for name in gradient.augments:
        b.input(f"augment.{name}", ("b", *gradient.builder.input_shape(f"{PREFIX}augment.{name}")[1:]))
    b.input("labels", ("n", network.num_classes))
    b.input("rows", ("k",), INT64)
    b.input("images", ("m", *network.shape))
    b.input("soft_labels", ("m", network.num_classes))
    for name in ("lr", "batch"):
        b.input(name, ())
    b.input("micro_batch", (), INT64)


def _facts(network: Forward, recipe: Recipe, mode: str, gradient: GradientGraph) -> dict[str, object]:
    """What a device needs to know of the graph; read from the session's metadata."""
    return {
        "edgedd": edgedd.__version__,
        "student": network.name,
        "mode": mode,
        "image_shape": network.shape,
        "classes": network.num_classes,
        "parameters": {name: asdict(spec) for name, spec in network.parameters.items()},
        "buffers": {name: asdict(spec) for name, spec in network.buffers.items()},
        "trained": gradient.trained,
        "augmentation": recipe.augmentation.as_dict(),
        "activation_bytes": peak_bytes_per_image(gradient.builder),
        "batch_statistics": bool(gradient.next_buffers),
    }
