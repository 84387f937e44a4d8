"""A set, outside images and a network, and whole training steps on the same numbers: by the graph and by torch."""

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F

from edgedd.augmentation import Augmentation, Draw, draw
from edgedd.exporting.builder import GraphBuilder
from edgedd.exporting.forward import Forward
from edgedd.exporting.trained import trained_names
from edgedd.exporting.training_graph import training_graph
from edgedd.parameterization import LowRank, Parameterization
from edgedd.parameters import initial_parameters
from edgedd.recipe import Recipe

CLASSES = 5
STRONG = Augmentation(flip=0.5, shift=2, scale=0.2, rotate=15, cutout=0.4, colour=1)
Arrays = dict[str, np.ndarray]


def open_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in every_node(model.graph)} == {""}
    assert model.ir_version <= 9 and [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def every_node(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes of a graph and of the graphs inside its nodes."""
    inner = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return [*graph.node, *(node for part in inner for node in every_node(part))]


def torch_augment(x: torch.Tensor, augmentation: Augmentation, drawn: Draw) -> torch.Tensor:
    affine, cutout, colour = (torch.tensor(array) for array in drawn)
    if augmentation.colour:
        brightness, saturation, contrast = colour.view(-1, 3, 1, 1, 1).unbind(1)
        x = x + brightness
        if x.shape[1] > 1:
            x = (x - x.mean(1, keepdim=True)) * saturation + x.mean(1, keepdim=True)
        x = (x - x.mean((1, 2, 3), keepdim=True)) * contrast + x.mean((1, 2, 3), keepdim=True)
    if augmentation.moves:
        grid = F.affine_grid(affine, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if augmentation.cutout:
        y_side, x_side = ((2 * torch.arange(n) + 1) / n - 1 for n in x.shape[2:])
        in_x = (x_side - cutout[:, :1]).abs() <= cutout[:, 2:3]
        in_y = (y_side - cutout[:, 1:2]).abs() <= cutout[:, 3:]
        x = x.masked_fill((in_y[:, :, None] & in_x[:, None, :])[:, None], 0.0)
    return x


def random_factors(parameterization: Parameterization, count: int, generator: np.random.Generator) -> Arrays:
    shapes = parameterization.factor_shapes(count)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def soft(count: int, generator: np.random.Generator) -> np.ndarray:
    return generator.dirichlet(np.ones(CLASSES), count).astype(np.float32)


def torch_optimizer(recipe: Recipe, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, betas=(recipe.momentum, 0.999), weight_decay=recipe.weight_decay)
    nesterov = recipe.optimizer == "nesterov"
    return torch.optim.SGD(
        parameters, lr=1.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=nesterov
    )


class Problem:
    """`module` is the network in torch, under the same names."""

    def __init__(self, network: Forward, recipe: Recipe, module: torch.nn.Module) -> None:
        self.network, self.recipe, self.module = network, recipe, module
        state = module.state_dict(keep_vars=True)
        self.leaves = {name: state[name] for name in (*network.parameters, *network.buffers)}
        self.parameterization = LowRank(network.shape, 4, 2)
        generator = np.random.default_rng(0)
        self.factors = random_factors(self.parameterization, 10, generator)
        self.labels = soft(10, generator)
        specs = {**network.parameters, **network.buffers}
        self.start = dict(network.weights) or initial_parameters(specs, generator)
        self.generator = generator

    def in_double(self) -> None:
        """Have torch compute in float64: Adam makes of its rounding in float32 as much as 3e-4 of the parameters."""
        state = self.module.double().state_dict(keep_vars=True)
        self.leaves = {name: state[name] for name in self.leaves}

    def batch(self, k: int, m: int) -> Arrays:
        shape = self.network.shape
        drawn = draw(self.recipe.augmentation, k + m, *shape[1:], self.generator)
        return {
            "rows": self.generator.permutation(10)[:k].astype(np.int64),
            "images": self.generator.standard_normal((m, *shape)).astype(np.float32),
            "soft_labels": soft(m, self.generator),
            **{f"augment.{name}": array for name, array in drawn._asdict().items()},
        }

    def run_graph(
        self, batches: list[Arrays], mode: str = "full", micro_batch: int = 100
    ) -> tuple[Arrays, list[float]]:
        session = open_session(training_graph(self.network, self.parameterization, self.recipe, mode=mode))
        shapes = {i.name: i.shape for i in session.get_inputs()}
        state = {f"p.{n}": self.start[n] for n in self.network.parameters}
        state |= {f"b.{n}": self.start[n] for n in self.network.buffers}
        kinds = ("momentum.", "variance.", "sum.")
        state |= {n: np.zeros(shape, np.float32) for n, shape in shapes.items() if n.startswith(kinds)}
        fixed = {f"factors.{n}": v for n, v in self.factors.items()} | {"labels": self.labels}
        losses, outputs = [], [o.name for o in session.get_outputs()]
        for i, batch in enumerate(batches):
            given = {"lr": np.float32(self.recipe.learning_rate(i)), "micro_batch": np.int64(micro_batch)}
            given["batch"] = np.float32(len(batch["rows"]) + len(batch["images"]))
            given = {n: np.asarray(v) for n, v in (given | batch | {"step": np.float32(i + 1)}).items()}
            feeds = state | fixed | {n: v for n, v in given.items() if n in shapes}
            results = dict(zip(outputs, session.run(outputs, feeds), strict=True))
            losses.append(float(results.pop("loss")))
            after = {n.removeprefix("next."): v for n, v in results.items()}
            state |= {n: v for n, v in after.items() if not n.startswith("sum.")}
        return {n[2:]: v for n, v in state.items() if n.startswith(("p.", "b."))}, losses

    def run_torch(self, batches: list[Arrays], mode: str = "full") -> tuple[Arrays, list[float]]:
        """The same steps on the module: batch statistics when everything is trained, running ones otherwise."""
        leaves = self.leaves
        kind = next(iter(leaves.values())).dtype
        for name, leaf in leaves.items():
            leaf.requires_grad_(False)
            leaf.copy_(torch.tensor(self.start[name]))
        b = GraphBuilder()
        values = {n: b.input(n, s.shape) for n, s in {**self.network.parameters, **self.network.buffers}.items()}
        self.network.append(b, values, b.input("images", ("b", *self.network.shape)))
        trained = trained_names(b.nodes, {n: n for n in self.network.parameters}, mode)
        self.module.train(mode == "full")
        optimizer = torch_optimizer(self.recipe, [leaves[name].requires_grad_() for name in trained])
        losses = []
        for i, batch in enumerate(batches):
            optimizer.param_groups[0]["lr"] = self.recipe.learning_rate(i)
            decoded = self.parameterization.decode(self.factors, batch["rows"])
            x = torch.cat([torch.tensor(decoded), torch.tensor(batch["images"])]).to(kind)
            y = torch.cat([torch.tensor(self.labels[batch["rows"]]), torch.tensor(batch["soft_labels"])]).to(kind)
            drawn = Draw(*(batch[f"augment.{name}"] for name in Draw._fields))
            logits = self.module(torch_augment(x, self.recipe.augmentation, drawn))
            loss = -(F.log_softmax(logits, 1) * y).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return {n: leaf.detach().numpy().copy() for n, leaf in leaves.items()}, losses


def distance(got: Arrays, wanted: Arrays) -> float:
    """Relative difference of all parameters and buffers, as one vector."""
    apart, whole = (
        np.concatenate([array.ravel() for array in arrays])
        for arrays in ([got[n] - a for n, a in wanted.items()], list(wanted.values()))
    )
    return float(np.linalg.norm(apart) / np.linalg.norm(whole))


def assert_close(got: Arrays, wanted: Arrays, tolerance: float = 1e-4) -> None:
    for name, array in wanted.items():
        difference = np.linalg.norm(got[name] - array) / max(np.linalg.norm(array), 1e-3)
        assert difference < tolerance, f"{name}: {difference}"
