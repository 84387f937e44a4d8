"""DC, DSA, DCC and DSAC against the authors' code, and against their formulas differentiated twice."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_distill_contract import CPU, SHAPE, loop
from tiny_data import tiny_images

from edgedd.distillation import networks, siamese
from edgedd.distillation.gradient_matching import DC, DCC, DSA, DSAC, GradientMatching, InnerNetwork
from edgedd.distillation.gradient_passes import GradientPasses, distance
from edgedd.distillation.loop import Length, Loop
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.parameterization import LowRank, Pixels
from edgedd.students import student

GOLDEN = json.loads((Path(__file__).parent / "golden" / "gradient_matching.json").read_text())
Plain = list[torch.Tensor]


def array(seed: int, *shape: int) -> torch.Tensor:
    i = np.arange(int(np.prod(shape)), dtype=np.float64)
    return torch.tensor(np.sin(0.37 * i * (1 + 0.1 * seed) + 0.002 * i * i + seed).reshape(shape), dtype=torch.float32)


def test_the_distance_is_that_of_the_authors_code() -> None:
    shapes = [(4, 3, 3, 3), (4,), (5, 16), (5,)]
    for case in GOLDEN["distance"]:
        ours = [case["scale"] * array(2 * k, *shape) for k, shape in enumerate(shapes)]
        theirs = [case["scale"] * array(2 * k + 1, *shape) for k, shape in enumerate(shapes)]
        ours[0][1], theirs[2][3] = 0, 0
        leaves = [values.requires_grad_() for values in ours]
        found = distance(leaves, theirs)
        found.backward()
        assert np.isclose(float(found.detach()), case["distance"], rtol=1e-6)
        assert leaves[0].grad is not None
        moved = (case["scale"] * leaves[0].grad[0, 0]).flatten().tolist()
        assert np.allclose(moved, case["to_first"], atol=1e-6)


@pytest.mark.parametrize("kind", ["classwise", "contrastive"])
def test_losses_and_their_gradients_are_those_of_the_authors_code(kind: str) -> None:
    network = student("convnet2-w4", (3, 8, 8), 3)
    specs, seeds = network.parameters(), iter(range(20, 30))
    parameters = [
        (0.3 if len(spec.shape) > 1 else 0.1) * array(next(seeds), *spec.shape)
        if spec.start == "uniform"
        else torch.full(spec.shape, float(spec.start == "ones"))
        for spec in specs.values()
    ]
    passes = GradientPasses(network, CPU)
    targets = [passes.gradient(parameters, array(40 + c, 4, 3, 8, 8), hard([c] * 4)) for c in range(3)]
    images = torch.cat([array(50 + c, 2, 3, 8, 8) for c in range(3)]).requires_grad_()
    labels = hard([0, 0, 1, 1, 2, 2])
    if kind == "classwise":
        parts = zip(images.chunk(3), labels.chunk(3), targets, strict=True)
        loss = torch.stack([passes.matched(parameters, *part) for part in parts]).sum()
    else:
        mean = [torch.stack(layer).mean(0) for layer in zip(*targets, strict=True)]
        loss = passes.matched(parameters, images, labels, mean)
    loss.backward()
    assert images.grad is not None
    expected = GOLDEN["losses"][kind]
    assert np.isclose(float(loss.detach()), expected["loss"], rtol=1e-5)
    assert np.isclose(float(images.grad.norm()), expected["norm"], rtol=1e-5)
    assert np.allclose(images.grad[3, 1, 4].numpy(), expected["row"], atol=1e-5)


def hard(classes: list[int], num_classes: int = 3) -> torch.Tensor:
    return F.one_hot(torch.tensor(classes), num_classes).float()


def plain_gradient(
    run: Loop, parameters: Plain, images: torch.Tensor, labels: torch.Tensor, graph: bool = False
) -> Plain:
    outputs = networks.logits(run.state.passes.network, parameters, images)
    loss = -(labels * outputs.log_softmax(1)).sum() / len(images)
    return list(torch.autograd.grad(loss, parameters, create_graph=graph))


def plain_distance(ours: Plain, theirs: Plain) -> torch.Tensor:
    total = torch.zeros(())
    for u, v in zip(ours, theirs, strict=True):
        if u.ndim > 1:
            for row, other in zip(u.flatten(1), v.flatten(1), strict=True):
                total = total + 1 - row @ other / (row.norm() * other.norm() + 1e-6)
    return total


def plain_loss(run: Loop, method: GradientMatching, parameters: Plain, contrastive: bool) -> torch.Tensor:
    """The published loop over classes, differentiated twice; draws what the method draws, in its order."""
    generator, strategy = run.generator, siamese.STRATEGIES[method.strategy]
    draws = [siamese.draw(strategy, generator) for _ in range(2)]
    theirs, ours = [], []
    images, labels = [], []
    for c in range(2):
        real = run.real.normalised(run.real.sample_class(c, method.batch_real, generator))
        real = siamese.apply(real, draws[c])
        theirs.append(plain_gradient(run, parameters, real, hard([c] * len(real), 2)))
        images.append(siamese.apply(run.synthetic.images()[4 * c : 4 * c + 4], draws[c]))
        labels.append(run.synthetic.soft_labels()[4 * c : 4 * c + 4])
        ours.append(plain_gradient(run, parameters, images[c], labels[c], graph=True))
    if not contrastive:
        return plain_distance(ours[0], theirs[0]) + plain_distance(ours[1], theirs[1])
    together = plain_gradient(run, parameters, torch.cat(images), torch.cat(labels), graph=True)
    return plain_distance(together, [(u + v) / 2 for u, v in zip(*theirs, strict=True)])


def plain_training(run: Loop, method: GradientMatching, parameters: Plain, epochs: int) -> Plain:
    """Plain SGD on shuffled batches of the set, under one family a batch with parameters for each image."""
    images, labels = run.synthetic.images().detach(), run.synthetic.soft_labels().detach()
    for _ in range(epochs):
        for rows in torch.from_numpy(run.generator.permutation(8)).split(method.batch_train):
            drawn = siamese.draw(siamese.STRATEGIES[method.strategy], run.generator, count=len(rows))
            gradient = plain_gradient(run, parameters, siamese.apply(images[rows], drawn), labels[rows])
            parameters = [
                (p - method.network_lr * g).detach().requires_grad_() for p, g in zip(parameters, gradient, strict=True)
            ]
    return parameters


@pytest.mark.parametrize("method", [DC, DSA, DCC, DSAC], ids=["dc", "dsa", "dcc", "dsac"])
def test_two_image_steps_are_the_published_loop_differentiated_twice(method: GradientMatching) -> None:
    """Values, and gradients in factors and label logits; between the steps, two epochs of batches of 5 and 3."""
    method = replace(method, width=4, batch_real=9, image_steps=2, epochs=2, batch_train=5, network_lr=0.05)
    run = loop("dc", LowRank(SHAPE, 4, 1, 16))
    run.state = method.init(run.synthetic, run.real, CPU, run.generator)
    run.state.passes.chunk = 3
    start = [p.clone().requires_grad_() for p in run.state.parameters]
    leaves = [*run.synthetic.factors.values(), run.synthetic.label_logits]
    begun = run.generator.bit_generator.state
    found = []
    for _ in range(2):
        loss, run.state = method.loss(run.synthetic, run.real, run.state, run.generator)
        found.append((loss, torch.autograd.grad(loss, leaves)))
    run.generator.bit_generator.state = begun
    for step, (loss, gradients) in enumerate(found):
        parameters = plain_training(run, method, start, epochs=2) if step else start
        expected = plain_loss(run, method, parameters, contrastive=method.summed)
        assert np.isclose(float(loss.detach()), float(expected.detach()), rtol=1e-5)
        for ours, theirs in zip(gradients, torch.autograd.grad(expected, leaves), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_with_one_class_the_two_distances_are_one() -> None:
    """A network of three outputs, data of one class alone."""
    two = RealImages.of(tiny_images(count=24, shape=SHAPE, num_classes=2), CPU)
    real = replace(two, num_classes=1, classwise=two.classwise[:1])
    losses = []
    for method in (DSA, DSAC):
        generator = np.random.default_rng(0)
        images = real.normalised(real.classwise[0][:4]).numpy()
        synthetic = TrainableSet.start(Pixels(SHAPE, 16), images, generator.normal(size=(4, 3)), CPU.device)
        state = InnerNetwork(replace(method, width=4, batch_real=8), synthetic, real, CPU)
        state.passes = GradientPasses(student("convnet2-w4", SHAPE, 3), CPU)
        state.refresh(generator)
        losses.append(float(method.loss(synthetic, real, state, generator)[0].detach()))
    assert losses[0] > 1
    assert np.isclose(losses[0], losses[1], rtol=1e-5)


def lone_loss(method: GradientMatching, change: Callable[[TrainableSet], None]) -> float:
    run = loop("dc", Pixels(SHAPE, 16))
    method = replace(method, width=4, batch_real=8)
    change(run.synthetic)
    generator = np.random.default_rng(5)
    state = method.init(run.synthetic, run.real, CPU, generator)
    return float(method.loss(run.synthetic, run.real, state, generator)[0].detach())


@pytest.mark.parametrize("method", [DSA, DSAC], ids=["dsa", "dsac"])
def test_permuting_images_within_a_class_changes_nothing_and_across_classes_does(method: GradientMatching) -> None:
    def reorder(order: list[int]) -> Callable[[TrainableSet], None]:
        def change(synthetic: TrainableSet) -> None:
            synthetic.factors["images"].data = synthetic.factors["images"].data[order]

        return change

    value = lone_loss(method, reorder(list(range(8))))
    assert np.isclose(lone_loss(method, reorder([2, 0, 3, 1, 5, 4, 7, 6])), value, rtol=1e-4)
    assert not np.isclose(lone_loss(method, reorder([4, 1, 2, 3, 0, 5, 6, 7])), value, rtol=1e-2)


@pytest.mark.parametrize("contrastive", [False, True])
def test_a_set_that_is_the_real_batch_is_at_no_distance_under_the_same_augmentation(contrastive: bool) -> None:
    data = tiny_images(count=12, shape=SHAPE, num_classes=2)
    real = RealImages.of(data, CPU)
    images = real.normalised(np.concatenate(real.classwise)).numpy()
    labels = 50 * np.eye(2)[np.repeat([0, 1], 6)]
    synthetic = TrainableSet.start(Pixels(SHAPE, 16), images, labels, CPU.device)
    method = replace(DSA, summed=contrastive, width=4, batch_real=6)
    generator = np.random.default_rng(0)
    state = method.init(synthetic, real, CPU, generator)
    for _ in range(8):
        assert float(method.loss(synthetic, real, state, generator)[0].detach()) < 0.02


def test_steps_epochs_and_warm_up_are_the_papers() -> None:
    assert [DC.schedule(ipc) for ipc in (1, 10, 50)] == [(1, 1), (10, 50), (50, 10)]
    assert [DSAC.schedule(ipc) for ipc in (1, 10, 50)] == [(10, 5), (10, 50), (50, 10)]
    assert [DC.schedule(ipc) for ipc in (2, 6, 22, 500)] == [(1, 1), (10, 50), (20, 25), (50, 10)]
    assert replace(DCC, image_steps=3).schedule(10) == (3, 50)
    run = loop("dcc", Pixels(SHAPE, 16))
    state = InnerNetwork(replace(DCC, image_steps=50), run.synthetic, run.real, CPU)

    def warm(network: int, step: int, total: int) -> bool:
        state.network, state.step, state.total = network, step, total
        return state.warming_up

    assert warm(249, 9, 50_000)
    assert not warm(249, 10, 50_000)
    assert not warm(250, 0, 50_000)
    assert warm(9, 0, 2000)  # 40 networks
    assert not warm(10, 0, 2000)
    assert not warm(0, 0, 100)


def test_the_loop_goes_through_fresh_networks_and_tells_the_run_its_length() -> None:
    run = loop("dcc", Pixels(SHAPE, 16))
    seen: list[tuple[int, int, bool]] = []
    method: Any = run.method

    class Watched:
        lr, lr_mappers, lr_labels, optimizer = 0.1, 0.0, 0.0, "sgd"

        def loss(self, synthetic: Any, real: Any, state: InnerNetwork, generator: Any) -> Any:
            result = method.loss(synthetic, real, state, generator)
            state.step -= 1
            seen.append((state.network, state.step, state.warming_up))
            state.step += 1
            return result

    run.method = Watched()  # type: ignore[assignment]
    run.run(Length(iterations=12), None, None)
    assert seen == [(k, t, k == 0) for k in range(4) for t in range(3)]


def test_cut_in_the_middle_of_a_network_and_resumed_equals_unbroken() -> None:
    form = LowRank(SHAPE, 4, 1, 4)
    unbroken, cut, resumed = (loop("dsac", form) for _ in range(3))
    unbroken.run(Length(iterations=8), None, None)
    cut.total = 8
    for _ in range(5):
        cut._step(None)
    resumed.load_state_dict(cut.state_dict())
    resumed.run(Length(iterations=8), None, None)
    for name, values in unbroken.synthetic.numpy_factors().items():
        assert np.array_equal(values, resumed.synthetic.numpy_factors()[name])
