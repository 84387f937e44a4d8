"""The student ConvNet as plain functions of its parameters, so that many networks share one compiled pass."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from edgedd.students import ConvNet, initial_parameters

Parameters = Sequence[torch.Tensor]


def fresh(network: ConvNet, generator: np.random.Generator, device: torch.device) -> list[torch.Tensor]:
    """New parameters in the order of `network.parameters()`."""
    start = initial_parameters(network.parameters(), generator)
    return [torch.tensor(values, device=device) for values in start.values()]


def features(network: ConvNet, parameters: Parameters, images: torch.Tensor) -> torch.Tensor:
    """Images (b, C, H, W) -> flattened last feature map (b, feature_size), float32."""
    x = images
    for i in range(network.depth):
        weight, gain, bias = parameters[3 * i : 3 * i + 3]
        if i == 0:
            top, left, bottom, right = network.first_padding
            x = F.conv2d(F.pad(x, (left, right, top, bottom)), weight)
        else:
            x = F.conv2d(x, weight, padding=1)
        x = F.avg_pool2d(torch.relu(_instance_norm(x, gain, bias)), 2)
    return x.flatten(1).float()


def logits(network: ConvNet, parameters: Parameters, images: torch.Tensor) -> torch.Tensor:
    """Images (b, C, H, W) -> logits (b, K), float32."""
    return F.linear(features(network, parameters, images), parameters[-2], parameters[-1])


def soft_cross_entropy(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of - sum_k y_k log softmax(outputs)_k; outputs and labels (b, K)."""
    return -(labels * F.log_softmax(outputs, dim=1)).sum(1).mean()


def _instance_norm(x: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Written out, in float32, so that the compiler fuses it with the ReLU and the pool."""
    x = x.float()
    mean = x.mean((2, 3), keepdim=True)
    variance = (x * x).mean((2, 3), keepdim=True) - mean * mean
    scale = torch.rsqrt(variance.clamp_min(0) + 1e-5) * gain[:, None, None]
    return x * scale + (bias[:, None, None] - mean * scale)
