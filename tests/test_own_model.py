"""Networks from elsewhere: torch modules and ONNX files, trained against torch; and every way they can be refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny_sets import random_set
from torch import nn
from training_problem import CLASSES, Problem, assert_close, distance, open_session

import edgedd
from edgedd.errors import ExportError, SettingError
from edgedd.exporting import export
from edgedd.exporting.own_model import own_model
from edgedd.exporting.training_graph import prediction_graph, training_graph
from edgedd.parameterization import LowRank
from edgedd.recipe import Recipe

SHAPE = (3, 8, 8)
RECIPE = Recipe(student_lr=0.01, steps=50)


pytestmark = pytest.mark.usefixtures("one_torch_thread")


class Mixture(nn.Module):
    """What people export: batch and group norm, GELU, hard swish, squeeze and excitation, a view."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
        self.group = nn.GroupNorm(2, 8)
        self.weigh = nn.Conv2d(8, 8, 1)
        self.layer = nn.LayerNorm(32)
        self.hidden = nn.Linear(32, 12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.hardswish(self.norm(self.stem(x)))
        x = nn.functional.gelu(self.group(self.depthwise(x)))
        x = x * torch.sigmoid(self.weigh(x.mean((2, 3), keepdim=True)))
        x = nn.functional.max_pool2d(x, 2)
        x = self.layer(x.view(x.size(0), -1))
        return self.head(nn.functional.relu6(self.hidden(x)))


def made() -> Mixture:
    torch.manual_seed(0)
    return Mixture()


@pytest.mark.parametrize("mode", ["full", "head", "bias", "last-3"])
def test_a_torch_module_trains_as_in_torch(mode: str) -> None:
    module = made()
    problem = Problem(own_model(module, SHAPE, CLASSES), RECIPE, module)
    batches = [problem.batch(4, 3) for _ in range(20)]
    (got, losses), (wanted, torch_losses) = problem.run_graph(batches, mode), problem.run_torch(batches, mode)
    assert distance(got, wanted) < 1e-4
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-4)


def test_its_weights_are_where_it_starts_and_what_it_predicts_with() -> None:
    module = made().eval()
    network = own_model(module, SHAPE, CLASSES)
    state = {n: v.numpy() for n, v in module.state_dict().items() if "num_batches" not in n}
    assert set(network.parameters) | set(network.buffers) == set(state)
    assert_close(dict(network.weights), state, 1e-7)
    images = np.random.default_rng(0).standard_normal((5, *SHAPE)).astype(np.float32)
    feeds = {f"p.{n}": network.weights[n] for n in network.parameters}
    feeds |= {f"b.{n}": network.weights[n] for n in network.buffers}
    logits = open_session(prediction_graph(network)).run(["logits"], feeds | {"images": images})[0]
    np.testing.assert_allclose(logits, module(torch.tensor(images)).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_file_of_either_exporter(dynamo: bool, tmp_path: Path) -> None:
    """The older one writes opset 13 and folds batch norm into the convolution."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, CLASSES))
    path, example = tmp_path / "net.onnx", (torch.zeros(2, *SHAPE),)
    if dynamo:
        dynamic: dict[str, Any] = {"dynamic_shapes": ({0: torch.export.Dim("b")},)}
        torch.onnx.export(module.eval(), example, path, dynamo=True, verbose=False, **dynamic)
    else:
        names: dict[str, Any] = {
            "input_names": ["x"],
            "output_names": ["y"],
            "dynamic_axes": {"x": {0: "b"}, "y": {0: "b"}},
        }
        with pytest.warns(DeprecationWarning):
            torch.onnx.export(module.eval(), example, path, dynamo=False, opset_version=13, **names)
    network = own_model(path, SHAPE, CLASSES)
    assert network.name == "net.onnx"
    images = np.random.default_rng(0).standard_normal((5, *SHAPE)).astype(np.float32)
    feeds = {f"{'p' if n in network.parameters else 'b'}.{n}": v for n, v in network.weights.items()}
    logits = open_session(prediction_graph(network)).run(["logits"], feeds | {"images": images})[0]
    np.testing.assert_allclose(logits, module(torch.tensor(images)).detach().numpy(), atol=1e-5)
    training_graph(network, LowRank(SHAPE, 4), RECIPE)


def test_a_bundle_of_an_own_model_starts_from_its_weights(tmp_path: Path) -> None:
    module = made().eval()
    synthetic = random_set(LowRank(SHAPE, 4), CLASSES, 3, 0)
    export(synthetic, tmp_path / "bundle", model=module)
    student = edgedd.Student.load(tmp_path / "bundle")
    images = np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32)
    wanted = module(torch.tensor(images)).detach().numpy()
    np.testing.assert_allclose(student.predict(images), wanted, atol=1e-5)
    student.fit(steps=3)
    assert np.abs(student.predict(images) - wanted).max() > 1e-3
    assert student.fit(steps=2).losses[0] == student.fit(seed=0, steps=2).losses[0]


def plain(nodes: list[Any], **changes: Any) -> onnx.ModelProto:
    """A model of one weight from `x` to `y`."""
    weight = numpy_helper.from_array(np.zeros((192, CLASSES), np.float32), "w")
    values = {"x": ("b", *SHAPE), "y": ("b", CLASSES), "kind": TensorProto.FLOAT, "more": [], "opset": 18} | changes
    x = helper.make_tensor_value_info("x", values["kind"], values["x"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, values["y"])
    graph = helper.make_graph(nodes, "plain", [x, *values["more"]], [y], values.get("initializer", [weight]))
    opsets = [helper.make_opsetid("", values["opset"]), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


FLATTEN, PRODUCT = helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])
EXTRA = helper.make_tensor_value_info("extra", TensorProto.FLOAT, [1])
REFUSED: list[tuple[onnx.ModelProto, str]] = [
    (plain([FLATTEN, PRODUCT], x=("b", 3, 9, 9)), r"takes float \?x3x9x9, wanted float images"),
    (plain([FLATTEN, PRODUCT], kind=TensorProto.UINT8), "takes uint8"),
    (plain([FLATTEN, PRODUCT], more=[EXTRA]), "has 2 inputs and 1 outputs, wanted one input"),
    (
        plain(
            [helper.make_node("Reshape", ["x", "s"], ["f"]), PRODUCT],
            initializer=[
                numpy_helper.from_array(np.zeros((192, CLASSES), np.float32), "w"),
                numpy_helper.from_array(np.array([1, 192]), "s"),
            ],
        ),
        "works for 1 images at once only: export it with a dynamic batch",
    ),
    (
        plain(
            [FLATTEN, PRODUCT],
            initializer=[
                numpy_helper.from_array(np.zeros((192, CLASSES + 1), np.float32), "w"),
            ],
            y=("b", CLASSES + 1),
        ),
        f"gives logits .*x{CLASSES + 1}, wanted",
    ),
    (plain([helper.make_node("Flatten", ["x"], ["y"])], y=("b", 192)), "no float32 weights as initializers"),
    (plain([PRODUCT, FLATTEN]), "is no valid ONNX model"),
    (
        plain([FLATTEN, PRODUCT], initializer=[numpy_helper.from_array(np.zeros((99, CLASSES), np.float32), "w")]),
        "does not fit images of",
    ),
    (plain([FLATTEN, helper.make_node("FusedMatMul", ["f", "w"], ["y"], domain="com.microsoft")]), "FusedMatMul"),
]


@pytest.mark.parametrize("model, said", REFUSED, ids=[said[:30] for _, said in REFUSED])
def test_models_that_do_not_fit_are_refused_in_one_line(model: onnx.ModelProto, said: str, tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "net.onnx")
    synthetic = random_set(LowRank(SHAPE, 4), CLASSES, 3, 0)
    with pytest.raises(ExportError, match=said) as caught:
        export(synthetic, tmp_path / "bundle", model=tmp_path / "net.onnx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_an_operator_without_a_rule_is_named_with_those_that_have_one(tmp_path: Path) -> None:
    wave = helper.make_node("Sin", ["f"], ["s"], name="wave")
    model = plain(
        [
            helper.make_node("Mul", ["x", "m"], ["a"]),
            helper.make_node("Flatten", ["a"], ["f"]),
            wave,
            helper.make_node("MatMul", ["s", "w"], ["y"]),
        ],
        initializer=[
            numpy_helper.from_array(np.zeros((192, CLASSES), np.float32), "w"),
            numpy_helper.from_array(np.ones((3, 1, 1), np.float32), "m"),
        ],
    )
    synthetic = random_set(LowRank(SHAPE, 4), CLASSES, 3, 0)
    with pytest.raises(
        ExportError, match=r"no gradient rule for operator Sin \(node .*wave'\), wanted one of Add, Aver"
    ):
        export(synthetic, tmp_path / "bundle", model=model)
    export(synthetic, tmp_path / "bundle", model=model, mode="head")  # the wave lies in front of what is trained


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("a cat")
    for source, said in ((tmp_path / "none.onnx", "cannot read"), (tmp_path / "text.onnx", "no ONNX"), (3, "type int")):
        with pytest.raises(ExportError, match=said):
            own_model(source, SHAPE, CLASSES)
    with pytest.raises(SettingError, match="both a student and a model"):
        export(random_set(LowRank(SHAPE, 4), CLASSES, 3, 0), tmp_path / "b", model=made(), student="mlp")
