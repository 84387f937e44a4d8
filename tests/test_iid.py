"""IID: its two terms against the released code and the paper's formulas, and where they vanish."""

import numpy as np
import pytest
import torch
from test_distill_contract import CPU, SHAPE, loop
from test_dm import GOLDEN, PIXELS, golden_network, waves
from tiny_data import tiny_images

from edgedd.distillation import networks
from edgedd.distillation.dm import DM
from edgedd.distillation.idm import IDM
from edgedd.distillation.iid import IID, class_centralisation, covariance_distance
from edgedd.distillation.matching import Observed, class_covariances
from edgedd.distillation.methods import method_named
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.errors import SettingError
from edgedd.parameterization import Pixels


def observed_of(features: torch.Tensor, theirs: torch.Tensor, channels: int) -> Observed:
    return Observed(theirs.mean(1), class_covariances(theirs, channels), torch.empty(0), features)


def test_equals_the_published_code() -> None:
    run = loop("dm", PIXELS)
    passes = DM(width=4).init(run.synthetic, run.real, run.compute, run.generator).passes
    parameters = golden_network(passes.network)
    theirs, ours = (
        passes.features(parameters, x).reshape(2, -1, 24) for x in (waves(12, *SHAPE), 0.5 * waves(4, *SHAPE))
    )
    observed = observed_of(ours, theirs, passes.channels)
    assert np.isclose(float(covariance_distance(observed, passes.channels)), GOLDEN["iid_covariance"], rtol=1e-5)
    assert np.isclose(float(class_centralisation(waves(2, 3, 10))), GOLDEN["iid_centralisation"], rtol=1e-5)


def test_covariances_written_image_by_image() -> None:
    maps = torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    ours = class_covariances(maps.flatten(2), 4)
    for c in range(3):
        centred = [z - maps[c].mean(0) for z in maps[c]]
        expected = sum(z @ z.T for z in centred) / 5
        assert torch.allclose(ours[c], expected, atol=1e-5)


def test_the_exponential_form_with_its_threshold() -> None:
    features = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)) * 3
    for beta in (0.0, 1.0, 2.5):
        expected = 0.0
        for c in range(2):
            for f in features[c]:
                distance = float(((f - features[c].mean(0)) ** 2).sum())
                expected += max(0.0, np.exp(0.02 * distance) - beta)
        assert np.isclose(float(class_centralisation(features, beta)), expected, rtol=1e-5)


def test_at_one_image_a_class_centralisation_and_its_gradient_are_zero() -> None:
    features = torch.randn(3, 1, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    theirs = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
    assert float(class_centralisation(features).detach()) == 0
    assert float(class_centralisation(features, 1.0).detach()) == 0
    (class_centralisation(features) + covariance_distance(observed_of(features, theirs, 2), 2)).backward()
    assert not features.grad.abs().max()
    assert not class_covariances(features, 2).abs().max()


def test_permuting_images_within_a_class_changes_nothing() -> None:
    features = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
    theirs = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
    values = [
        [float(covariance_distance(observed_of(f, theirs, 2), 2)), float(class_centralisation(f))]
        for f in (features, features[:, [3, 1, 0, 2]])
    ]
    assert np.allclose(*values)


@pytest.mark.parametrize("base", ["dm", "idm"])
def test_the_loss_is_the_bases_and_both_terms_with_their_weights(base: str) -> None:
    run = loop("dm", PIXELS)
    small = {"width": "8", "batch_real": "8", "pool": "1", "base": base}
    small |= {"train_batch": "8", "train_steps": "1"} if base == "idm" else {}
    values = []
    for weights in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (None, None)):
        run.generator = np.random.default_rng(3)
        names = ("covariance_weight", "centralisation_weight")
        settings = {n: str(w) for n, w in zip(names, weights, strict=True) if w is not None}
        method = method_named("iid", small | settings)
        state = method.init(run.synthetic, run.real, run.compute, run.generator)
        values.append(float(method.loss(run.synthetic, run.real, state, run.generator)[0].detach()))
    plain, covariance, centralisation, usual = values
    assert covariance > plain
    assert centralisation > plain
    at = {"dm": (0.01, 0.05), "idm": (0.03, 0.01)}[base]
    expected = plain + at[0] * (covariance - plain) + at[1] * (centralisation - plain)
    assert np.isclose(usual, expected, rtol=1e-4)


def test_it_takes_its_bases_settings() -> None:
    on_dm, on_idm = IID(optimizer="sgd"), IID(base="idm", optimizer="sgd", queue=7)
    assert (on_dm.usual_lr(10), on_idm.usual_lr(10)) == (1.0, 0.2)
    assert (on_dm.steps_per_class, on_idm.steps_per_class) == (False, True)
    assert on_idm.on == IDM(optimizer="sgd", queue=7)
    assert (on_dm.parameterization, on_idm.parameterization) == (None, "formation")
    with pytest.raises(SettingError, match="base='mtt', wanted one of dm, idm"):
        method_named("iid", {"base": "mtt"})


def test_the_papers_pool_is_of_resnets_and_pools_their_last_map() -> None:
    shape = (3, 16, 16)
    real = RealImages.of(tiny_images(count=4, shape=shape, num_classes=2), CPU)
    synthetic = TrainableSet.blank(Pixels(shape, 16), 2, 2, CPU.device)
    generator = np.random.default_rng(0)
    state = IID(pool_network="resnet18-in", width=8).init(synthetic, real, CPU, generator)
    passes = state.pool.passes
    features = state.pool.pooled(passes.fresh(generator), torch.zeros(1, *shape))
    assert passes.network.name == "resnet18-in"
    assert features.shape == (1, 512)


def test_the_pools_networks_learn_the_classes() -> None:
    run = loop("dm", PIXELS)
    state = IID(pool=2, pool_epochs=40, width=8).init(run.synthetic, run.real, run.compute, run.generator)
    state.pool.draw(run.real, run.generator)
    assert len(state.pool.networks) == 2
    for parameters in state.pool.networks:
        outputs = networks.logits(state.pool.passes.network, parameters, run.real.normalised(np.arange(80)))
        assert float((outputs.argmax(1) == run.real.labels).float().mean()) > 0.9
