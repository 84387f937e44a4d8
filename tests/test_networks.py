"""The student is one network: the torch version that distils and the ONNX version that ships give the same logits."""

import numpy as np
import onnxruntime
import pytest
import torch

from edgedd.distillation import networks
from edgedd.exporting.training_graph import prediction_graph
from edgedd.students import default_student, initial_parameters, student

CASES = [
    ("convnet3-w8", (1, 28, 28)),
    ("convnet2-w5", (3, 12, 9)),
    ("convnet3-w4", (3, 32, 32)),
    ("convnet4-w3", (1, 17, 40)),
]


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_torch_equals_onnx(name: str, shape: tuple[int, int, int]) -> None:
    network = student(name, shape, 7)
    generator = np.random.default_rng(0)
    start = initial_parameters(network.parameters(), generator)
    images = generator.normal(size=(3, *shape)).astype(np.float32)
    tensors = [torch.from_numpy(values) for values in start.values()]
    ours = networks.logits(network, tensors, torch.from_numpy(images)).numpy()
    session = onnxruntime.InferenceSession(prediction_graph(network).SerializeToString())
    theirs = session.run(["logits"], {**{f"p.{k}": v for k, v in start.items()}, "images": images})[0]
    assert np.abs(ours - theirs).max() < 1e-4


def test_the_norm_is_torch_instance_norm() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, 5, 7, generator=generator) * 3 + 1
    gain, bias = torch.randn(6, generator=generator), torch.randn(6, generator=generator)
    expected = torch.nn.functional.instance_norm(x, weight=gain, bias=bias, eps=1e-5)
    assert torch.allclose(networks._instance_norm(x, gain, bias), expected, atol=1e-5)


def test_the_field_s_convnet_has_the_published_number_of_weights() -> None:
    """320,010 at width 128 on CIFAR-10, of which 3 x 128 are the convolutions' biases, which we leave out."""
    network = student("convnet3-w128", (3, 32, 32), 10)
    count = sum(int(np.prod(spec.shape)) for spec in network.parameters().values())
    assert count == 320_010 - 3 * 128
    assert network.multiply_adds == pytest.approx(50.7e6, rel=0.01)


@pytest.mark.parametrize(("side", "depth"), [(8, 2), (28, 3), (32, 3), (64, 4), (96, 5)])
def test_default_depth_follows_the_images(side: int, depth: int) -> None:
    assert default_student((3, side, side)) == f"convnet{depth}-w64"
