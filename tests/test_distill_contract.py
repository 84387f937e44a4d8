"""One contract for every method and parameterization: a new entry in METHODS is tested with no new test code."""

import numpy as np
import pytest
import torch
from tiny_data import tiny_images

import edgedd
from edgedd.distillation import recipe_search, training
from edgedd.distillation.compute import Compute
from edgedd.distillation.loop import Length, Loop
from edgedd.distillation.methods import METHODS, method_named
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.parameterization import Formation, LowRank, Parameterization, Pixels, SharedBasis

SHAPE = (3, 12, 8)
CPU = Compute(torch.device("cpu"), bfloat16=False, compiled=False)
HALF = Compute(torch.device("cpu"), bfloat16=True, compiled=False)
SAMPLE = {"width": "8", "batch_real": "40", "strategy": "none"}
YOUNG = {"train_batch": "32", "train_steps": "1", "queue": "1", "interval": "1", "ce_weight": "0.001"}
TRAJECTORY = {
    "width": "8",
    "strategy": "none",
    "expert_count": "1",
    "latest": "1",
    "expert_epochs": "2",
    "inner_steps": "4",
    "threshold": "0",
    "batch": "8",
}
MATCHED = SAMPLE | {"image_steps": "3", "epochs": "1"}
SMALL = {
    "snapshots": {"width": "8", "networks": "1", "train_steps": "20", "real_per_class": "40"},
    "frepo": {"width": "8", "pool": "3", "batch_real": "32"},
    "dm": SAMPLE,
    "idm": SAMPLE | YOUNG,
    "iid": SAMPLE,
    "dc": MATCHED,
    "dsa": MATCHED | {"strategy": "natural"},
    "dcc": MATCHED,
    "dsac": MATCHED | {"strategy": "natural"},
    "mtt": TRAJECTORY,
    "datm": TRAJECTORY,
    "lss": TRAJECTORY | {"orthonormal_every": "2"},
    "contrastive": TRAJECTORY | {"strategy": "natural"},
}
FORMS: list[Parameterization] = [
    Pixels(SHAPE, 16),
    Pixels(SHAPE, 4),
    Formation(SHAPE, 2, 8),
    SharedBasis(SHAPE, 2, 2, 8),
    SharedBasis(SHAPE, 3, 1, 4, half=True),
    LowRank(SHAPE, 3, 1, 8),
    LowRank(SHAPE, 4, 2, 4),
    LowRank(SHAPE, 8, 1, 2),
]
DISTINCT = sorted({repr(method): name for name, method in METHODS.items()}.values())  # `auto` is one of the others
LEARNING = [name for name in DISTINCT if METHODS[name].lr != 0]
FALLS_WITHIN = dict.fromkeys(("mtt", "datm", "lss", "contrastive"), 20) | dict.fromkeys(("dcc", "dsa", "dsac"), 50)


def loop(name: str, form: Parameterization, seed: int = 0, *, from_noise: bool = False, compute: Compute = CPU) -> Loop:
    data = tiny_images(count=80, shape=SHAPE, num_classes=2)
    real = RealImages.of(data, compute)
    generator = np.random.default_rng(seed)
    rows = np.concatenate([real.sample_class(c, 4, generator) for c in range(2)])
    logits = np.log(np.full((8, 2), 0.2) + 0.6 * np.eye(2)[np.repeat([0, 1], 4)])
    images = real.normalised(rows).numpy()
    if from_noise:
        images = generator.normal(size=images.shape).astype(np.float32)
    synthetic = TrainableSet.start(form, images, logits, compute.device)
    return Loop(synthetic, method_named(name, SMALL.get(name)), real, compute, generator)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("name", LEARNING)
def test_loss_is_a_finite_scalar_whose_gradient_reaches_every_leaf_that_learns(
    name: str, form: Parameterization
) -> None:
    run = loop(name, form)
    loss, _ = run.method.loss(run.synthetic, run.real, run.state, run.generator)
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(loss)
    leaves = dict(run.synthetic.factors)
    if run.method.lr_labels:
        leaves["label_logits"] = run.synthetic.label_logits
    for leaf, values in leaves.items():
        assert values.grad is not None, leaf
        per_row = values.grad.flatten(1).abs().sum(1)
        assert (per_row > 0).all(), f"{leaf}: rows without gradient"


@pytest.mark.parametrize(
    "name, form", [*(("dm", form) for form in FORMS), *((name, FORMS[-3]) for name in DISTINCT)], ids=str
)
def test_equal_seeds_give_equal_factors(name: str, form: Parameterization) -> None:
    results = []
    for seed in (0, 0, 1):
        run = loop(name, form, seed)
        run.run(Length(iterations=4), None, None)
        results.append({**run.synthetic.numpy_factors(), "labels": run.synthetic.numpy_labels()})
    for leaf, values in results[0].items():
        assert np.array_equal(values, results[1][leaf])
    main = next(iter(form.factor_shapes(8)))
    assert not np.array_equal(results[0][main], results[2][main])


@pytest.mark.parametrize("name", LEARNING)
def test_the_loss_falls_on_two_separable_classes(name: str) -> None:
    run = loop(name, LowRank(SHAPE, 4, 1, 8), from_noise=True)
    losses: list[float] = []
    run.run(
        Length(iterations=FALLS_WITHIN.get(name, 100)),
        None,
        lambda progress: losses.extend([progress.loss or 0.0] * (progress.stage == "distil")),
    )
    part = len(losses) // 5
    assert np.mean(losses[-part:]) < 0.8 * np.mean(losses[:part])


@pytest.mark.parametrize("name", LEARNING)
def test_bfloat16_passes_change_the_loss_a_little(name: str) -> None:
    losses = []
    for compute in (CPU, HALF):
        run = loop(name, LowRank(SHAPE, 4, 1, 8), compute=compute)
        loss, _ = run.method.loss(run.synthetic, run.real, run.state, run.generator)
        loss.backward()
        assert all(
            torch.isfinite(values.grad).all() for values in run.synthetic.factors.values() if values.grad is not None
        )
        losses.append(loss.item())
    assert losses[0] != losses[1]
    assert np.isclose(losses[0], losses[1], rtol=0.05)


def test_a_whole_run_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Compute, "choose", lambda *args, **kwargs: HALF)
    monkeypatch.setattr(recipe_search, "TRIAL_STEPS", 3)
    monkeypatch.setattr(recipe_search, "LONGEST", 3)
    monkeypatch.setattr(training, "LEAST_STEPS", 10)
    data = tiny_images(count=80, shape=SHAPE, num_classes=2)
    quick = {"settings": SMALL["frepo"], "recipe": edgedd.Recipe(steps=5)}
    made = edgedd.distill(data, method="frepo", ipc=2, iterations=2, width=8, **quick)
    assert np.isfinite(made.images(slice(None))).all()


def test_rounding_in_the_loop_decodes_what_the_file_will_hold() -> None:
    run = loop("frepo", LowRank(SHAPE, 4, 1, 4))
    run.synthetic.fit_scales()
    stored = edgedd.SyntheticSet.from_factors(
        run.synthetic.parameterization,
        factors=run.synthetic.numpy_factors(),
        labels=run.synthetic.numpy_labels(),
        mean=np.zeros(3),
        std=np.ones(3),
        recipe=edgedd.Recipe(),
        classes=("a", "b"),
        provenance={},
    )
    seen = run.synthetic.images().detach().numpy()
    assert np.abs(seen - stored.images(slice(None))).max() < 2e-3  # the mappers alone are rounded to float16
    assert np.abs(seen - run.synthetic.parameterization.decode(run.synthetic.numpy_factors(), slice(None))).max() > 0.02
