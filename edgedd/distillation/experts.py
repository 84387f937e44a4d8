"""Experts: networks trained on the real images, whose weights after every epoch are what trajectories are matched to.

As in MTT (Cazenavette et al., CVPR 2022): plain SGD at 0.01, batches of 256, DSA. They are trained one after another,
each in chunks of images that stay near the cache. An epoch leaves out what does not fill a batch, other images every
time. FTD's and DATM's experts come from GSAM, which is not here.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from edgedd.distillation import networks, siamese
from edgedd.distillation.compute import Compute, within_memory
from edgedd.distillation.expert_files import ExpertFolder, ExpertSettings
from edgedd.distillation.flat_passes import Batch, FlatPasses
from edgedd.distillation.real_images import RealImages
from edgedd.errors import SettingError
from edgedd.labelled_images import LabelledImages, load_data
from edgedd.students import default_student, student

OnEpoch = Callable[[int, int], None]  # epochs done, of all


@dataclass
class ExpertsInMemory:
    """A few experts of a single run: for each its weights (P,) after 0, 1, .. epochs."""

    trajectories: list[list[torch.Tensor]]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.trajectories)

    @property
    def epochs(self) -> int:
        """The last epoch that each of them has."""
        return len(self.trajectories[0]) - 1

    def weights(self, expert: int, epoch: int) -> torch.Tensor:
        """(P,) float32: those of an expert after `epoch` epochs."""
        return self.trajectories[expert][epoch]


@dataclass(frozen=True)
class ExpertTraining:
    """What every expert is trained by."""

    passes: FlatPasses
    real: RealImages
    lr: float = 0.01
    batch: int = 256
    strategy: siamese.Strategy = "natural"

    def trained(
        self,
        seed: list[int],
        epochs: int,
        weights: list[torch.Tensor] | None = None,
        on_epoch: Callable[[list[torch.Tensor]], None] | None = None,
    ) -> list[torch.Tensor]:
        """Weights after 0 .. `epochs` epochs, from those of the first few on where given.

        Every epoch has a generator of its own, made from `seed`: it matters not where the training was cut.
        """
        kept = list(weights or [])
        if not kept:
            start = networks.fresh(self.passes.network, np.random.default_rng([*seed, 0]), self.real.images.device)
            kept = [torch.cat([p.flatten() for p in start])]
        while len(kept) <= epochs:
            kept.append(self._epoch(kept[-1], np.random.default_rng([*seed, len(kept)])))
            if on_epoch:
                on_epoch(kept)
        return kept

    def _epoch(self, weights: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        order = generator.permutation(len(self.real.labels))
        size = min(self.batch, len(order))
        for first in range(0, len(order) - size + 1, size):
            weights = weights - self.lr * self.passes.gradient(
                weights, self._batch(order[first : first + size], generator)
            )
        return weights

    def _batch(self, rows: np.ndarray, generator: np.random.Generator) -> Batch:
        drawn = siamese.draw(siamese.STRATEGIES[self.strategy], generator, len(rows))
        classes = self.real.labels[torch.from_numpy(rows).to(self.real.labels.device)]
        images = siamese.apply(self.real.normalised(rows), drawn)
        return Batch((images,), F.one_hot(classes, self.real.num_classes).float(), classes)


@within_memory()
def experts(
    data: LabelledImages | str,
    output: str | os.PathLike[str],
    *,
    count: int,
    epochs: int,
    width: int = 128,
    strategy: siamese.Strategy = "natural",
    lr: float = 0.01,
    half: bool = False,
    seed: int = 0,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
) -> ExpertFolder:
    """`count` experts of `epochs` epochs in the folder `output`; those that are there already are kept.

    Under torchrun rank k trains the experts k, k + world, ...; epochs beyond what a schedule reads are a waste: it
    reads up to its latest start plus the epochs that it matches. Trained on the images that `edgedd distill` trains on
    with the same seed: the validation split is held out.

    Raises SettingError: an impossible count, a folder with experts of other settings, or one where another process
    trains the same.
    """
    for name, value in (("count", count), ("epochs", epochs), ("width", width)):
        if value < 1:
            raise SettingError(f"{name}={value}, wanted at least 1")
    loaded = data if isinstance(data, LabelledImages) else load_data(data)
    network = student(default_student(loaded.shape, width), loaded.shape, loaded.num_classes)
    work = 6.0 * network.multiply_adds * len(loaded.train_labels) * epochs * count
    compute = Compute.for_work(device, work)
    real = RealImages.of(loaded.split(seed=seed)[0], compute)
    passes = FlatPasses(network, compute)
    settings = ExpertSettings(
        loaded.fingerprint, network.name, sum(passes.sizes), epochs, lr, 256, strategy, seed, seed, half
    )
    folder = ExpertFolder.create(Path(output), settings)
    rank, world = _rank()
    mine = [number for number in range(rank, count, world) if not folder.done(number)]
    _train(folder, ExpertTraining(passes, real, lr, settings.batch, strategy), mine, on_epoch)
    return ExpertFolder(folder.folder, settings)


def _train(folder: ExpertFolder, training: ExpertTraining, numbers: list[int], on_epoch: OnEpoch | None) -> None:
    parts = {number: folder.part(number) for number in numbers}
    total = sum(folder.epochs - max(len(part) - 1, 0) for part in parts.values())
    done = 0
    for number, part in parts.items():

        def keep(weights: list[torch.Tensor], number: int = number) -> None:
            nonlocal done
            folder.keep(number, weights)
            done += 1
            if on_epoch:
                on_epoch(done, total)

        with folder.only_writer(number):
            training.trained([folder.settings.seed, 7, number], folder.epochs, part, keep)


def few_experts(
    training: ExpertTraining, count: int, epochs: int, generator: np.random.Generator, on_epoch: OnEpoch | None
) -> ExpertsInMemory:
    """In memory, for one run that was given none; each rank trains its own, and all have all."""
    seed, passes = int(generator.integers(2**31)), training.passes
    own = passes.compute.ranks.own(count)
    trained = training.real.images.new_zeros((len(own), epochs + 1, sum(passes.sizes)), dtype=torch.float32)
    for place, number in enumerate(own):

        def report(weights: list[torch.Tensor], before: int = place * epochs) -> None:
            if on_epoch:
                on_epoch(before + len(weights) - 1, len(own) * epochs)

        trained[place] = torch.stack(training.trained([seed, number], epochs, on_epoch=report))
    return ExpertsInMemory([list(weights) for weights in passes.compute.ranks.gathered(trained, count)])


def _rank() -> tuple[int, int]:
    """This process and how many there are, as torchrun says."""
    try:
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError as error:
        raise SettingError("RANK and WORLD_SIZE are not numbers: unset them, or use torchrun") from error
    if not 0 <= rank < world:
        raise SettingError(f"RANK={rank} of WORLD_SIZE={world}, wanted 0 <= RANK < WORLD_SIZE: unset them")
    return rank, world
