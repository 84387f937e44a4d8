"""Training by a recipe with torch: what a trained network is given out as."""

import numpy as np
import torch

from edgedd.distillation.compute import Compute
from edgedd.distillation.training import Shuffled, Trainer
from edgedd.recipe import Recipe
from edgedd.students import student


def test_trained_parameters_are_laid_out_as_fresh_ones() -> None:
    """So that compiled passes of other networks, and those of a resumed run, take them without compiling anew."""
    compute = Compute(torch.device("cpu"), bfloat16=False, compiled=False)
    trainer = Trainer(student("convnet2-w8", (1, 8, 8), 2), compute)
    generator = np.random.default_rng(0)
    images, labels = torch.from_numpy(generator.standard_normal((6, 1, 8, 8), np.float32)), torch.eye(2).repeat(3, 1)
    early, late = trainer.trajectory(Shuffled(images, labels, generator), Recipe(steps=2), generator, [1, 2])
    assert all(p.is_contiguous() and p.stride() == torch.empty(p.shape).stride() for p in [*early, *late])
    assert not any(torch.equal(before, after) for before, after in zip(early, late, strict=True))
    assert trainer.logits(late, images).shape == (6, 2)
