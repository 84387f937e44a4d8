"""IDM: the class term, the queue, what the published commands set by images per class."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_distill_contract import SHAPE, loop
from test_dm import GOLDEN, PIXELS, golden_network, waves

import edgedd
from edgedd.distillation.idm import IDM, class_term, usual_ce_weight
from edgedd.distillation.matching import Observed
from edgedd.distillation.methods import method_named
from edgedd.distillation.network_queue import Queue, Training
from edgedd.parameterization import Formation

SMALL = {"width": "8", "batch_real": "8", "train_batch": "16", "train_steps": "2", "queue": "4", "interval": "2"}
TRAINING = Training(interval=3, most=4, networks=2, steps=2, batch=16, window=4)


def queue(training: Training = TRAINING) -> tuple[Queue, object, np.random.Generator]:
    run = loop("idm", PIXELS)
    return Queue(run.state.passes.network, training, run.compute, run.generator), run.real, run.generator


def test_equals_the_published_code() -> None:
    run = loop("idm", PIXELS)
    passes = IDM(width=4).init(run.synthetic, run.real, run.compute, run.generator).passes
    parameters = golden_network(passes.network)
    features = [passes.features(parameters, x).reshape(2, -1, 24) for x in (waves(12, *SHAPE), 0.5 * waves(4, *SHAPE))]
    observed = Observed(features[0].mean(1), torch.empty(0), torch.empty(0), features[1])
    labels = torch.eye(2)[[0, 0, 1, 1]]
    loss = observed.mean_distance() + 0.5 * 60 * class_term(observed, parameters, labels)
    assert np.isclose(float(loss), GOLDEN["idm"], rtol=1e-5)


def test_the_class_term_is_weighted_by_accuracy_in_percent() -> None:
    run = loop("idm", PIXELS)
    method = method_named("idm", SMALL | {"strategy": "none", "batch_real": "40"})
    losses = []
    for weight in (0.5, 0.0):
        generator = np.random.default_rng(0)
        state = method.init(run.synthetic, run.real, run.compute, generator)
        state.ce_weight, state.queue.iteration = weight, 1  # no new network joins
        for member in state.queue.members:
            member.right, member.seen = 3, 4
        which = copy.deepcopy(generator).integers(3)
        parameters = state.passes.constant(state.queue.members[which].parameters)
        losses.append(float(method.loss(run.synthetic, run.real, state, generator)[0].detach()))
    features = state.passes.features(parameters, run.synthetic.images())
    outputs = F.linear(features, parameters[-2], parameters[-1])
    labels = run.synthetic.soft_labels()
    expected = sum(F.cross_entropy(outputs[4 * c : 4 * c + 4], labels[4 * c : 4 * c + 4]) for c in range(2))
    assert np.isclose(losses[0] - losses[1], 0.5 * 75 * float(expected.detach()), rtol=1e-4)  # type: ignore[union-attr]


def test_the_queue_starts_with_three_grows_by_interval_and_drops_the_oldest() -> None:
    made, real, generator = queue()
    assert len(made.members) == 3
    lengths, first = [], made.members[0]
    for _ in range(7):
        made.draw(generator)
        lengths.append(len(made.members))
        made.train(real, generator)
    assert lengths == [4, 4, 4, 4, 4, 4, 4]
    assert first not in made.members
    assert [member.seen for member in made.members][-1] <= 2 * 16


def test_two_networks_train_after_each_iteration_and_accuracies_start_again() -> None:
    made, real, generator = queue()
    made.draw(generator)
    assert [member.percent for member in made.members] == [0.0] * 4
    before = [[p.detach().clone() for p in member.parameters] for member in made.members]
    made.train(real, generator)
    moved = [not torch.equal(old[0], member.parameters[0]) for old, member in zip(before, made.members, strict=True)]
    assert sum(moved) == 2
    assert sorted(member.seen for member in made.members) == [0, 0, 32, 32]
    assert all(0 <= member.percent <= 100 for member in made.members)
    for _ in range(3):
        made.train(real, generator)
    assert [member.seen for member in made.members] == [0] * 4  # the window of 4 iterations is over


def test_defaults_follow_the_stored_images_per_class() -> None:
    assert [usual_ce_weight(ipc, 10) for ipc in (1, 10, 50)] == [0.5, 0.5, 0.1]
    assert [usual_ce_weight(ipc, 100) for ipc in (1, 10, 50)] == [0.5, 0.1, 0.1]
    assert [usual_ce_weight(ipc, 200) for ipc in (1, 10, 50)] == [0.5, 0.5, 0.8]
    assert [IDM().training(ipc, 10).interval for ipc in (1, 10, 50)] == [5, 30, 30]
    assert [IDM().training(10, k).steps for k in (10, 100, 200)] == [10, 50, 10]
    assert [IDM().real_per_class(ipc) for ipc in (1, 10)] == [5000, 256]
    run = loop("idm", Formation(SHAPE, 2, 8))
    assert run.synthetic.stored_per_class == 1
    assert IDM(width=8).init(run.synthetic, run.real, run.compute, run.generator).batch.per_class == 5000


class CutError(Exception):
    """Stands for a power cut."""


@pytest.mark.parametrize(
    ("method", "more"), [("idm", {}), ("iid", {"pool": "2", "base": "idm"}), ("iid", {"pool": "2"})]
)
def test_digits_cut_and_resumed(
    method: str, more: dict[str, str], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgedd.distillation.checkpoint import Checkpoint

    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    options = {
        "method": method,
        "ipc": 4,
        "iterations": 10,
        "labels": "hard",
        "settings": SMALL | {"strategy": "digits"} | more,
        "recipe": edgedd.Recipe(steps=3),
    }
    unbroken = edgedd.distill("digits", **options)
    assert unbroken.parameterization.kind == ("formation" if method == "idm" or more.get("base") else "low_rank")

    def cut(progress: object) -> None:
        if progress.stage == "distil" and progress.step == 6:  # type: ignore[attr-defined]
            raise CutError

    output = tmp_path / "set.safetensors"  # type: ignore[operator]
    with pytest.raises(CutError):
        edgedd.distill("digits", output=output, on_step=cut, **options)
    edgedd.distill("digits", output=output, resume=True, **options)
    assert output.read_bytes() == unbroken.to_bytes()
