"""A set's own recipe in torch, as on a GPU: the same draws as the device runtime, and so the same students."""

from dataclasses import replace

import pytest
from tiny_sets import random_set

from edgedd import distill, evaluate, load_data
from edgedd.augmentation import Augmentation
from edgedd.device import sessions
from edgedd.parameterization import Pixels
from edgedd.student_trainings import Trainings, _by_the_set, _by_the_set_in_torch, facts

pytestmark = pytest.mark.usefixtures("one_torch_thread")
RANDOM = random_set(Pixels((1, 8, 8), 8), 10, 2, seed=0)
RECIPE = replace(RANDOM.recipe, augmentation=Augmentation(shift=1), batch_size=8, student_lr=0.05)
SET = replace(RANDOM, recipe=RECIPE)


@pytest.mark.parametrize("name", ["mlp", "convnet2-w8"])
def test_torch_trains_the_students_of_the_device(name: str) -> None:
    how, data, done = Trainings(epochs=12, seeds=2, seed=3), load_data("digits"), []
    wanted = [accuracy for accuracy, _ in _by_the_set(SET, data, name, how, lambda: None)]
    found = [accuracy for accuracy, _ in _by_the_set_in_torch(SET, data, name, how, lambda: done.append(1))]
    assert found == pytest.approx(wanted, abs=2e-3) and len(set(wanted)) == len(done) == 2


def test_rows_say_what_trained() -> None:
    assert facts(SET, Trainings(device="cuda"))["runtime"] == "torch"
    asked, usual = (
        evaluate(SET, "digits", ["mlp"], seeds=1, epochs=12, torch=asked_for)[0] for asked_for in (True, False)
    )
    assert (asked["runtime"], usual["runtime"]) == ("torch", "onnxruntime")
    assert asked["accuracy"] == pytest.approx(usual["accuracy"], abs=0.02)


def test_batch_norms_take_the_shares_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 images are two shares of 20, each with statistics of its own, one after the other as one thread takes them."""
    monkeypatch.setattr(sessions, "usable_cores", lambda: 1)
    recipe = replace(RECIPE, batch_size=40, student_lr=0.01)
    real = distill("digits", method="random", ipc=4, labels="hard", recipe=recipe)
    how, data = Trainings(epochs=60, seeds=2), load_data("digits")
    wanted, found = (
        [accuracy for accuracy, _ in train(real, data, "resnet8", how, lambda: None)]
        for train in (_by_the_set, _by_the_set_in_torch)
    )
    assert found == pytest.approx(wanted, abs=0.01)
    assert min(found) > 0.5
