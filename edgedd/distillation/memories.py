"""What a learner keeps of classes that it was shown: synthetic images, or real ones that were chosen, in equal bytes.

Each memory is made from one step's training images alone; see edgedd.continual.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from edgedd.augmentation import Augmentation
from edgedd.distillation import compact_budget, networks
from edgedd.distillation.compute import Compute
from edgedd.distillation.loop import Length, Loop
from edgedd.distillation.methods import method_named
from edgedd.distillation.rate import Rate
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.selection import herd, nearest_to_centres
from edgedd.distillation.teacher import HARD_LOGIT
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.distillation.training import Trainer
from edgedd.labelled_images import LabelledImages
from edgedd.parameterization import Parameterization, Pixels
from edgedd.planning import planner
from edgedd.recipe import Recipe
from edgedd.students import default_student, student
from edgedd.synthetic_set import SyntheticSet

TEMPERATURE = 2.0  # of the labels that synthetic images start from
GUIDE_WIDTH, GUIDE = 16, Recipe(student_lr=0.05, steps=75, augmentation=Augmentation(shift=2))


@dataclass(frozen=True)
class Keeping:
    """How images are kept.

    Attributes:
        form: of synthetic images, and of random real ones that are stored like them.
        bytes: of each step's file at most.
        recipe: by which a student is trained from a memory; distillation takes its augmentation.
        method, iterations, width: that distils; width None: the method's own.
    """

    form: Parameterization
    bytes: int
    recipe: Recipe
    method: str = "dm"
    iterations: int = 60
    width: int | None = 32

    def ipc(self, form: Parameterization, classes: tuple[str, ...]) -> int:
        """The most images per class in `form` that fit into the bytes with these names."""
        return planner.storage(form, classes, {}, budget_bytes=self.bytes, recipe=self.recipe).ipc


class Task:
    """One step's classes: its training images, and a narrow network trained on them that guides the choice of some.

    Pixels are normalised by `mean` and `std` (C,), which need not be those of these images. `names` are those of as
    many classes as these that take most bytes: every step then stores as many images.
    """

    def __init__(
        self, data: LabelledImages, mean: np.ndarray, std: np.ndarray, *, names: tuple[str, ...], seed: int
    ) -> None:
        self.data, self.mean, self.std, self.names, self.seed = data, mean, std, names, seed
        self.compute = Compute.choose("cpu", compiled=False)
        self.real = replace(RealImages.of(data, self.compute), mean=mean, std=std)

    def generator(self, purpose: int) -> np.random.Generator:
        """Of the seed: equal seeds and purposes give equal draws."""
        return np.random.default_rng([self.seed, purpose])

    @cached_property
    def guide(self) -> tuple[Trainer, list[torch.Tensor]]:
        """A trained ConvNet, for features and for the labels that synthetic images start from."""
        shape, num_classes, generator = self.data.shape, self.data.num_classes, self.generator(0)
        trainer = Trainer(student(default_student(shape, GUIDE_WIDTH), shape, num_classes), self.compute)
        return trainer, trainer.fit(self.real.sampler(generator), GUIDE, generator)

    @cached_property
    def features(self) -> np.ndarray:
        """Of every training image by the guide (N, d)."""
        trainer, parameters = self.guide
        with torch.no_grad():
            parts = [
                networks.features(trainer.network, parameters, self.real.normalised(rows))
                for rows in np.array_split(np.arange(len(self.real.labels)), 1 + len(self.real.labels) // 250)
            ]
        return torch.cat(parts).float().cpu().numpy()

    def at_random(self, ipc: int) -> np.ndarray:
        """Rows (K ipc,) in class-major order."""
        return self.real.rows_at_random(ipc, self.generator(1))

    def herded(self, ipc: int) -> np.ndarray:
        """Rows in class-major order, as many a class as there are up to ipc, by herding (Welling 2009)."""
        return np.concatenate([r[herd(self.features[r], min(ipc, len(r)))] for r in self.real.classwise])

    def nearest_to_centres(self, ipc: int) -> np.ndarray:
        """Rows (K ipc,) in class-major order, the nearest to the centres of k-means on the guide's features."""
        if min(map(len, self.real.classwise)) < ipc:
            return self.at_random(ipc)
        chosen = [r[nearest_to_centres(self.features[r], ipc, self.generator(3))] for r in self.real.classwise]
        return np.concatenate(chosen)

    def started(self, keeping: Keeping, rows: np.ndarray, *, guessed: bool = False) -> TrainableSet:
        """The training images `rows` (n,), in class-major order, in the form and the bytes.

        Labels are hard ones, or `guessed` by the guide.
        """
        images = self.real.normalised(rows)
        logits: np.ndarray = HARD_LOGIT * np.eye(self.data.num_classes)[self.data.train_labels[rows]]
        if guessed:
            trainer, parameters = self.guide
            logits = torch.log_softmax(trainer.logits(parameters, images) / TEMPERATURE, dim=1).cpu().numpy()
        synthetic = TrainableSet.start(keeping.form, images.cpu().numpy(), logits, self.compute.device)
        if planner.stores_compact(keeping.form):
            compact_budget.fit_step(synthetic, lambda: self.stored(synthetic, keeping.recipe).nbytes, keeping.bytes)
        return synthetic

    def stored(self, synthetic: TrainableSet, recipe: Recipe) -> SyntheticSet:
        """A set of these classes."""
        form, scales = synthetic.parameterization, synthetic.numpy_scales()
        factors, labels = synthetic.numpy_factors(), synthetic.numpy_labels()
        kept: dict[str, Any] = {"mean": self.mean, "std": self.std, "classes": self.data.classes, "provenance": {}}
        made = SyntheticSet.from_factors(form, factors=factors, labels=labels, recipe=recipe, scales=scales, **kept)
        return made.packed(planner.stores_compact(form))


def distilled(task: Task, keeping: Keeping) -> SyntheticSet:
    """Synthetic images, which start from real ones near the centres of k-means.

    A method that learns labels starts from the guide's. Others keep hard ones, as the papers do: a step's own network
    tells nothing of the other steps' classes, and its soft labels made a student worse at telling all of them apart.
    """
    settings = {} if keeping.width is None else {"width": str(keeping.width)}
    method = method_named(keeping.method, settings)
    if getattr(method, "augmentation", Augmentation()) is None:
        method = replace(method, augmentation=keeping.recipe.augmentation)  # type: ignore[type-var]
    rows = task.nearest_to_centres(keeping.ipc(keeping.form, task.names))
    synthetic = task.started(keeping, rows, guessed=bool(method.lr_labels))
    loop = Loop(synthetic, method, task.real, task.compute, task.generator(2))

    def size() -> int:
        return task.stored(synthetic, keeping.recipe).nbytes

    if synthetic.step is not None:
        loop.rate = Rate(compact_budget.target(synthetic, size, keeping.bytes))
    loop.run(Length(keeping.iterations), None, None)
    if synthetic.step is not None:
        compact_budget.trim(synthetic, size, keeping.bytes)
    return task.stored(synthetic, keeping.recipe)


def kept(task: Task, keeping: Keeping, bits: int | None, choose: Callable[[int], np.ndarray]) -> SyntheticSet:
    """Real images that `choose` chose, as pixels in `bits`, or None: in the form of the synthetic images."""
    if bits is not None:
        keeping = replace(keeping, form=Pixels(task.data.shape, bits))
    rows = choose(keeping.ipc(keeping.form, task.names))
    return task.stored(task.started(keeping, rows), keeping.recipe)


MEMORIES: dict[str, Callable[[Task, Keeping], SyntheticSet]] = {
    "distilled": distilled,
    "herding, uint8": lambda task, keeping: kept(task, keeping, 8, task.herded),
    "herding, 4 bits": lambda task, keeping: kept(task, keeping, 4, task.herded),
    "herding, as distilled": lambda task, keeping: kept(task, keeping, None, task.herded),
    "random, uint8": lambda task, keeping: kept(task, keeping, 8, task.at_random),
    "random, 4 bits": lambda task, keeping: kept(task, keeping, 4, task.at_random),
    "random, as distilled": lambda task, keeping: kept(task, keeping, None, task.at_random),
}
