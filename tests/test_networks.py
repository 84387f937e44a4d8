"""The student is one network: the torch version that distils, the ONNX version that ships and torch's own modules."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch_students import counted_multiply_adds, state, torch_student

from edgedd.distillation import networks
from edgedd.errors import SettingError
from edgedd.exporting.builder import GraphBuilder
from edgedd.exporting.networks import of_student
from edgedd.parameters import ParameterSpec, initial_parameters
from edgedd.students import Network, default_student, student

Shape = tuple[int, int, int]
CLASSES = 7
CASES = [
    ("convnet3-w8", (1, 28, 28)),
    ("convnet2-w5", (3, 12, 9)),
    ("convnet3-w4", (3, 32, 32)),
    ("convnet4-w3", (1, 17, 40)),
    ("resnet8", (3, 32, 32)),
    ("resnet8", (1, 8, 8)),
    ("resnet8", (3, 13, 22)),
    ("mobilenet-tiny", (3, 32, 32)),
    ("mobilenet-tiny", (1, 8, 8)),
    ("mobilenet-tiny", (1, 12, 19)),
    ("mobilenet-tiny", (3, 64, 48)),
    ("mobilenet-tiny", (3, 96, 96)),
    ("mlp", (1, 28, 28)),
    ("mlp", (3, 8, 11)),
    ("convnet3-w8-in", (1, 28, 28)),
    ("convnet2-w8-bn", (3, 12, 9)),
    ("convnet3-w8-gn", (1, 28, 28)),
    ("convnet2-w8-ln", (3, 12, 9)),
    ("convnet3-w8-none", (3, 32, 32)),
]
FAMILIES = ["convnet2-w16", "convnet2-w64-ln", "resnet8", "mobilenet-tiny", "mlp", "alexnet"]


class Three:
    """A student as it is described, as torch's modules say it, and numbers and images for both."""

    def __init__(self, name: str, shape: Shape) -> None:
        self.network = student(name, shape, CLASSES)
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(4, *shape, generator=generator)
        self.module = torch_student(name, shape, CLASSES)
        for key, value in state(self.module).items():
            noise = torch.randn(value.shape, generator=generator)
            gain = 1 / math.sqrt(math.prod(value.shape[1:])) if value.ndim > 1 else 0.2
            value.copy_(gain * noise + (1.0 if value.ndim == 1 and key.endswith(("norm.weight", "_var")) else 0.0))
        values = state(self.module)
        for key in (name for name in values if name.endswith("running_var")):
            values[key].abs_().add_(0.1)
        self.parameters = [values[key] for key in self.network.parameters()]
        self.buffers = [values[key] for key in self.network.buffers()]

    def by_module(self, training: bool = False) -> np.ndarray:
        with torch.no_grad():
            return self.module.train(training)(self.images).numpy()

    def by_onnx(self) -> np.ndarray:
        values = state(self.module)
        session = onnxruntime.InferenceSession(prediction(self.network).SerializeToString())
        feeds = {name: values[name].numpy() for name in values} | {"images": self.images.numpy()}
        return session.run(["logits"], feeds)[0]


def prediction(network: Network) -> onnx.ModelProto:
    forward, b = of_student(network), GraphBuilder()
    values = {name: b.input(name, spec.shape) for name, spec in {**forward.parameters, **forward.buffers}.items()}
    output = forward.append(b, values, b.input("images", ("b", *forward.shape)))
    model = b.model({output: ["b", forward.num_classes]})
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_three_versions_give_the_same_logits(name: str, shape: Shape) -> None:
    three = Three(name, shape)
    wanted = three.by_module()
    ours = networks.logits(three.network, three.parameters, three.images, three.buffers).numpy()
    assert wanted.std() > 1e-2
    np.testing.assert_allclose(ours, wanted, atol=1e-5)
    np.testing.assert_allclose(three.by_onnx(), wanted, atol=1e-5)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_without_buffers_batch_norms_use_the_batch(name: str, shape: Shape) -> None:
    three = Three(name, shape)
    ours = networks.logits(three.network, three.parameters, three.images).numpy()
    wanted, at_rest = three.by_module(training=True), Three(name, shape).by_module()
    np.testing.assert_allclose(ours, wanted, atol=1e-5)
    assert (np.abs(wanted - at_rest).max() > 1e-2) == bool(three.buffers)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_names_shapes_and_size_are_those_of_torch(name: str, shape: Shape) -> None:
    network, module = student(name, shape, CLASSES), torch_student(name, shape, CLASSES)
    specs = network.parameters() | network.buffers()
    assert {key: spec.shape for key, spec in specs.items()} == {k: tuple(v.shape) for k, v in state(module).items()}
    assert list(network.parameters()) == [key for key, _ in module.named_parameters()]
    assert network.multiply_adds == counted_multiply_adds(module, shape)
    images = torch.zeros(2, *shape)
    parameters = networks.fresh(network, np.random.default_rng(0), torch.device("cpu"))
    assert networks.features(network, parameters, images).shape == (2, network.feature_size)


@pytest.mark.parametrize("name", FAMILIES)
def test_fresh_parameters_start_as_torch_s_do(name: str) -> None:
    torch.manual_seed(0)
    network, module = student(name, (3, 32, 32), 100), torch_student(name, (3, 32, 32), 100)
    start = initial_parameters(network.parameters() | network.buffers(), np.random.default_rng(0))
    for key, theirs in state(module).items():
        ours = torch.from_numpy(start[key])
        assert ours.dtype == torch.float32 and ours.abs().max() == pytest.approx(float(theirs.abs().max()), rel=0.3)
        assert ours.std() == pytest.approx(float(theirs.std()), rel=0.3, abs=1e-7), key


def test_parameters_drawn_on_the_device_have_the_same_distributions() -> None:
    network = student("convnet3-w32", (3, 32, 32), CLASSES)
    first, second, other = (
        networks.drawn(network, np.random.default_rng(seed), torch.device("cpu")) for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for (name, spec), values, others in zip(network.parameters().items(), first, other, strict=True):
        assert values.shape == spec.shape and values.dtype == torch.float32
        if spec.start != "uniform":
            assert torch.equal(values, torch.full(spec.shape, float(spec.start == "ones"))), name
            continue
        assert not torch.equal(values, others) and values.abs().max() <= spec.bound
        if values.numel() > 1000:
            assert values.std() == pytest.approx(spec.bound / math.sqrt(3), rel=0.05)
            assert values.mean().abs() < 0.05 * spec.bound


def test_convnet_parameters_are_called_and_drawn_as_in_every_bundle_so_far() -> None:
    network = student("convnet2-w5", (3, 12, 9), CLASSES)
    assert list(network.parameters().items()) == [
        ("block0.conv.weight", ParameterSpec((5, 3, 3, 3), "uniform", 1 / math.sqrt(27))),
        ("block0.norm.weight", ParameterSpec((5,), "ones")),
        ("block0.norm.bias", ParameterSpec((5,), "zeros")),
        ("block1.conv.weight", ParameterSpec((5, 5, 3, 3), "uniform", 1 / math.sqrt(45))),
        ("block1.norm.weight", ParameterSpec((5,), "ones")),
        ("block1.norm.bias", ParameterSpec((5,), "zeros")),
        ("head.weight", ParameterSpec((7, 45), "uniform", 1 / math.sqrt(45))),
        ("head.bias", ParameterSpec((7,), "uniform", 1 / math.sqrt(45))),
    ]
    assert network.layers[0].pads == (1, 2, 1, 3) and network.buffers() == {}


@pytest.mark.parametrize(
    ("name", "count", "multiply_adds"),
    [
        ("convnet3-w128", 320_010 - 3 * 128, 50.7e6),
        ("resnet8", 78_666 - 2 * 240 - 240, 12.5e6),
        ("vgg11-bn", 9_231_114 - 2752, 153e6),
        ("resnet18-bn", 11_173_962, 556e6),
    ],
)
def test_sizes_on_cifar_10_are_the_published_ones(name: str, count: int, multiply_adds: float) -> None:
    """ConvNet: 320,010 with 3 x 128 biases in front of norms. ResNet-8: 78,666 (Keras) with 240 such biases, and 240
    running means and variances; we leave the biases out. VGG-11: 2752 such biases. ResNet-18 as in pytorch-cifar."""
    network = student(name, (3, 32, 32), 10)
    assert sum(math.prod(spec.shape) for spec in network.parameters().values()) == count
    assert network.multiply_adds == pytest.approx(multiply_adds, rel=0.01)


@pytest.mark.parametrize("side", [8, 11, 16, 24, 28, 32, 40, 47, 48, 64, 80, 96])
def test_mobilenet_tiny_is_small_and_ends_in_about_4x4(side: int) -> None:
    network = student("mobilenet-tiny", (3, side, side), 10)
    parameters = networks.fresh(network, np.random.default_rng(0), torch.device("cpu"))
    map_before_pool = Network("", network.shape, 10, (*network.layers[:-3], *network.layers[-2:]))
    assert 3 <= math.sqrt(map_before_pool.feature_size / 256) < 6.5
    assert 100_000 < sum(p.numel() for p in parameters) < 250_000


@pytest.mark.parametrize(("side", "depth"), [(8, 2), (28, 3), (32, 3), (64, 4), (96, 5)])
def test_default_depth_follows_the_images(side: int, depth: int) -> None:
    assert default_student((3, side, side)) == f"convnet{depth}-w64"


@pytest.mark.parametrize(
    "name",
    ["vgg", "resnet18", "mlp-w8", "vgg11-gn", "convnet3-w8-xn", "convnet7-w8", "convnet3-w0", "convnet3-w1025", ""],
)
def test_an_unknown_name_gets_the_families(name: str) -> None:
    wanted = r"convnet<depth>-w<width>\[-in\|-bn\|-gn\|-ln\|-none\] \(such as convnet3-w64\), .* or resnet18-bn$"
    with pytest.raises(SettingError, match=f"^unknown student '{name}', wanted {wanted}"):
        student(name, (3, 32, 32), 10)


@pytest.mark.parametrize(
    ("name", "side", "words"),
    [
        ("convnet4-w8", 15, "convnet4-w8 halves images 4 times, too often for 20x15 pixels"),
        ("vgg11-bn", 15, "vgg11-bn halves images 5 times, too often for 20x15 pixels"),
        ("resnet18-in", 8, "resnet18-in halves images 3 times, too often for 20x8 pixels"),
        ("convnet2-w6-gn", 15, "convnet2-w6-gn: a group norm has 4 groups, wanted a width that is a multiple of 4"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, side: int, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        student(name, (1, 20, side), 10)


def test_training_moves_the_running_statistics_as_torch_does() -> None:
    three = Three("resnet8", (3, 16, 16))
    before = [b.clone() for b in three.buffers]
    ours = [b.clone() for b in three.buffers]
    logits = networks.logits(three.network, three.parameters, three.images, ours, training=True)
    np.testing.assert_allclose(logits.numpy(), three.by_module(training=True), atol=1e-5)
    for mine, theirs, start in zip(ours, three.buffers, before, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(mine, start)
