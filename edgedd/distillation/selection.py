"""Baselines that choose real images and learn nothing: at random, by herding, nearest to the centres of k-means.

Features are those of the early-stopped teacher. Herding is Welling's (ICML 2009) as Algorithm 4 of iCaRL has it
(Rebuffi et al., CVPR 2017), without normalising the features; it is the "herding" of the condensation papers' tables.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgedd.distillation.compute import Compute
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.errors import SettingError

if TYPE_CHECKING:
    from edgedd.distillation.teacher import Teacher


@dataclass(frozen=True)
class Selection:
    """Real images in the parameterization asked for; their labels are the teacher's, or as `labels` says.

    Attributes:
        by: how the images of a class are chosen: "random", "herding" or "kmeans".
    """

    by: str = "random"
    lr: float = 0.0
    lr_mappers: float = 0.0
    lr_labels: float = 0.0

    def choose(self, real: RealImages, ipc: int, teacher: "Teacher", generator: np.random.Generator) -> np.ndarray:
        """Row numbers (K ipc,) of `real` in class-major order; a class smaller than ipc repeats some at random."""
        chosen = []
        for c in range(real.num_classes):
            rows = real.classwise[c]
            count = min(ipc, len(rows))
            if self.by == "random" or count == len(rows):
                chosen.append(real.sample_class(c, ipc, generator))
                continue
            features = teacher.features(real.normalised(rows)).cpu().numpy()
            pick = herd(features, count) if self.by == "herding" else nearest_to_centres(features, count, generator)
            chosen.append(rows[pick])
        return np.concatenate(chosen)

    def init(self, synthetic: TrainableSet, real: RealImages, compute: Compute, generator: np.random.Generator) -> Any:
        """Nothing."""
        return None

    def loss(
        self, synthetic: TrainableSet, real: RealImages, state: Any, generator: np.random.Generator
    ) -> tuple[torch.Tensor, Any]:
        """Never asked for: the loop runs no step when nothing can move."""
        raise SettingError(f"method {self.by} has no objective, wanted 0 iterations")


def herd(features: np.ndarray, count: int) -> np.ndarray:
    """Rows (count,) of features (N, d), each next the one whose joining brings the chosen ones' mean closest to all's.

    argmin_x || mu - (f(x) + sum of the chosen f) / k || at the k-th choice, each row once.
    """
    mean = features.mean(0)
    squares = (features * features).sum(1)
    free = np.ones(len(features), bool)
    total = np.zeros_like(mean)
    chosen = np.empty(count, np.int64)
    for k in range(count):
        # || k mu - total - f ||^2 less what does not depend on f
        distance = squares - 2 * features @ ((k + 1) * mean - total)
        chosen[k] = np.where(free, distance, np.inf).argmin()
        free[chosen[k]] = False
        total += features[chosen[k]]
    return chosen


def nearest_to_centres(features: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Rows (count,) of features (N, d), the nearest to each centre of k-means with `count` centres, each row once."""
    from sklearn.cluster import KMeans

    distinct = len(np.unique(features, axis=0))
    seed = int(generator.integers(2**31))
    centres = KMeans(min(count, distinct), n_init=1, random_state=seed).fit(features).cluster_centers_
    # || f - c ||^2 less what does not depend on f
    distances = (features * features).sum(1) - 2 * centres @ features.T
    free = np.ones(len(features), bool)
    chosen = np.empty(count, np.int64)
    for k in range(count):
        chosen[k] = np.where(free, distances[k % len(centres)], np.inf).argmin()
        free[chosen[k]] = False
    return chosen
