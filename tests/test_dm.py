"""DM's objective against the paper's formula on the same draws, and the paper's optimizer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_distill_contract import SHAPE, loop

import edgedd
from edgedd.distillation import networks, siamese
from edgedd.distillation.dm import DM
from edgedd.distillation.idm import IDM
from edgedd.distillation.loop import Length, Loop
from edgedd.distillation.matching import Observed
from edgedd.distillation.methods import method_named
from edgedd.errors import SettingError
from edgedd.parameterization import Pixels

GOLDEN = json.loads((Path(__file__).parent / "golden" / "distribution_matching.json").read_text())
PIXELS = Pixels(SHAPE, 16)


def waves(*shape: int) -> torch.Tensor:
    """The golden values' inputs: sin(i^2 / 7) over the flat index, as they were made."""
    index = np.arange(np.prod(shape), dtype=np.float64)
    return torch.from_numpy(np.sin(index * index / 7).astype(np.float32).reshape(shape))


def golden_network(network: object, scale: float = 0.2) -> list[torch.Tensor]:
    """Parameters of a student, by the same formula; gains of norms 1 + that."""
    shapes = {name: spec.shape for name, spec in network.parameters().items()}  # type: ignore[attr-defined]
    made = {name: scale * waves(*shape) for name, shape in shapes.items()}
    return [1 + v if "norm" in name and name.endswith("weight") else v for name, v in made.items()]


@pytest.mark.parametrize("strategy", ["natural", "none"])
def test_equals_the_formula_written_class_by_class(strategy: str) -> None:
    run = loop("dm", PIXELS)
    method = DM(batch_real=8, width=8, strategy=strategy)  # type: ignore[arg-type]
    state = method.init(run.synthetic, run.real, run.compute, run.generator)
    before = run.generator.bit_generator.state
    loss, _ = method.loss(run.synthetic, run.real, state, run.generator)
    run.generator.bit_generator.state = before
    parameters = networks.fresh(state.passes.network, run.generator, torch.device("cpu"))
    draws = [siamese.draw(siamese.STRATEGIES[strategy], run.generator) for _ in range(2)]
    expected = 0.0
    rows = [run.real.sample_class(c, 8, run.generator) for c in range(2)]
    for c in range(2):
        real = siamese.apply(run.real.normalised(rows[c]), draws[c])
        ours = siamese.apply(run.synthetic.images()[4 * c : 4 * c + 4], draws[c])
        means = [networks.features(state.passes.network, parameters, images).mean(0) for images in (real, ours)]
        expected += float(((means[0] - means[1]) ** 2).sum().detach())
    assert np.isclose(float(loss.detach()), expected, rtol=1e-5)


def test_permuting_images_within_a_class_changes_nothing() -> None:
    features = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    means = torch.zeros(3, 5)
    both = (Observed(means, means, means, f).mean_distance() for f in (features, features[:, [2, 0, 3, 1]]))
    assert np.isclose(*(float(value) for value in both))


def test_equals_the_published_code() -> None:
    run = loop("dm", PIXELS)
    state = DM(batch_real=6, width=4).init(run.synthetic, run.real, run.compute, run.generator)
    parameters = golden_network(state.passes.network)
    real, ours = waves(12, *SHAPE), 0.5 * waves(4, *SHAPE)
    features = [state.passes.features(parameters, images).reshape(2, -1, 24) for images in (real, ours)]
    observed = Observed(features[0].mean(1), torch.empty(0), ours, features[1])
    assert np.isclose(float(observed.mean_distance()), GOLDEN["dm"], rtol=1e-5)


class Springs:
    """Each class is pulled to its own target, so that classes do not touch."""

    lr, lr_mappers, lr_labels, optimizer = 0.1, 0.0, 0.0, "sgd"

    def __init__(self, steps_per_class: bool) -> None:
        self.steps_per_class = steps_per_class

    def init(self, *_: object) -> "Springs":
        return self

    def loss(self, synthetic: object, *_: object) -> tuple[torch.Tensor, "Springs"]:
        images = synthetic.factors["images"]  # type: ignore[attr-defined]
        return (images - torch.arange(8.0)[:, None, None, None]).square().sum(), self


def test_sgd_is_the_papers_momentum_without_decay_of_the_rate() -> None:
    run = loop("dm", PIXELS)
    start = run.synthetic.factors["images"].detach().clone()
    Loop(run.synthetic, Springs(False), run.real, run.compute, run.generator).run(Length(5), None, None)  # type: ignore[arg-type]
    x, v, target = start, torch.zeros_like(start), torch.arange(8.0)[:, None, None, None]
    for _ in range(5):
        v = 0.5 * v + 2 * (x - target)
        x = x - 0.1 * v
    assert torch.allclose(run.synthetic.factors["images"], x, atol=1e-5)


def test_one_step_moves_as_a_step_after_every_class_does() -> None:
    run = loop("dm", PIXELS)
    x = run.synthetic.factors["images"].detach().clone()
    Loop(run.synthetic, Springs(True), run.real, run.compute, run.generator).run(Length(5), None, None)  # type: ignore[arg-type]
    v, target = torch.zeros_like(x), torch.arange(8.0)[:, None, None, None]
    classes = torch.arange(8)[:, None, None, None] // 4
    for step in range(10):
        v = 0.5 * v + 2 * (x - target) * (classes == step % 2)
        x = x - 0.1 * v
        if step % 2 == 0:
            first = x
    ours = run.synthetic.factors["images"].detach()
    # a class's state is the published code's when that takes its next gradient: after the other class's step
    assert torch.allclose(ours[:4], x[:4], atol=1e-5)
    coasted = x - 0.1 * 0.5 * v
    assert torch.allclose(ours[4:], coasted[4:], atol=1e-5)
    assert not torch.allclose(first[:4], x[:4], atol=1e-3)


def test_usual_rates_are_the_papers() -> None:
    assert [DM(optimizer="sgd").usual_lr(ipc) for ipc in (1, 50, 100)] == [1.0, 1.0, 10.0]
    assert IDM(optimizer="sgd").usual_lr(10) == 0.2


def test_settings_of_words_and_of_numbers_that_may_be_left_open() -> None:
    method = method_named("dm", {"optimizer": "sgd", "lr": "0.5", "strategy": "digits"})
    assert method == DM(optimizer="sgd", lr=0.5, strategy="digits")
    with pytest.raises(SettingError, match="optimizer='lion', wanted one of adam, sgd"):
        method_named("dm", {"optimizer": "lion"})
    with pytest.raises(SettingError, match="lr='-1', wanted a finite number"):
        method_named("dm", {"lr": "-1"})


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_digits(optimizer: str) -> None:
    options = {"method": "dm", "ipc": 2, "labels": "hard", "parameterization": "pixels"}
    options["recipe"] = edgedd.Recipe(steps=3)
    options["settings"] = {"batch_real": "16", "width": "8", "strategy": "digits", "optimizer": optimizer}
    made = [edgedd.distill("digits", iterations=n, **options) for n in (1, 10)]
    first, last = (synthetic.images(slice(None)) for synthetic in made)
    assert made[1].ipc == 2
    assert np.isfinite(last).all()
    assert 0.01 < np.abs(last - first).mean() < 1
