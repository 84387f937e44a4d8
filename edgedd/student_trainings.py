"""Trainings of students from a set alone, by the set's recipe or as the papers test a set.

By the set's own recipe the device runtime trains them, or torch: on a GPU, and where it is asked for. By a published
recipe torch does, since the papers draw one family of augmentation a batch, where the training graph applies every
family to every image.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgedd.errors import SettingError
from edgedd.labelled_images import LabelledImages
from edgedd.students import student
from edgedd.synthetic_set import SyntheticSet

RECIPES = ("set", "vico", "vico-digits", "vico-plain")
MAX_EPOCHS = 100_000
OnNext = Callable[[], None]


@dataclass(frozen=True)
class Trainings:
    """How students are trained.

    Attributes:
        recipe: "set", the set's own; "vico", the papers' (see edgedd.distillation.published_evaluation): 1000 epochs
            with DSA; "vico-digits", without its mirror; "vico-plain", 300 epochs without augmentation, as for DC.
        epochs: instead of the recipe's; schedules shorten with it.
        seeds: trainings a student; `seed`, of the first.
        device: "cpu" or "cuda". On cuda torch trains by the set's recipe too, in float32; batch norms take the
            statistics of the shares of a batch that the device runtime takes by default, on one thread.
        torch: it trains by the set's recipe on a processor too, in bfloat16 where that is fast: several times as fast
            there, for students whose accuracy differs by chance alone.

    Raises SettingError for what is none of these.
    """

    recipe: str = "set"
    epochs: int | None = None
    seeds: int = 3
    seed: int = 0
    device: str = "cpu"
    torch: bool = False

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise SettingError(f"unknown recipe {self.recipe!r}, wanted one of {', '.join(RECIPES)}")
        if not 1 <= self.seeds <= 100:
            raise SettingError(f"seeds={self.seeds}, wanted 1 to 100 trainings")
        if self.epochs is not None and not 1 <= self.epochs <= MAX_EPOCHS:
            raise SettingError(f"epochs={self.epochs}, wanted 1 to {MAX_EPOCHS:,}")

    @property
    def runtime(self) -> str:
        """That trains the students."""
        return "onnxruntime" if self.recipe == "set" and self.device == "cpu" and not self.torch else "torch"


def train_students(
    synthetic: SyntheticSet, data: LabelledImages, name: str, how: Trainings, on_next: OnNext
) -> Iterator[tuple[float, float]]:
    """Test accuracy and seconds of each training of the student called `name`.

    `on_next` is called after each training, or after each epoch of a published recipe.
    """
    if how.runtime == "onnxruntime":
        yield from _by_the_set(synthetic, data, name, how, on_next)
        return
    from edgedd.distillation.compute import check_device, within_memory

    check_device(how.device)
    train = _by_the_set_in_torch if how.recipe == "set" else _as_published
    with within_memory():
        yield from train(synthetic, data, name, how, on_next)


def facts(synthetic: SyntheticSet, how: Trainings) -> dict[str, Any]:
    """recipe, epochs, steps of one training, runtime."""
    if how.recipe != "set":
        from edgedd.distillation.published_evaluation import published

        recipe = published(how.recipe, how.epochs)
        steps = recipe.steps(synthetic.count)
        return {"recipe": how.recipe, "epochs": recipe.epochs, "steps": steps, "runtime": how.runtime}
    of_epoch = synthetic.count // min(synthetic.recipe.batch_size, synthetic.count)
    steps = synthetic.recipe.steps if how.epochs is None else how.epochs * of_epoch
    return {"recipe": "set", "epochs": -(-steps // of_epoch), "steps": steps, "runtime": how.runtime}


def _by_the_set(
    synthetic: SyntheticSet, data: LabelledImages, name: str, how: Trainings, on_next: OnNext
) -> Iterator[tuple[float, float]]:
    """Accuracy and seconds of each seed, by the device runtime."""
    from edgedd.device import Student
    from edgedd.exporting import export

    steps = facts(synthetic, how)["steps"]
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        export(synthetic, bundle, student=name)
        trained = Student.load(bundle)
        for seed in range(how.seed, how.seed + how.seeds):
            begun = time.perf_counter()
            trained.fit(seed=seed, steps=steps)
            seconds = time.perf_counter() - begun
            yield trained.evaluate(data.test_images, data.test_labels), seconds
            on_next()


def _by_the_set_in_torch(
    synthetic: SyntheticSet, data: LabelledImages, name: str, how: Trainings, on_next: OnNext
) -> Iterator[tuple[float, float]]:
    """Accuracy and seconds of each seed."""
    from edgedd.distillation.compute import Compute
    from edgedd.distillation.training import Shuffled, Trainer

    network, steps = student(name, data.shape, data.num_classes), facts(synthetic, how)["steps"]
    flops = 6.0 * network.multiply_adds * synthetic.recipe.batch_size * steps * how.seeds
    compute = Compute.for_work(how.device, flops)
    compute = compute if how.torch and how.device == "cpu" else replace(compute, bfloat16=False)
    trainer, recipe = Trainer(network, compute), replace(synthetic.recipe, steps=steps)
    images, labels = (compute.tensor(part(slice(None))) for part in (synthetic.images, synthetic.soft_labels))
    for seed in range(how.seed, how.seed + how.seeds):
        begun, generator = time.perf_counter(), np.random.default_rng(seed)
        parameters = trainer.fit(Shuffled(images, labels, generator), recipe, generator)
        seconds = time.perf_counter() - begun
        mean, std = synthetic.tensors["mean"], synthetic.tensors["std"]
        yield trainer.accuracy(parameters, data.test_images, data.test_labels, mean, std), seconds
        on_next()


def _as_published(
    synthetic: SyntheticSet, data: LabelledImages, name: str, how: Trainings, on_next: OnNext
) -> Iterator[tuple[float, float]]:
    """Accuracy and seconds of each seed, in torch; the first compiles where that pays."""
    from edgedd.distillation.published_evaluation import PublishedEvaluation, published

    network, recipe = student(name, data.shape, data.num_classes), published(how.recipe, how.epochs)
    evaluation = PublishedEvaluation(synthetic, network, recipe, how.device, how.seeds)
    for seed in range(how.seed, how.seed + how.seeds):
        begun = time.perf_counter()
        trained = evaluation.fit(np.random.default_rng(seed), lambda epoch: on_next())
        seconds = time.perf_counter() - begun
        yield evaluation.accuracy(trained, data.test_images, data.test_labels), seconds
