"""Passes of a network whose parameters are one vector, as trajectories keep them: gradients, and products along one.

<g, p>, the derivative of a loss along p, costs a forward pass with a tangent; one backward pass through it gives the
Hessian's product H p and the derivatives of <g, p> in images and labels. Compiled functions can be differentiated once
only, and this needs no more than that. Without a contrastive term images do not meet, and batches run in chunks.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from edgedd.distillation import networks
from edgedd.distillation.compute import Compute
from edgedd.distillation.contrastive import Contrast
from edgedd.students import Network

CPU_CHUNK = 32  # images whose activations stay near the cache
GPU_CHUNK = 1024


class Batch(NamedTuple):
    """Views of b images as the network sees them, each (b, C, H, W); soft labels (b, K); classes (b,).

    A second view is there for a contrastive term; the labels are the first one's.
    """

    views: tuple[torch.Tensor, ...]
    labels: torch.Tensor
    classes: torch.Tensor


class Products(NamedTuple):
    """<g, p>, and its derivatives: in the weights (P,), None where not wanted; in the views; in the labels."""

    value: torch.Tensor
    weights: torch.Tensor | None
    views: list[torch.Tensor]
    labels: torch.Tensor


class FlatPasses:
    """Compiled passes, shared by all networks of one shape. The loss is the mean soft cross-entropy, and `contrast`."""

    def __init__(self, network: Network, compute: Compute, contrast: Contrast | None = None) -> None:
        self.network, self.compute = network, compute
        self.contrast = contrast or Contrast()
        self.shapes = [spec.shape for spec in network.parameters().values()]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.chunk = GPU_CHUNK if compute.device.type == "cuda" else CPU_CHUNK
        self._loss = compute.compile(_loss, training=True)
        self._along = compute.compile(_along, training=True)
        self._alike = compute.compile(_alike)

    def parameters(self, weights: torch.Tensor) -> list[torch.Tensor]:
        """Weights (P,) as the network's parameters: views that are leaves of their own."""
        parts = torch.split(weights.detach(), self.sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def gradient(self, weights: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Of the loss, in the weights (P,)."""
        leaves, total = [p.requires_grad_() for p in self.parameters(weights)], torch.zeros_like(weights)
        for part, share in self._chunks(batch):
            with self.compute.autocast():
                loss = self._loss(self.network, self._inner, leaves, part) * share
            self._add(total, torch.autograd.grad(loss, leaves))
        return total

    def along(self, weights: torch.Tensor, direction: torch.Tensor, batch: Batch, exact: bool = True) -> Products:
        """<g, direction> and its derivatives; not those in the weights unless `exact`."""
        fixed = self.parameters(direction)
        value = torch.zeros((), device=weights.device)
        second = torch.zeros_like(weights) if exact else None
        to_views, to_labels = [], []
        for part, share in self._chunks(batch):
            leaves = [p.requires_grad_(exact) for p in self.parameters(weights)]
            views = tuple(view.detach().clone().requires_grad_() for view in part.views)
            labels = part.labels.detach().clone().requires_grad_()
            with self.compute.autocast(), warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch's own, where it first takes a tangent
                product = (
                    self._along(self.network, self._inner, leaves, fixed, Batch(views, labels, part.classes)) * share
                )
            moved = torch.autograd.grad(product, [*views, labels, *(leaves if exact else [])])
            value += product.detach()
            to_views.append(moved[: len(views)])
            to_labels.append(moved[len(views)])
            if second is not None:
                self._add(second, moved[len(views) + 1 :])
        together = [torch.cat(parts) for parts in zip(*to_views, strict=True)]
        return Products(value, second, together, torch.cat(to_labels))

    def contrasted(self, weights: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The contrastive loss of the views, and its derivative in each of them; the weights are constants."""
        views = [view.detach().clone().requires_grad_() for view in batch.views]
        with self.compute.autocast():
            loss = self._alike(self.network, self.contrast, self.parameters(weights), views, batch.classes)
        return loss.detach(), list(torch.autograd.grad(loss, views))

    def _add(self, total: torch.Tensor, found: Sequence[torch.Tensor]) -> None:
        """To `total` (P,), in place, what belongs to each of the network's parameters; channels may lie innermost."""
        for place, values in zip(self.parameters(total), found, strict=True):
            place.add_(values)

    @property
    def _inner(self) -> Contrast | None:
        """The contrastive term of the network's own training, where it has one."""
        return self.contrast if self.contrast.weight else None

    def _chunks(self, batch: Batch) -> Iterator[tuple[Batch, float]]:
        """Parts of nearly equal sizes, few shapes to compile for, each with its share of the batch."""
        count = 1 if self._inner else -(-len(batch.labels) // self.chunk)
        views = zip(*(torch.tensor_split(view, count) for view in self._seen(batch)), strict=True)
        labels, classes = (torch.tensor_split(values, count) for values in (batch.labels, batch.classes))
        for parts in zip(views, labels, classes, strict=True):
            yield Batch(*parts), len(parts[1]) / len(batch.labels)

    def _seen(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """A second view that only a direct contrastive term looks at does not enter the training loss."""
        return batch.views if self._inner else batch.views[:1]


def _loss(
    network: Network,
    contrast: Contrast | None,
    parameters: networks.Parameters,
    batch: Batch,
    behind: int = 0,
) -> torch.Tensor:
    first = networks.features(network, parameters, batch.views[0], behind=behind)
    outputs = torch.nn.functional.linear(first, parameters[-2], parameters[-1])
    loss = networks.soft_cross_entropy(outputs.float(), batch.labels)
    if contrast is None:
        return loss
    second = networks.features(network, parameters, batch.views[1], behind=behind)
    return loss + contrast.weight * contrast.loss(first, second, batch.classes)


def _along(
    network: Network,
    contrast: Contrast | None,
    parameters: networks.Parameters,
    direction: networks.Parameters,
    batch: Batch,
) -> torch.Tensor:
    """Derivative of the loss at `parameters` along a direction."""

    def loss(seen: Sequence[torch.Tensor], behind: networks.Parameters) -> torch.Tensor:
        return _loss(network, contrast, behind, batch._replace(views=tuple(seen)), behind=1)

    return networks.derivative_along(network, parameters, direction, batch.views, loss)


def _alike(
    network: Network,
    contrast: Contrast,
    parameters: networks.Parameters,
    views: list[torch.Tensor],
    classes: torch.Tensor,
) -> torch.Tensor:
    first, second = (networks.features(network, parameters, view, constant=True) for view in views)
    return contrast.loss(first, second, classes)
