"""A network's training on synthetic images, and the exact gradient through all of it with one step's graph alive.

The inner training is SGD: u_{n+1} = m u_n + g_n(theta_n), theta_{n+1} = theta_n - a u_{n+1}, with g_n the gradient of
the loss on step n's images. Its weights are kept, a vector a step, and nothing else. From dL/dtheta_N backwards

    p_n = lambda_{n+1} + m p_{n+1}               lambda_N = dL/dtheta_N, p_N = 0
    lambda_n = lambda_{n+1} - a H_n p_n
    dL/dx_n = - a d<g_n, p_n>/dx_n               x_n: images and labels of step n
    dL/da = - sum_n <g_n, p_n>

This is what automatic differentiation of the unrolled training computes (Maclaurin et al. 2015 have it by reversible
steps), without its memory. TESLA (Cui et al. 2023) holds lambda_n = lambda_N instead: constant memory too, but not the
gradient. It is kept for comparison (`exact=False`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from edgedd.distillation import siamese
from edgedd.distillation.flat_passes import Batch, FlatPasses


class Step(NamedTuple):
    """One inner step: its rows (b,) of the set, and for each view the augmentation, drawn once and then fixed."""

    rows: torch.Tensor
    draws: tuple[siamese.Draw, ...]


class Gradients(NamedTuple):
    """dL/dimages (n, C, H, W), dL/dlabels (n, K), dL/da; and the mean contrastive loss of the steps, 0 without one."""

    images: torch.Tensor
    labels: torch.Tensor
    rate: float
    contrast: float


@dataclass(frozen=True)
class InnerTraining:
    """`steps` of SGD at rate `rate` on images (n, C, H, W) with soft labels (n, K) of `classes` (n,)."""

    passes: FlatPasses
    images: torch.Tensor
    labels: torch.Tensor
    classes: torch.Tensor
    steps: Sequence[Step]
    rate: float
    momentum: float = 0.0

    def weights(self, start: torch.Tensor) -> list[torch.Tensor]:
        """theta_0 .. theta_N, each (P,)."""
        kept, moving = [start], torch.zeros_like(start)
        for step in self.steps:
            with torch.no_grad():
                batch = self._batch(step, self.images[step.rows])
            gradient = self.passes.gradient(kept[-1], batch)
            moving = torch.add(gradient, moving, alpha=self.momentum)
            kept.append(torch.add(kept[-1], moving, alpha=-self.rate))
        return kept

    def gradients(
        self, weights: Sequence[torch.Tensor], at_end: torch.Tensor, direct: float = 0.0, exact: bool = True
    ) -> Gradients:
        """Of L with dL/dtheta_N = `at_end` (P,), plus `direct` times the steps' mean contrastive loss.

        That loss moves the images alone: it takes each theta_n for a constant.
        """
        to_images, to_labels = torch.zeros_like(self.images), torch.zeros_like(self.labels)
        to_rate, contrast = torch.zeros((), device=at_end.device), torch.zeros((), device=at_end.device)
        at_step, along = at_end, torch.zeros_like(at_end)
        for step, before in zip(reversed(self.steps), reversed(weights[:-1]), strict=True):
            along = torch.add(at_step, along, alpha=self.momentum)
            leaf = self.images[step.rows].requires_grad_()
            batch = self._batch(step, leaf)
            found = self.passes.along(before, along, batch, exact)
            to_rate -= found.value
            if found.weights is not None:
                at_step = torch.add(at_step, found.weights, alpha=-self.rate)
            to_views = [-self.rate * moved for moved in found.views]
            if direct:
                value, pulls = self.passes.contrasted(before, batch)
                contrast += value / len(self.steps)
                to_views = _sums(to_views, [direct / len(self.steps) * pull for pull in pulls])
            seen = batch.views[: len(to_views)]
            to_images.index_add_(0, step.rows, torch.autograd.grad(seen, leaf, to_views)[0])
            to_labels.index_add_(0, step.rows, -self.rate * found.labels)
        return Gradients(to_images, to_labels, float(to_rate), float(contrast))

    def _batch(self, step: Step, images: torch.Tensor) -> Batch:
        views = tuple(siamese.apply(images, drawn) for drawn in step.draws)
        return Batch(views, self.labels[step.rows], self.classes[step.rows])


def _sums(few: list[torch.Tensor], many: list[torch.Tensor]) -> list[torch.Tensor]:
    """Entry by entry; `few` may end earlier."""
    return [a + b for a, b in zip(few, many, strict=False)] + many[len(few) :]
