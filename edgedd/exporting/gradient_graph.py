"""Loss and gradients of one micro-batch, as nodes that the training graph repeats.

Letters: u images of the micro-batch, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from edgedd.augmentation import Augmentation
from edgedd.exporting.augment import augment
from edgedd.exporting.batch_statistics import use_batch_statistics
from edgedd.exporting.builder import GraphBuilder
from edgedd.exporting.differentiate import differentiate
from edgedd.exporting.forward import Forward
from edgedd.exporting.trained import trained_names

PREFIX = "u."


@dataclass(frozen=True)
class GradientGraph:
    """Nodes from `u.images` (u, C, H, W), `u.labels` (u, K), `u.share` () and `u.augment.*` to what a step adds up.

    Attributes:
        builder: the nodes; its other inputs are `p.<name>` and the buffers, `u.b.<name>` where they change.
        loss: (), the micro-batch's share of the batch's mean loss: the sum over its images times `u.share`.
        gradients: of each trained parameter, of that loss.
        next_buffers: new value of each buffer that changes.
    """

    builder: GraphBuilder
    loss: str
    gradients: Mapping[str, str]
    next_buffers: Mapping[str, str]

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the trained parameters."""
        return tuple(self.gradients)

    @property
    def augments(self) -> tuple[str, ...]:
        """Names of the augmentation's arrays that it takes: affine, cutout, colour."""
        start = f"{PREFIX}augment."
        return tuple(name.removeprefix(start) for name in self.builder.inputs if name.startswith(start))


def gradient_graph(network: Forward, augmentation: Augmentation, mode: str) -> GradientGraph:
    """Only what `mode` trains is differentiated. Batch statistics are used, and kept, when everything is trained."""
    b = GraphBuilder(PREFIX)
    values = network.declare(b, f"{PREFIX}b." if mode == "full" else "b.")
    parameters, buffers = ({name: values[name] for name in specs} for specs in (network.parameters, network.buffers))
    images = b.input(f"{PREFIX}images", ("u", *network.shape))
    labels, share = b.input(f"{PREFIX}labels", ("u", network.num_classes)), b.input(f"{PREFIX}share", ())
    images = augment(b, augmentation, network.shape, images)
    logits = network.append(b, values, images)
    trained = trained_names(b.nodes, parameters, mode)
    next_buffers = {}
    if mode == "full":
        updated = use_batch_statistics(b)
        next_buffers = {name: updated[value] for name, value in buffers.items() if value in updated}
    loss = _cross_entropy(b, logits, labels, share)
    gradients = differentiate(b, loss, [parameters[name] for name in trained])
    return GradientGraph(b, loss, {name: gradients[parameters[name]] for name in trained}, next_buffers)


def _cross_entropy(b: GraphBuilder, logits: str, labels: str, share: str) -> str:
    """-share sum label log softmax(logit)."""
    products = b.node("Mul", b.node("LogSoftmax", logits, axis=1), labels)
    return b.node("Mul", b.node("ReduceSum", products, keepdims=0), b.node("Neg", share))
