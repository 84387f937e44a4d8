"""Gradients of a network's weights, their distance, and how that distance moves images: no graph outlives a chunk.

A gradient-matching loss is D(g(s), t), with g(s) the weights' gradient on synthetic images s. Its gradient in the
images is that of <g(s), v> with v = dD/dg held constant, and <g(s), v> is the derivative of the training loss along v:
one forward pass with a tangent, then an ordinary backward pass. Images do not meet in it, so it runs in chunks, while
differentiating twice through g keeps the graph of all images of a class alive.
"""

import warnings
from collections.abc import Iterator, Sequence

import torch

from edgedd.distillation import networks
from edgedd.distillation.compute import Compute
from edgedd.distillation.matching import Passes
from edgedd.students import Network

EPS = 1e-6
CPU_CHUNK = 64
GPU_CHUNK = 1024
Gradient = list[torch.Tensor]


def distance(ours: Gradient, theirs: Gradient) -> torch.Tensor:
    """DC's: sum over layers and output units of 1 - cosine; biases and norms (1-D) do not count.

    Both are in the order of the parameters. The released code adds 1e-6 to the product of the norms.
    """
    total = torch.zeros((), device=ours[0].device)
    for u, v in zip(ours, theirs, strict=True):
        if u.ndim > 1:
            rows, others = u.flatten(1), v.flatten(1)
            norms = torch.linalg.vector_norm(rows, dim=1) * torch.linalg.vector_norm(others, dim=1)
            total = total + (1 - (rows * others).sum(1) / (norms + EPS)).sum()
    return total


class GradientPasses:
    """Compiled passes, shared by all networks of one shape."""

    def __init__(self, network: Network, compute: Compute) -> None:
        self.network, self.compute = network, compute
        self.chunk = GPU_CHUNK if compute.device.type == "cuda" else CPU_CHUNK
        self._loss = compute.compile(networks.training_loss, training=True)
        self._along = compute.compile(_along, training=True)
        self.features = Passes(network, compute).features

    def gradient(self, parameters: networks.Parameters, images: torch.Tensor, labels: torch.Tensor) -> Gradient:
        """Of the mean soft cross-entropy of images (b, C, H, W) with labels (b, K), in the parameters; constant."""
        leaves = [p.detach().requires_grad_() for p in parameters]
        total = [torch.zeros_like(p) for p in parameters]
        for part, own in self._chunks(images, labels):
            with self.compute.autocast():
                loss = self._loss(self.network, leaves, part, own) * (len(part) / len(images))
            torch._foreach_add_(total, torch.autograd.grad(loss, leaves))
        return total

    def matched(
        self, parameters: networks.Parameters, images: torch.Tensor, labels: torch.Tensor, target: Gradient
    ) -> torch.Tensor:
        """The distance of the gradient on images (b, C, H, W) and labels (b, K) to `target`.

        A scalar with a graph: its gradient in the images and the labels is the exact one.
        """
        ours = [g.requires_grad_() for g in self.gradient(parameters, images.detach(), labels.detach())]
        value = distance(ours, target)
        moved = torch.autograd.grad(value, [g for g in ours if g.ndim > 1])
        directions = iter(moved)
        along = [next(directions) if g.ndim > 1 else torch.zeros_like(g) for g in ours]
        to_images, to_labels = self._mixed(parameters, along, images.detach(), labels.detach())
        surrogate = (images * to_images).sum() + (labels * to_labels).sum()
        return value.detach() + (surrogate - surrogate.detach())

    def _mixed(
        self, parameters: networks.Parameters, along: Gradient, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of <g, along> in the images and in the labels."""
        own = [p.detach() for p in parameters]
        to_images: list[torch.Tensor] = []
        to_labels: list[torch.Tensor] = []
        for part, rows in self._chunks(images, labels):
            leaves = (part.clone().requires_grad_(), rows.clone().requires_grad_())
            with self.compute.autocast(), warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch's own, where it first takes a tangent
                product = self._along(self.network, own, along, *leaves) * (len(part) / len(images))
            moved = torch.autograd.grad(product, leaves)
            to_images.append(moved[0])
            to_labels.append(moved[1])
        return torch.cat(to_images), torch.cat(to_labels)

    def _chunks(self, images: torch.Tensor, labels: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Of nearly equal sizes: few shapes to compile for."""
        count = -(-len(images) // self.chunk)
        return zip(torch.tensor_split(images, count), torch.tensor_split(labels, count), strict=True)


def _along(
    network: Network, parameters: Gradient, along: Gradient, images: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Derivative of the loss at `parameters` along a direction."""

    def loss(seen: Sequence[torch.Tensor], behind: networks.Parameters) -> torch.Tensor:
        return networks.training_loss(network, behind, seen[0], labels, behind=1)

    return networks.derivative_along(network, parameters, along, [images], loss)
