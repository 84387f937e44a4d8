"""First and second moments of the real images' features on one network, and what a synthetic set is told by them.

The error that ridge regression from features to classes makes on real images needs no real image once the mean and the
covariance of their features are known: it is a quadratic form of the regression's weights. FRePo (Zhou, Nezhadarya and
Ba, NeurIPS 2022) takes that error over a batch of real images, which pass the network in every iteration.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edgedd.distillation.ranks import Ranks


@dataclass(frozen=True)
class FeatureMoments:
    """Of K classes, each as heavy as the others, with d features.

    Attributes:
        means: (K, d).
        covariance: (d, d), mean over the classes of the mean product of features less the mean of all.
        earlier: means (K, d_l) of what each block but the last gives.
    """

    means: torch.Tensor
    covariance: torch.Tensor
    earlier: tuple[torch.Tensor, ...]

    @classmethod
    def of(
        cls,
        features: Sequence[torch.Tensor],
        earlier: Sequence[Sequence[torch.Tensor]],
        num_classes: int,
        ranks: Ranks,
    ) -> "FeatureMoments":
        """From features (m, d) and the earlier blocks' means (d_l,) of each of this rank's own classes."""
        blocks = tuple(ranks.gathered(torch.stack(means), num_classes) for means in zip(*earlier, strict=True))
        means = ranks.gathered(torch.stack([some.mean(0) for some in features]), num_classes)
        centred = [some - means.mean(0) for some in features]
        covariance = sum((some.T @ some / len(some) for some in centred), torch.zeros_like(means[0].outer(means[0])))
        ranks.add([covariance])
        return cls(means, covariance / num_classes, blocks)

    def distance(self, features: torch.Tensor, own: Sequence[int]) -> torch.Tensor:
        """DM's Equation 5 in units of the spread of the real classes, for features (k, m, d) of the classes `own`.

        sum_k || mean of synthetic class k - mean of real class k ||^2 / sum_k || real mean k - their mean ||^2
        """
        return _distance(features, self.means, own)

    def earlier_distance(self, blocks: Sequence[torch.Tensor], own: Sequence[int]) -> torch.Tensor:
        """The same of what the earlier blocks give, (k, m, d_l) each; summed (CAFE, Wang et al., CVPR 2022)."""
        parts = (_distance(features, means, own) for features, means in zip(blocks, self.earlier, strict=True))
        return sum(parts, torch.zeros((), device=self.means.device))

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
