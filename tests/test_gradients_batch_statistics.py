"""Batch normalisation with the statistics of the batch: the same as torch in train mode."""

import numpy as np
import pytest
import torch
from gradient_cases import assert_close, session_of

from edgedd.errors import ExportError
from edgedd.exporting.batch_statistics import use_batch_statistics
from edgedd.exporting.builder import GraphBuilder
from edgedd.exporting.differentiate import differentiate

PARAMETERS, BUFFERS = ("weight", "bias"), ("running_mean", "running_var")


def graph(shape: tuple[int, ...], **attributes: float) -> tuple[GraphBuilder, dict[str, str], dict[str, str]]:
    """sum of w y for y = norm(x) -> builder, gradients of x and the parameters, next values of the buffers."""
    b = GraphBuilder()
    x, w = b.input("x", ("n", *shape[1:])), b.input("w", ("n", *shape[1:]))
    inputs = [b.input(name, shape[1:2]) for name in (*PARAMETERS, *BUFFERS)]
    b.node("BatchNormalization", x, *inputs, name="y", **attributes)
    b.node("ReduceSum", b.node("Mul", "y", w), keepdims=0, name="loss")
    updated = use_batch_statistics(b)
    return b, differentiate(b, "loss", ["x", *PARAMETERS]), updated


@pytest.mark.parametrize("offset", [0.0, 10.0])
@pytest.mark.parametrize("momentum", [None, 0.75])
@pytest.mark.parametrize("shape", [(5, 4, 3, 6), (7, 4), (3, 4, 9)])
def test_three_steps_equal_torch(shape: tuple[int, ...], momentum: float | None, offset: float) -> None:
    attributes = {"epsilon": 1e-3} | ({} if momentum is None else {"momentum": momentum})
    b, gradients, updated = graph(shape, **attributes)
    outputs = ["y", *gradients.values(), *updated.values()]
    session = session_of(
        b.model({name: [None] * (len(shape) if name in ("y", gradients["x"]) else 1) for name in outputs})
    )
    kind = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[len(shape)]
    norm, generator = kind(4, 1e-3, 0.1 if momentum is None else 1 - momentum), np.random.default_rng(0)
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
    buffers = {name: getattr(norm, name).numpy().copy() for name in BUFFERS}
    for _ in range(3):
        x, w = (generator.standard_normal(shape).astype(np.float32) for _ in range(2))
        x = x * np.float32(2) + np.float32(offset)
        leaf = torch.tensor(x, requires_grad=True)
        norm.zero_grad()
        y = norm(leaf)
        (y * torch.tensor(w)).sum().backward()
        feed = {"x": x, "w": w, "weight": norm.weight.detach().numpy(), "bias": norm.bias.detach().numpy()}
        feed |= buffers
        found = dict(zip(outputs, session.run(outputs, feed), strict=True))
        assert_close(found["y"], y.detach().numpy())
        for name, tensor in (("x", leaf), ("weight", norm.weight), ("bias", norm.bias)):
            assert_close(found[gradients[name]], tensor.grad.numpy())
        buffers = {name: found[updated[name]] for name in BUFFERS}
        for name in BUFFERS:
            assert_close(buffers[name], getattr(norm, name).numpy())


def test_the_output_keeps_its_name_and_the_nodes_their_order() -> None:
    b = GraphBuilder()
    x, c = b.input("x", ("n", 4, 3, 3)), [b.input(name, (4,)) for name in (*PARAMETERS, *BUFFERS)]
    b.node("Relu", b.node("BatchNormalization", b.node("Neg", x), *c, name="norm"), name="end")
    use_batch_statistics(b)
    known = {*b.inputs, *b.constants}
    for node in b.nodes:
        assert known.issuperset(node.input)
        known.update(node.output)
    assert b.nodes[-1].output[0] == "end"
    assert "norm" in b.nodes[-1].input


def test_a_norm_used_twice_moves_its_statistics_twice() -> None:
    b = GraphBuilder()
    x, c = b.input("x", ("n", 4)), [b.input(name, (4,)) for name in (*PARAMETERS, *BUFFERS)]
    b.node("BatchNormalization", b.node("BatchNormalization", x, *c), *c)
    updated = use_batch_statistics(b)
    norm, values = torch.nn.BatchNorm1d(4), np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    feed = {"x": values, "weight": np.full(4, 2, np.float32), "bias": np.ones(4, np.float32)}
    torch.nn.init.constant_(norm.weight, 2)
    torch.nn.init.constant_(norm.bias, 1)
    feed |= {name: getattr(norm, name).numpy().copy() for name in BUFFERS}
    norm(norm(torch.tensor(values)))
    found = session_of(b.model({name: [4] for name in updated.values()})).run(list(updated.values()), feed)
    for name, value in zip(updated, found, strict=True):
        assert_close(value, getattr(norm, name).numpy())


def test_a_single_element_a_channel_has_variance_zero() -> None:
    b, _, updated = graph((1, 4))
    found = session_of(b.model({updated["running_var"]: [4]}))
    ones = np.ones(4, np.float32)
    feed = {i.name: ones if len(i.shape) == 1 else ones[None] for i in found.get_inputs()}
    np.testing.assert_allclose(found.run(None, feed)[0], 0.9)


def test_running_statistics_receive_no_gradient() -> None:
    b = GraphBuilder()
    x, c = b.input("x", ("n", 4, 3, 3)), [b.input(name, (4,)) for name in (*PARAMETERS, *BUFFERS)]
    b.node("ReduceSum", b.node("BatchNormalization", x, *c), keepdims=0, name="loss")
    use_batch_statistics(b)
    with pytest.raises(ExportError, match="does not depend on running_mean"):
        differentiate(b, "loss", ["running_mean"])


def test_large_tensors_are_passed_over_few_times() -> None:
    """Forward: mean, difference, square, mean, norm. Backward: slope g, sum, product with x, sum, norm, sum of both."""
    b, _, _ = graph((5, 4, 3, 6))
    large = {name for name, shape in b.shapes().items() if len(shape) == 4 and shape[2:] == (3, 6)}
    passes = [node for node in b.nodes if large & {*node.input, *node.output} and node.op_type not in ("Size", "Shape")]
    of_the_loss = 4
    assert len(passes) == 5 + 6 + of_the_loss


def test_an_input_of_unknown_rank_is_refused() -> None:
    b = GraphBuilder()
    x = b.node("Reshape", b.input("x", ("n", 4, 3, 3)), b.input("shape", ("r",), kind=7), name="reshaped")
    b.node("BatchNormalization", x, *(b.input(name, (4,)) for name in (*PARAMETERS, *BUFFERS)), name="y")
    with pytest.raises(ExportError, match=r"node 'y' \(BatchNormalization\): the rank of 'reshaped' is unknown"):
        use_batch_statistics(b)
