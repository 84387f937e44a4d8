"""DM's objective against the paper's formula on the same draws."""

import numpy as np
import torch
from test_distill_contract import SHAPE, loop

from edgedd.augmentation import Augmentation
from edgedd.distillation import networks
from edgedd.distillation.dm import DM, class_means
from edgedd.parameterization import Pixels


def test_equals_the_formula_written_class_by_class() -> None:
    run = loop("dm", Pixels(SHAPE, 16))
    method = DM(batch_real=8, width=8, augmentation=Augmentation())
    state_before = run.generator.bit_generator.state
    loss, _ = method.loss(run.synthetic, run.real, run.state, run.generator)
    run.generator.bit_generator.state = state_before
    parameters = networks.fresh(run.state.network, run.generator, torch.device("cpu"))
    expected = 0.0
    for c in range(2):
        rows = run.real.sample_class(c, 8, run.generator)
        real = networks.features(run.state.network, parameters, run.real.normalised(rows)).mean(0)
        images = run.synthetic.images()[4 * c : 4 * c + 4]
        ours = networks.features(run.state.network, parameters, images).mean(0)
        expected += float(((real - ours) ** 2).sum().detach())
    assert np.isclose(float(loss.detach()), expected, rtol=1e-5)


def test_permuting_images_within_a_class_changes_nothing() -> None:
    features = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    order = torch.cat([torch.tensor([2, 0, 3, 1]) + 4 * c for c in range(3)])
    assert torch.allclose(class_means(features, 3), class_means(features[order], 3), atol=1e-6)
