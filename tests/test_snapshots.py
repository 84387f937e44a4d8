"""Matching class means on snapshots of trained networks: the loss written plainly, and the labels of the ensemble."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_data import tiny_images

from edgedd.augmentation import Augmentation
from edgedd.distillation import auto, networks
from edgedd.distillation.compute import Compute
from edgedd.distillation.method_options import method_of
from edgedd.distillation.options import Options
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.recipe_search import Validation
from edgedd.distillation.snapshots import Ensemble, Snapshots
from edgedd.distillation.teacher import Teacher
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.labelled_images import LabelledImages
from edgedd.parameterization import Pixels
from edgedd.recipe import Recipe
from edgedd.students import student

SHAPE = (3, 8, 8)
CPU = Compute(torch.device("cpu"), bfloat16=False, compiled=False)
METHOD = Snapshots(networks=2, train_steps=14, real_per_class=10**6, width=8, augmentation=Augmentation())


@pytest.fixture(scope="module")
def real() -> RealImages:
    return RealImages.of(tiny_images(count=90, shape=SHAPE, num_classes=3), CPU)


def some(real: RealImages, ipc: int = 4) -> TrainableSet:
    rows = real.rows_at_random(ipc, np.random.default_rng(5))
    logits = np.zeros((len(rows), real.num_classes))
    return TrainableSet.start(Pixels(SHAPE, 16), real.normalised(rows).numpy(), logits, CPU.device)


def trained(real: RealImages, method: Snapshots = METHOD) -> Ensemble:
    state = Ensemble(method, real, CPU)
    state.train(real, np.random.default_rng(1))
    return state


def first_block(weights: list[torch.Tensor], images: torch.Tensor) -> np.ndarray:
    """Convolution, instance norm, ReLU and pool of a ConvNet, by torch's own functions."""
    with torch.no_grad():
        x = torch.nn.functional.conv2d(images.detach().double(), weights[0], padding=1)
        x = torch.nn.functional.instance_norm(x, weight=weights[1], bias=weights[2])
        return torch.nn.functional.avg_pool2d(torch.relu(x), 2).flatten(1).numpy()


def test_the_loss_is_the_distance_of_class_means_and_the_regression_error(real: RealImages) -> None:
    """Ridge regression is solved by numpy, and its error taken over all real images."""
    state, synthetic = trained(real), some(real)
    loss, _ = METHOD.loss(synthetic, real, state, np.random.default_rng(0))
    number = int(np.random.default_rng(0).integers(len(state.weights)))

    def features(images: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return networks.features(state.passes.network, state.weights[number], images).double().numpy()

    def distance(ours: np.ndarray, classes: list[np.ndarray]) -> float:
        means = np.stack([some.mean(0) for some in classes])
        return ((ours.reshape(3, 4, -1).mean(1) - means) ** 2).sum() / ((means - means.mean(0)) ** 2).sum()

    weights = [values.double() for values in state.weights[number]]
    first = [first_block(weights, images) for images in (synthetic.images(), *map(real.normalised, real.classwise))]
    ours, classes = features(synthetic.images()), [features(real.normalised(rows)) for rows in real.classwise]
    theirs = np.concatenate(classes)
    means = np.stack([some.mean(0) for some in classes])
    distances = distance(ours, classes) + METHOD.earlier * distance(first[0], first[1:])

    weight = np.concatenate([np.full(len(some), 1 / (3 * len(some))) for some in classes])
    x, z, y = (
        ours - means.mean(0),
        theirs - means.mean(0),
        np.repeat(np.eye(3), list(map(len, classes)), axis=0) - 1 / 3,
    )
    variance = (weight[:, None] * z**2).sum()
    labels = np.repeat(np.eye(3), 4, axis=0) - 1 / 3
    penalty = len(x) * METHOD.ridge * variance / x.shape[1] * np.eye(x.shape[1])
    solved = np.linalg.solve(x.T @ x + penalty, x.T @ labels)
    error = (weight[:, None] * (z @ solved - y) ** 2).sum()
    assert loss.item() == pytest.approx(distances + METHOD.regression * error, rel=1e-4)


def test_a_network_is_kept_at_four_ages_and_the_last_is_what_training_gives(real: RealImages) -> None:
    state, generator = trained(real), np.random.default_rng(1)
    assert len(state.weights) == len(state.moments) == 8
    assert all(not torch.equal(young[0], old[0]) for young, old in pairwise(state.weights))
    last = state.trainer.fit(real.sampler(generator), Recipe(student_lr=0.05, steps=14), generator)
    assert all(torch.equal(p, q) for p, q in zip(last, state.weights[3], strict=True))


def test_a_training_of_fewer_steps_than_ages_keeps_as_many(real: RealImages) -> None:
    assert len(trained(real, replace(METHOD, networks=1, train_steps=2)).weights) == 4


def test_networks_that_are_given_are_not_trained_again(real: RealImages) -> None:
    given, state = trained(real).weights[:4], Ensemble(METHOD, real, CPU)
    state.give(given)
    state.train(real, np.random.default_rng(2))
    assert len(state.weights) == 8
    assert all(torch.equal(ours[0], theirs[0]) for ours, theirs in zip(state.weights, given, strict=False))


def test_labels_are_the_mean_prediction_of_the_last_ages(real: RealImages) -> None:
    state, synthetic = trained(real), some(real)
    state.label(synthetic)
    with torch.no_grad():
        last = [networks.logits(state.passes.network, state.weights[k], synthetic.images()) for k in (3, 7)]
        expected = torch.stack([torch.softmax(values / 1.5, 1) for values in last]).mean(0)
        assert torch.allclose(synthetic.soft_labels(), expected, atol=1e-6)


def test_hard_labels_stay(real: RealImages) -> None:
    method = method_of(Options(method="snapshots", labels="hard", ipc=4))
    assert isinstance(method, Snapshots)
    synthetic = some(real)
    trained(real, replace(METHOD, label_temperature=method.label_temperature)).label(synthetic)
    assert torch.equal(synthetic.soft_labels(), torch.full((12, 3), 1 / 3))


def test_as_many_networks_as_the_minutes_allow() -> None:
    def sized(images: int, **options: Any) -> tuple[int, int]:
        method = auto.sized(Snapshots(), Options(**options), (3, 32, 32), images)
        return method.networks, method.width

    assert [sized(880, minutes=minutes) for minutes in (1, 5, 10, None)] == [(1, 32), (2, 32), (4, 32), (4, 32)]
    assert sized(880, minutes=1, settings={"networks": "4"}) == (4, 32)
    assert sized(880, minutes=5, device="cuda") == sized(880, device="cuda") == (6, 128)


@pytest.mark.parametrize("pace", [2.5e10, 9e10, 5.4e11])
def test_as_wide_networks_as_the_time_allows_at_their_pace(pace: float) -> None:
    """Four networks of 64 and 128 channels: 13.6 and 50.7 million an image, 6 operations each."""
    start: Any = SimpleNamespace(count=880, step=None)
    wanted = {width: total / pace for width, total in ((64, 1.11e14), (128, 4.16e14))}
    timed: list[int] = []

    def width(seconds: float | None, narrow: float = pace, **options: Any) -> int:
        timed.clear()
        found: Any = SimpleNamespace(real=SimpleNamespace(shape=(3, 32, 32)))
        found.pace = lambda channels: timed.append(channels) or (narrow if channels == 32 else pace)
        return int(auto.chosen(Snapshots(), Options(**options), start, found, seconds)["width"])

    assert [width(factor * wanted[64]) for factor in (0.9, 1.1)] == [32, 64]
    assert [width(factor * wanted[128]) for factor in (0.9, 1.1)] == [64, 128]
    assert width(1.1 * wanted[128], narrow=pace / 2) == 128
    assert timed == [32, 128]
    assert width(1.1 * wanted[64], narrow=pace / 3) == 32
    assert timed == [32]  # compiling the others takes longer than what they could gain
    assert (
        width(None) == width(1e9, width=32) == width(1e9, settings={"width": "32"}) == width(1e9, device="cuda") == 32
    )
    assert timed == []


@pytest.mark.parametrize(("pace", "wanted"), [(5e10, [1, 2, 4]), (2e11, [1, 3, 4]), (2e12, [4, 4, 4])])
def test_more_networks_where_they_train_fast(pace: float, wanted: list[int]) -> None:
    """One of 32 channels: 1,400 steps of 128 images of 3.9 million, 4.1e12 operations."""
    found: Any = SimpleNamespace(real=SimpleNamespace(shape=(3, 32, 32), labels=np.zeros(50_000)), most_steps=1400)
    found.pace = lambda channels: pace
    start: Any = SimpleNamespace(count=880, step=None)

    def count(minutes: float, **options: Any) -> int:
        asked = Options(minutes=minutes, width=32, **options)
        method = auto.sized(method_of(replace(asked, method="snapshots")), asked, (3, 32, 32), 880)  # type: ignore[arg-type]
        return int(auto.chosen(method, asked, start, found, 1.0)["networks"])

    assert [count(minutes) for minutes in (1, 5, 10)] == wanted
    assert count(5, settings={"networks": "1"}) == 1


@pytest.mark.parametrize("alike", [True, False])
def test_mirrors_where_the_teacher_knows_mirrored_images(alike: bool) -> None:
    """Classes differ by how bright a side is: the upper one, which a mirror keeps, or the left one."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 60, (200, 1, 8, 8)).astype(np.uint8)
    labels = np.arange(200) % 2
    for image, label in zip(images, labels, strict=True):
        half = image[0, :4] if alike else image[0, :, :4]
        half += np.uint8(120 * label)
    data = LabelledImages(images[:160], labels[:160], images[160:], labels[160:], ("a", "b"), "sides")
    real = RealImages.of(data, CPU)
    teacher = Teacher(real, Options(ipc=1, labels="teacher"), CPU)
    found = auto.augmentation(teacher, Validation(images[160:], labels[160:]))
    assert (found.flip, found.shift) == (0.5 if alike else 0.0, 1)


def test_the_first_blocks_of_large_images_are_averaged_down() -> None:
    network = student("convnet3-w4", (3, 64, 48), 5)
    parameters = networks.fresh(network, np.random.default_rng(0), CPU.device)
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    blocks = networks.blocks(network, parameters, images)
    assert [block.shape for block in blocks] == [(2, 4 * 16 * 12), (2, 4 * 16 * 12), (2, 4 * 8 * 6)]
    assert torch.equal(blocks[-1], networks.features(network, parameters, images))
    whole = first_block([values.double() for values in parameters], images).reshape(2, 4, 32, 24)
    halves = torch.nn.functional.avg_pool2d(torch.from_numpy(whole), 2)
    assert torch.allclose(blocks[0].double(), halves.permute(0, 2, 3, 1).flatten(1), atol=1e-5)
