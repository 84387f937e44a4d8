"""Layers written for the compiler are the plain ones: same values, same gradients, compiled or not."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgedd.distillation import compiled_layers, networks
from edgedd.distillation.compute import Compute
from edgedd.students import Network, student


def inputs(seed: int, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("sides", [(13, 10), (3, 2)])
def test_instance_norm_is_torch_s(sides: tuple[int, int]) -> None:
    x, gain, bias = inputs(0, (4, 5, *sides), (5,), (5,))
    ours = compiled_layers.instance_norm(3 + 2 * x, gain, bias)
    assert torch.allclose(ours, F.instance_norm(3 + 2 * x, weight=gain, bias=bias), atol=1e-5)


def test_a_constant_map_stays_finite() -> None:
    x = torch.full((1, 1, 8, 8), 3.0, requires_grad=True)
    output = compiled_layers.instance_norm(x, torch.ones(1), torch.full((1,), 0.5))
    (gradient,) = torch.autograd.grad(output.square().sum(), x)
    assert torch.allclose(output, torch.tensor(0.5), atol=1e-3) and bool(gradient.isfinite().all())


def plain(network: Network, parameters: list[torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """What a ConvNet of one block gives to its last layer, in torch's own layers."""
    (weight, gain, bias), (top, left, bottom, right) = parameters[:3], network.layers[0].pads
    convolved = F.conv2d(F.pad(images, (left, right, top, bottom)), weight)
    return F.avg_pool2d(F.relu(F.instance_norm(convolved, weight=gain, bias=bias)), 2).flatten(1)


@pytest.mark.parametrize("shape", [(1, 9, 8), pytest.param((3, 12, 8), marks=pytest.mark.slow)])
def test_compiled_features_and_their_gradients_are_those_of_torch_s_layers(shape: tuple[int, int, int]) -> None:
    network = student("convnet1-w6", shape, 4)
    assert (set(network.layers[0].pads) == {1}) == (shape[1] == 12)
    compiled = Compute(torch.device("cpu"), bfloat16=False, compiled=True).compile(networks.features)
    parameters = networks.fresh(network, np.random.default_rng(0), torch.device("cpu"))
    start, direction = inputs(1, (5, *shape), (5, network.feature_size))
    gradients = []
    for features in (
        lambda x: compiled(network, parameters, x, constant=True),
        lambda x: plain(network, parameters, x),
    ):
        images = start.clone().requires_grad_()
        output = features(images)
        gradients.append((output.detach(), *torch.autograd.grad((output * direction).sum(), images)))
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs.std() > 1e-3
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_compiled_pool_leaves_out_what_is_left_over() -> None:
    (x,) = inputs(2, (2, 3, 13, 10))
    compiled = Compute(torch.device("cpu"), bfloat16=False, compiled=True).compile(compiled_layers.average_pool)
    for kernel in (2, 3):
        assert torch.allclose(compiled(x, kernel, kernel), F.avg_pool2d(x, kernel), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_innermost_keeps_values_and_leads_the_maps(channels: int) -> None:
    weight, gain = torch.randn(4, channels, 3, 3), torch.ones(4)
    images = torch.randn(2, channels, 8, 8)
    inner, same = compiled_layers.channels_innermost([weight, gain])
    assert same is gain
    assert torch.equal(inner, weight)
    maps = F.conv2d(images, inner, padding=1)
    assert maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
    torch.testing.assert_close(maps, F.conv2d(images, weight, padding=1))
