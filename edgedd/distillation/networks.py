"""Student networks as plain functions of their parameters, so that many networks share one compiled pass."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from edgedd.distillation.compiled_layers import average_pool, convolution_by_constants, instance_norm, two_channels
from edgedd.layers import Layer
from edgedd.parameters import ParameterSpec, initial_parameters
from edgedd.students import Network

POOLS = ("average_pool", "max_pool")
MOST_POSITIONS = 16
Parameters = Sequence[torch.Tensor]


def fresh(network: Network, generator: np.random.Generator, device: torch.device) -> list[torch.Tensor]:
    """New parameters in the order of `network.parameters()`."""
    return started(network.parameters(), generator, device)


def started(
    specs: Mapping[str, ParameterSpec], generator: np.random.Generator, device: torch.device
) -> list[torch.Tensor]:
    """Parameters or buffers as they start, in the order of `specs`."""
    return [torch.tensor(values, device=device) for values in initial_parameters(specs, generator).values()]


def drawn(network: Network, generator: np.random.Generator, device: torch.device) -> list[torch.Tensor]:
    """New parameters from the same distributions, drawn on the device.

    For networks that live for one step: numpy takes 4 ms for a ConvNet of 128 channels, DM's step on a GPU took 12.
    """
    source = torch.Generator(device).manual_seed(int(generator.integers(2**63)))
    constant = {"ones": 1.0, "zeros": 0.0}
    return [
        torch.empty(spec.shape, device=device).uniform_(-spec.bound, spec.bound, generator=source)
        if spec.start == "uniform"
        else torch.full(spec.shape, constant[spec.start], device=device)
        for spec in network.parameters().values()
    ]


def features(
    network: Network,
    parameters: Parameters,
    images: torch.Tensor,
    buffers: Parameters | None = None,
    training: bool = False,
    *,
    constant: bool = False,
    behind: int = 0,
) -> torch.Tensor:
    """Images (b, C, H, W) -> what the last linear layer gets (b, feature_size), float32.

    Batch norms use the statistics of the batch, or `buffers`, in the order of `network.buffers()`, where given;
    `training`: they use the batch's and move the buffers by a tenth towards them, in place, as torch's modules do.
    `constant` promises that no gradients go to the parameters, and those to the images are taken once, which has
    faster code of its own. `behind`: so many layers are passed already; `images` is what the last of them gave, the
    parameters are those that follow.
    """
    own, running = iter(parameters), None if buffers is None else iter(buffers)
    needed_later = {name for layer in network.layers for name in layer.inputs}
    kept: dict[str, torch.Tensor] = {}
    x = images
    for layer in network.layers[behind:-1]:
        inputs = [kept[name] for name in layer.inputs] or [x]
        x = _output(layer, inputs, own, running, training, constant=constant)
        if layer.name in needed_later:
            kept[layer.name] = x
    return x.float()


def derivative_along(
    network: Network,
    parameters: Parameters,
    direction: Parameters,
    views: Sequence[torch.Tensor],
    loss: Callable[[Sequence[torch.Tensor], Parameters], torch.Tensor],
) -> torch.Tensor:
    """Derivative of a loss at the parameters along a direction: one pass with tangents, to be compiled as training is.

    `loss` is told what the first layer, a convolution, gives for each of the views (b, C, H, W), and the parameters
    behind it. The views do not move: passed through that layer together with the direction they would have a tangent of
    zeros, with convolutions of its own there and back.
    """
    first, count = network.layers[0], len(views)
    assert first.kind == "conv"
    at, moving = (
        [_output(first, [view], iter(values), None, False, constant=False) for view in views]
        + list(values[len(first.parameters) :])
        for values in (parameters, direction)
    )

    def moved(*values: torch.Tensor) -> torch.Tensor:
        return loss(values[:count], values[count:])

    derivative: torch.Tensor = torch.func.jvp(moved, tuple(at), tuple(moving))[1]
    return derivative


def blocks(network: Network, parameters: Parameters, images: torch.Tensor) -> list[torch.Tensor]:
    """Images (b, C, H, W) -> what each block of a ConvNet gives, flattened (b, d), float32; the last is `features`.

    A block ends with its pool. Maps with more than MOST_POSITIONS a side, of large images, are averaged down to as
    many. For networks whose layers follow one another, with constant parameters: gradients go to the images alone.
    Those before the last have channels innermost, as they lie in memory.
    """
    own, x, pooled = iter(parameters), images, []
    for layer in network.layers[:-1]:
        x = _output(layer, [x], own, None, False, constant=True)
        if layer.kind in POOLS:
            by = -(-max(x.shape[2:]) // MOST_POSITIONS)
            pooled.append((F.avg_pool2d(x, by) if by > 1 else x).permute(0, 2, 3, 1).flatten(1).float())
    return [*pooled[:-1], x.float()]


def logits(
    network: Network,
    parameters: Parameters,
    images: torch.Tensor,
    buffers: Parameters | None = None,
    training: bool = False,
    *,
    behind: int = 0,
) -> torch.Tensor:
    """Images (b, C, H, W) -> logits (b, K), float32; what is optional as in `features`."""
    seen = features(network, parameters, images, buffers, training, behind=behind)
    return F.linear(seen, parameters[-2], parameters[-1])


def mean_prediction(outputs: Sequence[torch.Tensor], temperature: float) -> torch.Tensor:
    """Logits (n, K) of several networks -> the logarithm (n, K) of their mean softmax at a temperature."""
    predictions = torch.stack([F.log_softmax(values / temperature, dim=1) for values in outputs])
    return torch.logsumexp(predictions, 0) - math.log(len(predictions))


def soft_cross_entropy(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of - sum_k y_k log softmax(outputs)_k; outputs and labels (b, K)."""
    return -(labels * F.log_softmax(outputs, dim=1)).sum(1).mean()


def training_loss(
    network: Network,
    parameters: Parameters,
    images: torch.Tensor,
    labels: torch.Tensor,
    buffers: Parameters | None = None,
    *,
    behind: int = 0,
) -> torch.Tensor:
    """Mean soft cross-entropy of a network on images (b, C, H, W) with soft labels (b, K); moves `buffers`."""
    outputs = logits(network, parameters, images, buffers, True, behind=behind)
    return soft_cross_entropy(outputs, labels)


def _output(
    layer: Layer,
    inputs: list[torch.Tensor],
    parameters: Iterator[torch.Tensor],
    running: Iterator[torch.Tensor] | None,
    training: bool,
    *,
    constant: bool,
) -> torch.Tensor:
    """One layer; takes its parameters and running statistics off the iterators."""
    own, x = [next(parameters) for _ in layer.parameters], inputs[0]
    match layer.kind:
        case "conv":
            x = _conv(layer, x, constant, *own)
        case "batch_norm":
            mean, variance = (None, None) if running is None else (next(running), next(running))
            x = F.batch_norm(x.float(), mean, variance, own[0], own[1], training or running is None)
        case "instance_norm" | "group_norm" | "layer_norm":
            x = _own_norm(layer, x.float(), *own)
        case "relu":
            x = torch.relu(x)
        case "average_pool":
            x = average_pool(x, layer.kernel, layer.stride)
        case "max_pool":
            x = F.max_pool2d(x, layer.kernel, layer.stride)
        case "global_average_pool":
            x = x.mean((2, 3), keepdim=True)
        case "add":
            x = inputs[0] + inputs[1]
        case "flatten":
            x = x.flatten(1)
        case "linear":
            x = F.linear(x, *own)
    return x


def _own_norm(layer: Layer, x: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Norms over parts of each image."""
    if layer.kind == "instance_norm":
        return instance_norm(x, gain, bias)
    if layer.kind == "group_norm":
        return F.group_norm(x, layer.groups, gain, bias)
    return F.layer_norm(x, x.shape[1:], gain, bias)


def _conv(
    layer: Layer, x: torch.Tensor, constant: bool, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Pads that keep the size are the convolution's own; wide or uneven ones, which are slow there, come before it."""
    top, left, bottom, right = layer.pads
    own = layer.kernel // 2
    if set(layer.pads) != {own}:
        x, own = F.pad(x, (left, right, top, bottom)), 0
    if x.shape[1] == 1:
        x, weight = two_channels(x), two_channels(weight)
    if constant and layer.stride == layer.groups == 1:
        return convolution_by_constants(x, weight, bias, own)
    return F.conv2d(x, weight, bias, layer.stride, own, groups=layer.groups)
