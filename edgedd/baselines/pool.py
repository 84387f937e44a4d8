"""The training images that a baseline may choose from, with a teacher that knows them.

Letters: K classes, ipc images a class, d features.
"""

from functools import cached_property

import numpy as np
import torch

from edgedd.baselines.real_set import stepped
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.selection import herd, nearest_to_centres
from edgedd.distillation.teacher import Teacher

SELECTIONS = ("random", "herding", "kmeans")


class Pool:
    """Chooses rows; what is dear to find is found once. `seed` decides the random choices."""

    def __init__(self, real: RealImages, teacher: Teacher, seed: int) -> None:
        self.real, self.teacher, self.seed = real, teacher, seed
        self.most = min(len(rows) for rows in real.classwise)
        self._herded = [np.zeros(0, np.int64) for _ in real.classwise]
        self._clustered: dict[tuple[int, int], np.ndarray] = {}

    def rows(self, selection: str, ipc: int) -> np.ndarray:
        """Rows (K ipc,) in class-major order, each once; `ipc` is at most `most`."""
        choose = {"random": self._random, "herding": self._herding, "kmeans": self._kmeans}[selection]
        return np.concatenate([choose(label, ipc) for label in range(self.real.num_classes)])

    def images(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (n, C, H, W)."""
        return np.asarray(self.real.images[torch.from_numpy(rows).to(self.real.images.device)].cpu().numpy())

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """The teacher's soft labels of class-major rows, in steps (n, K); see `real_set.stepped`."""
        return stepped(np.exp(self.teacher.start_logits(self.real.normalised(rows)).astype(np.float64)))

    def _random(self, label: int, ipc: int) -> np.ndarray:
        order = np.random.default_rng([self.seed, 6, label]).permutation(self.real.classwise[label])
        return np.asarray(order[:ipc])

    def _herding(self, label: int, ipc: int) -> np.ndarray:
        if len(self._herded[label]) < ipc:
            wanted = min(2 * ipc, len(self._features[label]))
            self._herded[label] = self.real.classwise[label][herd(self._features[label], wanted)]
        return self._herded[label][:ipc]

    def _kmeans(self, label: int, ipc: int) -> np.ndarray:
        if (label, ipc) not in self._clustered:
            generator = np.random.default_rng([self.seed, 7, label])
            chosen = nearest_to_centres(self._features[label], ipc, generator)
            self._clustered[label, ipc] = self.real.classwise[label][chosen]
        return self._clustered[label, ipc]

    @cached_property
    def _features(self) -> list[np.ndarray]:
        """(N, d) of each class."""
        return [
            np.concatenate(
                [
                    self.teacher.features(self.real.normalised(part)).cpu().numpy()
                    for part in np.array_split(rows, -(-len(rows) // 2000))
                ]
            )
            for rows in self.real.classwise
        ]
