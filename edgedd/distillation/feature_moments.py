"""First and second moments of the real images' features on one network, and what a synthetic set is told by them.

The error that ridge regression from features to classes makes on real images needs no real image once the mean and the
covariance of their features are known: it is a quadratic form of the regression's weights. FRePo (Zhou, Nezhadarya and
Ba, NeurIPS 2022) takes that error over a batch of real images, which pass the network in every iteration.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch

from edgedd.distillation.ranks import Ranks


@dataclass(frozen=True)
class FeatureMoments:
    """Of K classes, each as heavy as the others; d_l features after block l, d after the last.

    Attributes:
        blocks: means (K, d_l) after each block.
        covariance: (d, d), mean over the classes of the mean product of the last features less the mean of all.
    """

    blocks: tuple[torch.Tensor, ...]
    covariance: torch.Tensor

    @property
    def means(self) -> torch.Tensor:
        """Of the last features (K, d)."""
        return self.blocks[-1]

    @classmethod
    def of(
        cls,
        features: Sequence[torch.Tensor],
        means: Sequence[Sequence[torch.Tensor]],
        num_classes: int,
        ranks: Ranks,
    ) -> "FeatureMoments":
        """From the last features (m, d) and the blocks' means (d_l,) of each of this rank's own classes."""
        blocks = tuple(ranks.gathered(torch.stack(block), num_classes) for block in zip(*means, strict=True))
        centred = [some - blocks[-1].mean(0) for some in features]
        covariance = reduce(torch.add, (some.T @ some / len(some) for some in centred))
        ranks.add([covariance])
        return cls(blocks, covariance / num_classes)

    def distance(self, blocks: Sequence[torch.Tensor], own: Sequence[int], earlier: float) -> torch.Tensor:
        """DM's Equation 5 in units of the spread of the real classes, for features (k, m, d_l) of the classes `own`.

        sum_k || mean of synthetic class k - mean of real class k ||^2 / sum_k || real mean k - their mean ||^2 after
        the last block, and `earlier` times the same after each of the others (CAFE, Wang et al., CVPR 2022).
        """
        *others, last = (_distance(features, means, own) for features, means in zip(blocks, self.blocks, strict=True))
        return last + earlier * sum(others, torch.zeros_like(last))

    def regression_error(
        self, features: torch.Tensor, classes: torch.Tensor, ridge: float, ranks: Ranks
    ) -> torch.Tensor:
        """Mean squared error on the real images of ridge regression on a rank's own synthetic ones.

        From features (n, d), less their mean over the real images, to classes (n,), as one-hot vectors less 1 / K; the
        regulariser is `ridge` times the mean variance of a real feature. Gradients reach own features.
        """
        num_classes, size = self.means.shape
        scale = self.covariance.trace().rsqrt()
        z = (features - self.means.mean(0)) * scale
        wanted = torch.nn.functional.one_hot(classes, num_classes) - 1 / num_classes
        sums = [z.T @ z, z.T @ wanted, torch.full((), float(len(z)), device=z.device)]
        totals = [part.detach().clone() for part in sums]
        ranks.add(totals)
        products, targets, count = (whole + part - part.detach() for whole, part in zip(totals, sums, strict=True))
        penalty = ridge / size * torch.eye(size, device=z.device)
        weights = torch.linalg.solve(products / count + penalty, targets / count)
        explicable = (self.means - self.means.mean(0)).T * scale / num_classes  # E z (y - 1 / K) over real images
        explained = 2 * (weights * explicable).sum() - (weights * (self.covariance * scale**2 @ weights)).sum()
        error: torch.Tensor = 1 - 1 / num_classes - explained
        return error


def _distance(features: torch.Tensor, means: torch.Tensor, own: Sequence[int]) -> torch.Tensor:
    spread = (means - means.mean(0)).square().sum()
    distance: torch.Tensor = (features.mean(1) - means[list(own)]).square().sum() / spread
    return distance
