"""Contrastive losses between two views of the same images.

NT-Xent: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (ICML 2020), Equation 1.
SupCon: Khosla et al., "Supervised Contrastive Learning" (NeurIPS 2020), Equation 2. Of the contrastive trajectory
matching that uses them here (arXiv 2505.15267) only the abstract was to be had: where they act, and how strongly, is
our reading of it (edgedd.distillation.trajectory_matching).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from edgedd.distillation import siamese
from edgedd.distillation.siamese import Strategy
from edgedd.distillation.trainable_set import TrainableSet

Kind = Literal["ntxent", "supcon"]
Features = Callable[[torch.Tensor], torch.Tensor]  # images (b, C, H, W) -> (b, d)
MOST_AT_ONCE = 256  # images that contrast with each other: the loss is quadratic in them
NEVER = -1e9  # a logit whose exponential is 0; finite, so that tangents stay finite


@dataclass(frozen=True)
class Contrast:
    """Which loss, at which temperature, and its weight in a network's own training loss (0: not in it)."""

    kind: Kind = "ntxent"
    temperature: float = 0.2
    weight: float = 0.0

    def loss(self, z1: torch.Tensor, z2: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Of features (b, d) of two views, of images of `classes` (b,).

        NT-Xent takes no image of the same class for a negative: with one image a class that is the paper's.
        """
        if self.kind == "supcon":
            return sup_con(z1, z2, classes, self.temperature)
        return nt_xent(z1, z2, self.temperature, classes)


def contrasted(
    contrast: Contrast, features: Features, synthetic: TrainableSet, strategy: Strategy, generator: np.random.Generator
) -> torch.Tensor:
    """`contrast.weight` times the loss of random images of the set, each seen under two augmentations of its own.

    A term for the losses of other methods, in the features of their network; 0 without weight, and nothing is drawn
    then. Where `strategy` has no augmentation, views are those of "digits": equal ones would have nothing to say.
    """
    if not contrast.weight:
        return torch.zeros((), device=synthetic.label_logits.device)
    rows = np.sort(generator.permutation(synthetic.count)[:MOST_AT_ONCE])
    families = siamese.STRATEGIES[strategy] or siamese.STRATEGIES["digits"]
    images = synthetic.images(rows)
    first, second = (features(siamese.apply(images, siamese.draw(families, generator, len(rows)))) for _ in range(2))
    return contrast.weight * contrast.loss(first, second, torch.from_numpy(synthetic.classes[rows]).to(images.device))


def nt_xent(
    z1: torch.Tensor, z2: torch.Tensor, temperature: float, classes: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean over images and views of -log(exp(s(z, z') / t) / sum over all others k of exp(s(z, z_k) / t)).

    z1, z2: features (b, d) of the two views, of any length: s is the cosine. `classes` (b,): other images of an
    image's class then do not count among its negatives.
    """
    count = len(z1)
    z, others = _views(z1, z2)
    logits = _cosines(z) / temperature
    if classes is not None:
        twice = classes.repeat(2)
        same = twice[:, None] == twice[None, :]
        others = others & ~(same & ~_own(count, z.device))
    positive = (z[:count] * z[count:]).sum(1).repeat(2) / temperature
    return (torch.logsumexp(torch.where(others, logits, NEVER), dim=1) - positive).mean()


def sup_con(z1: torch.Tensor, z2: torch.Tensor, classes: torch.Tensor, temperature: float) -> torch.Tensor:
    """As `nt_xent`, with every view of every image of the same class a positive, averaged outside the logarithm.

    z1, z2: features (b, d); classes (b,).
    """
    z, others = _views(z1, z2)
    logits = _cosines(z) / temperature
    twice = classes.repeat(2)
    positives = ((twice[:, None] == twice[None, :]) & others).to(z.dtype)
    log_chance = logits - torch.logsumexp(torch.where(others, logits, NEVER), dim=1, keepdim=True)
    return -((positives * log_chance).sum(1) / positives.sum(1)).mean()


def _views(z1: torch.Tensor, z2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both views as unit vectors (2b, d), and where a pair is not one view with itself (2b, 2b)."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    return z, ~torch.eye(len(z), dtype=torch.bool, device=z.device)


def _cosines(z: torch.Tensor) -> torch.Tensor:
    """Of unit vectors (n, d) with one another (n, n), in their own precision where networks run in bfloat16.

    There compiled second derivatives of the losses came out as NaN.
    """
    with torch.autocast(z.device.type, enabled=False):
        return z @ z.T


def _own(count: int, device: torch.device) -> torch.Tensor:
    """Where a pair is the two views of one image (2b, 2b)."""
    return torch.eye(count, dtype=torch.bool, device=device).repeat(2, 2)
