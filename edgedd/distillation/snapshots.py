"""DM and ridge regression on snapshots of networks that train on the real images, whose moments are computed once.

DM (Zhao and Bilen, WACV 2023) draws a fresh network and passes hundreds of real images a class in every iteration; IDM
(Zhao et al., CVPR 2023) found partly trained networks to be the better ones. Here a few networks train on the real
images beforehand and are kept at several ages. The moments of the real features on every one of them are computed once,
under augmentation, so that an iteration passes the synthetic images alone: their class means are to be the real ones,
after every block of the network (as in CAFE, Wang et al., CVPR 2022), and ridge regression from their features to
their classes is to do well on the real images. The networks at their last age are an ensemble of teachers: their mean
prediction labels the synthetic images again as these move. The regression is not to those labels: with them long runs
lost what short ones had gained.

On CIFAR-10 at 30,720 bytes the class means gained 6 points on the start in 6 minutes of one core, the regression 1.5
more; on Fashion-MNIST at 31,360 bytes 1 and 1. The earlier blocks added 1.6 there at 1,960 bytes, and on CIFAR-10 1.1
at 7,680 and 0.9 at 30,720 (benchmarks/results/auto_choices*.json, validation images, two trainings each).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from edgedd.augmentation import Augmentation, Draw, draw
from edgedd.distillation import augment, networks
from edgedd.distillation.compute import Compute
from edgedd.distillation.feature_moments import FeatureMoments
from edgedd.distillation.matching import Passes, by_class
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.distillation.training import AGES, MOST_STEPS, Trainer, early_stopped
from edgedd.students import default_student, student

LABEL_EVERY = 100


@dataclass(frozen=True)
class Snapshots:
    """Hyperparameters, ours; chosen on validation images (benchmarks/results/auto_choices.json).

    Attributes:
        networks: trained on the real images; each is kept at four ages.
        train_steps: of each, with batches of 128; None: a teacher's, at most 1,400.
        real_per_class: real images a class that moments are taken over; a smaller class gives all it has.
        width: channels of the ConvNet.
        earlier: weight of the class means of every block but the last, beside those of the last.
        regression: weight of the regression's error beside them.
        ridge: its regulariser, in mean variances of a feature.
        label_temperature: of the ensemble's labels; 0: labels stay as they were.
        augmentation: of synthetic and real images and of the networks' training; None: chosen on validation.
    """

    networks: int = 4
    train_steps: int | None = None
    real_per_class: int = 1024
    width: int = 32
    earlier: float = 0.3
    regression: float = 5.0
    ridge: float = 0.3
    label_temperature: float = 1.5
    lr: float = 0.05
    lr_mappers: float = 1e-3
    lr_labels: float = 0.0
    augmentation: Augmentation | None = None

    def image_passes(self, ipc: int, num_classes: int) -> int:
        """Images that an iteration passes forward, in passes of a network of 64 channels; backward is two more."""
        return max(1, 3 * ipc * num_classes * self.width // 64)

    def init(
        self, synthetic: TrainableSet, real: RealImages, compute: Compute, generator: np.random.Generator
    ) -> "Ensemble":
        """The networks are trained at the first step."""
        return Ensemble(self, real, compute)

    def loss(
        self, synthetic: TrainableSet, real: RealImages, state: "Ensemble", generator: np.random.Generator
    ) -> tuple[torch.Tensor, "Ensemble"]:
        """Distance of the class means and error of the regression on one snapshot (`FeatureMoments`)."""
        if not state.moments:
            state.train(real, generator)
        if state.iteration % LABEL_EVERY == 0:
            state.label(synthetic)
        state.iteration += 1
        return state.loss(synthetic, int(generator.integers(len(state.weights))), generator), state


class Ensemble:
    """Snapshots of a few networks, the moments of the real images' features on each, and how far the run is.

    Attributes:
        weights: parameters of each snapshot, a network after the other, each from its youngest age to its last. Of
            the first networks they may be given: those are not trained again.
        moments: of each snapshot.
        most_steps: of a network's training, where the method does not say how many.
    """

    def __init__(self, method: Snapshots, real: RealImages, compute: Compute) -> None:
        self.method, self.compute = method, compute
        network = student(default_student(real.shape, method.width), real.shape, real.num_classes)
        self.passes, self.trainer = Passes(network, compute), Trainer(network, compute)
        self.weights: list[list[torch.Tensor]] = []
        self.moments: list[FeatureMoments] = []
        self.iteration = 0
        self.most_steps = MOST_STEPS
        self.report: Callable[[str, int, int], None] | None = None

    @property
    def augmentation(self) -> Augmentation:
        """Of all images that pass."""
        return self.method.augmentation or Augmentation()

    def train(self, real: RealImages, generator: np.random.Generator) -> None:
        """Every network that is not given, kept at its ages, and the real images' moments on each."""
        recipe = early_stopped(len(real.labels), self.augmentation, self.most_steps)
        recipe = replace(recipe, steps=self.method.train_steps or recipe.steps)
        steps, count = recipe.steps, self.method.networks - len(self.weights) // len(AGES)
        for number in range(count):

            def report(step: int, before: int = number * steps) -> None:
                if self.report:
                    self.report("networks", before + step + 1, count * steps)

            self.give(self.trainer.snapshots(real.sampler(generator), recipe, generator, report))
        self.moments = [self._moments(parameters, real, generator) for parameters in self.weights]

    def give(self, snapshots: list[list[torch.Tensor]]) -> None:
        """Another network, at its ages."""
        self.weights += [self.passes.constant(parameters) for parameters in snapshots]

    def loss(self, synthetic: TrainableSet, number: int, generator: np.random.Generator) -> torch.Tensor:
        """On one snapshot. Gradients, averaged over the ranks, are those of all images."""
        method, moments, ranks = self.method, self.moments[number], self.compute.ranks
        own = ranks.own(len(moments.means))
        drawn = self._draw(synthetic.count, generator)
        rows = np.arange(synthetic.count).reshape(len(moments.means), -1)[list(own)].reshape(-1)
        images = synthetic.images(slice(None) if ranks.size == 1 else rows)
        images = augment.apply(images, self.augmentation, Draw(*(values[rows] for values in drawn)))
        blocks = self.passes.blocks(self.weights[number], images)
        distance = ranks.size * moments.distance([by_class(b, len(own)) for b in blocks], own, method.earlier)
        if not method.regression:
            return distance
        classes = torch.from_numpy(synthetic.classes[rows]).to(images.device)
        error = moments.regression_error(blocks[-1], classes, method.ridge, ranks)
        return distance + method.regression * (error + (ranks.size - 1) * (error - error.detach()))

    def label(self, synthetic: TrainableSet) -> None:
        """Give the set the mean prediction of the networks at their last age, at the label temperature."""
        temperature = self.method.label_temperature
        if not temperature or not self.moments:
            return
        each = len(self.weights) // self.method.networks
        with torch.no_grad():
            images = synthetic.images()
            outputs = [self.trainer.logits(parameters, images) for parameters in self.weights[each - 1 :: each]]
            synthetic.label_logits.copy_(networks.mean_prediction(outputs, temperature))

    def finish(self, synthetic: TrainableSet) -> None:
        """Label the images as they are at the end."""
        self.label(synthetic)

    def _moments(
        self, parameters: networks.Parameters, real: RealImages, generator: np.random.Generator
    ) -> FeatureMoments:
        """Over augmented real images."""
        counts = [min(self.method.real_per_class, len(rows)) for rows in real.classwise]
        chosen = [real.sample_class(c, count, generator) for c, count in enumerate(counts)]
        drawn = [self._draw(count, generator) for count in counts]
        features, means = [], []
        for c in self.compute.ranks.own(real.num_classes):
            images = augment.apply(real.normalised(chosen[c]), self.augmentation, drawn[c])
            with torch.no_grad():
                blocks = self.passes.blocks(parameters, images)
            features.append(blocks[-1])
            means.append([block.mean(0) for block in blocks])
        return FeatureMoments.of(features, means, real.num_classes, self.compute.ranks)

    def _draw(self, count: int, generator: np.random.Generator) -> Draw:
        return draw(self.augmentation, count, *self.passes.network.shape[1:], generator)

    def state_dict(self) -> dict[str, Any]:
        """The networks and moments, which no longer change, and the iterations."""
        moments = [(*of.blocks, of.covariance) for of in self.moments]
        return {"weights": self.weights, "moments": moments, "iteration": self.iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        device = self.compute.device
        self.weights = [[p.to(device) for p in parameters] for parameters in state["weights"]]
        on_device = ([part.to(device) for part in parts] for parts in state["moments"])
        self.moments = [FeatureMoments(tuple(blocks), covariance) for *blocks, covariance in on_device]
        self.iteration = state["iteration"]
