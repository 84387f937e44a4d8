"""Student networks as plain functions of their parameters, so that many networks share one compiled pass."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from edgedd.layers import Layer
from edgedd.students import Network, initial_parameters

Parameters = Sequence[torch.Tensor]


def fresh(network: Network, generator: np.random.Generator, device: torch.device) -> list[torch.Tensor]:
    """New parameters in the order of `network.parameters()`."""
    start = initial_parameters(network.parameters(), generator)
    return [torch.tensor(values, device=device) for values in start.values()]


def features(
    network: Network, parameters: Parameters, images: torch.Tensor, buffers: Parameters | None = None
) -> torch.Tensor:
    """Images (b, C, H, W) -> what the last linear layer gets (b, feature_size), float32.

    Batch norms use the statistics of the batch, or `buffers`, in the order of `network.buffers()`, where given.
    """
    own, running = iter(parameters), None if buffers is None else iter(buffers)
    needed_later = {name for layer in network.layers for name in layer.inputs}
    kept: dict[str, torch.Tensor] = {}
    x = images
    for layer in network.layers[:-1]:
        inputs = [kept[name] for name in layer.inputs] or [x]
        x = _output(layer, inputs, own, running)
        if layer.name in needed_later:
            kept[layer.name] = x
    return x.float()


def logits(
    network: Network, parameters: Parameters, images: torch.Tensor, buffers: Parameters | None = None
) -> torch.Tensor:
    """Images (b, C, H, W) -> logits (b, K), float32; `buffers` as in `features`."""
    return F.linear(features(network, parameters, images, buffers), parameters[-2], parameters[-1])


def soft_cross_entropy(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of - sum_k y_k log softmax(outputs)_k; outputs and labels (b, K)."""
    return -(labels * F.log_softmax(outputs, dim=1)).sum(1).mean()


def _output(
    layer: Layer, inputs: list[torch.Tensor], parameters: Iterator[torch.Tensor], running: Iterator[torch.Tensor] | None
) -> torch.Tensor:
    """One layer; takes its parameters and running statistics off the iterators."""
    own, x = [next(parameters) for _ in layer.parameters], inputs[0]
    match layer.kind:
        case "conv":
            x = _conv(layer, x, *own)
        case "instance_norm":
            x = _instance_norm(x, *own)
        case "batch_norm":
            mean, variance = (None, None) if running is None else (next(running), next(running))
            x = F.batch_norm(x.float(), mean, variance, own[0], own[1], running is None, eps=1e-5)
        case "relu":
            x = torch.relu(x)
        case "average_pool":
            x = F.avg_pool2d(x, layer.kernel, layer.stride)
        case "global_average_pool":
            x = x.mean((2, 3), keepdim=True)
        case "add":
            x = inputs[0] + inputs[1]
        case "flatten":
            x = x.flatten(1)
        case "linear":
            x = F.linear(x, *own)
    return x


def _conv(layer: Layer, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Pads that keep the size are the convolution's own; wide or uneven ones, which are slow there, come before it."""
    top, left, bottom, right = layer.pads
    own = layer.kernel // 2
    if set(layer.pads) != {own}:
        x, own = F.pad(x, (left, right, top, bottom)), 0
    return F.conv2d(x, weight, bias, layer.stride, own, groups=layer.groups)


def _instance_norm(x: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Written out, in float32, so that the compiler fuses it with the ReLU and the pool."""
    x = x.float()
    mean = x.mean((2, 3), keepdim=True)
    variance = (x * x).mean((2, 3), keepdim=True) - mean * mean
    scale = torch.rsqrt(variance.clamp_min(0) + 1e-5) * gain[:, None, None]
    return x * scale + (bias[:, None, None] - mean * scale)
