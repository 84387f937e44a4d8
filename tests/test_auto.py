"""What `auto` chooses, what it says beforehand, and that it may find its start better."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_data import tiny_images
from tiny_sets import golden

import edgedd
from edgedd.augmentation import Augmentation
from edgedd.distillation import auto, recipe_search, training
from edgedd.distillation.compute import Compute
from edgedd.distillation.forecast import forecast
from edgedd.distillation.options import Options
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.recipe_search import Search, Validation
from edgedd.distillation.snapshots import Ensemble, Snapshots
from edgedd.distillation.teacher import Teacher
from edgedd.recipe import Recipe
from edgedd.synthetic_set import SyntheticSet

CPU = Compute(torch.device("cpu"), bfloat16=False, compiled=False)
EMPTY = Validation(np.zeros((0, 1, 8, 8), np.uint8), np.zeros(0, np.int64))
TABLE = {
    "3": {
        "data": "cifar10",
        "image_bytes": 30_720,
        "student": "convnet3-w64",
        "cpu": [
            [30_720, 1, 0.45, "a machine"],
            [30_720, 15, 0.52, "two cores"],
            [122_880, 15, 0.61, "a machine"],
        ],
        "cuda": [[30_720, 5, 0.66, "a GPU"]],
    }
}


def test_frequencies_where_no_form_is_asked_for() -> None:
    assert auto.kind(Options(method="auto", bytes=9000)) == "dct"
    for asked in ({"rank": 4}, {"bits": 4}, {"parameterization": "pixels"}, {"target": "generic-512mb"}):
        assert auto.kind(Options(method="auto", bytes=9000, **asked)) is None
    assert auto.kind(Options(method="auto", ipc=3)) is None
    assert auto.kind(Options(method="frepo", bytes=9000)) is None


@pytest.mark.parametrize(
    ("budget", "minutes", "classes", "said"),
    [
        (30_000, 2, 10, "45.0% at 30,720 bytes in 1 minutes"),
        (30_000, 60, 10, "52.0% at 30,720 bytes in 15 minutes"),
        (30_000, None, 10, "52.0% at 30,720 bytes in 15 minutes"),
        (110_000, 1, 10, "61.0% at 122,880 bytes in 15 minutes"),
        (300_000, 1, 100, "45.0% at 30,720 bytes in 1 minutes"),
    ],
)
def test_the_forecast_is_the_nearest_measurement_and_says_of_what(
    budget: int, minutes: float | None, classes: int, said: str
) -> None:
    line = forecast(budget, minutes, (3, 32, 32), classes, table=TABLE)
    assert said in line
    assert "cifar10" in line
    assert ("two cores" in line) == ("52.0%" in line)
    assert "other images and machines differ" in line


def test_no_forecast_where_nothing_was_measured() -> None:
    assert "nothing was measured" in forecast(9000, 5, (1, 28, 28), 10, table=TABLE)


def test_a_gpu_has_forecasts_of_its_own() -> None:
    line = forecast(110_000, None, (3, 32, 32), 10, device="cuda", table=TABLE)
    assert "some minutes on a GPU" in line and "66.0% at 30,720 bytes in 5 minutes" in line and "a GPU)" in line
    cpu_alone = {"3": {key: value for key, value in TABLE["3"].items() if key != "cuda"}}
    assert "nothing was measured on cuda" in forecast(110_000, 5, (3, 32, 32), 10, device="cuda", table=cpu_alone)


@pytest.mark.parametrize(("start_is_worth", "kept"), [(0.6, 0), (0.4, 1)])
def test_the_better_of_start_and_end_is_kept(monkeypatch: pytest.MonkeyPatch, start_is_worth: float, kept: int) -> None:
    start, distilled = (replace(golden(), provenance={"iterations": n}) for n in (0, 1))
    worth = {0: start_is_worth, 1: 0.5}
    monkeypatch.setattr(Search, "score", lambda self, candidate: worth[candidate.provenance["iterations"]])
    search = Search(EMPTY, SimpleNamespace(seconds_a_step=0.1), [0], 4)  # type: ignore[arg-type]
    assert auto.better(distilled, start, search).provenance["iterations"] == kept
    search.deadline = 0.0
    assert auto.better(distilled, start, search).provenance["iterations"] == kept


def searched(monkeypatch: pytest.MonkeyPatch, worth: Any, **options: Any) -> Recipe:
    """The recipe that wins when a training by it is `worth` so much."""

    def validate(synthetic: SyntheticSet, recipe: Recipe, *_: Any) -> float:
        return float(worth(recipe))

    monkeypatch.setattr(recipe_search, "validate", validate)
    trainer: Any = SimpleNamespace(seconds_a_step=0.0)
    return recipe_search.choose_recipe(golden(), EMPTY, trainer, seed=[0], **options).recipe


def test_a_wide_search_finds_the_rate_and_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    found = searched(monkeypatch, lambda r: 0.5 + r.student_lr + 1e-4 * r.steps, wide=True)
    own = golden().recipe
    assert found.student_lr == pytest.approx(2.5 * 0.1)
    assert found.steps == np.ceil(2.5 * own.steps)


@pytest.mark.parametrize("faster", [True, False])
def test_a_faster_recipe_contends_with_the_own(monkeypatch: pytest.MonkeyPatch, faster: bool) -> None:
    found = searched(monkeypatch, lambda r: 0.5 + (0.1 if faster else -0.1) * (r.student_lr == 0.1), wide=True)
    assert (found.student_lr == 0.1) == faster


@pytest.mark.parametrize(("gain", "left"), [(0.004, False), (0.006, True)])
def test_the_usual_augmentation_stays_unless_another_is_clearly_better(
    monkeypatch: pytest.MonkeyPatch, gain: float, left: bool
) -> None:
    own = Augmentation(shift=1)
    made = replace(golden(), recipe=Recipe(augmentation=own))
    monkeypatch.setattr(recipe_search, "validate", lambda s, recipe, *_: 0.5 + gain * (recipe.augmentation != own))
    found = recipe_search.choose_recipe(made, EMPTY, None, seed=[0], seen=True)  # type: ignore[arg-type]
    assert (found.recipe.augmentation != own) == left


@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_beside_what_the_networks_saw_the_strongest_are_tried_first(flip: float) -> None:
    own = Augmentation(flip=flip, shift=2)
    beside = recipe_search.beside(own, 32, 32)
    assert {choice.flip for choice in beside} == {flip}
    assert beside[0].colour
    assert beside[-1] == Augmentation(flip=flip)
    assert own not in beside


def test_the_rate_follows_the_step_unless_it_is_asked_for() -> None:
    def lr(step: float | None, **options: Any) -> float:
        start: Any = SimpleNamespace(step=step, count=10)
        return float(auto.chosen(Snapshots(lr=0.05), Options(**options), start, teacher, None)["lr"])

    teacher: Any = None  # asked only where there is an end
    assert lr(2.0) == pytest.approx(2 * auto.RATE)
    assert lr(None) == lr(2.0, settings={"lr": "0.05"}) == 0.05


@pytest.mark.parametrize(("minutes", "steps"), [(None, 1400), (4, 600), (1, 300), (60, 1400)])
def test_a_teacher_trains_as_long_as_its_share_of_the_minutes_has_time_for(
    monkeypatch: pytest.MonkeyPatch, minutes: float | None, steps: int
) -> None:
    """A quarter of the minutes for two networks, at 50 ms a step."""

    def fit(self: training.Trainer, *_: object) -> None:
        self.seconds_a_step = 0.05

    monkeypatch.setattr(training.Trainer, "fit", fit)
    real = RealImages.of(tiny_images(count=60, shape=(1, 8, 8), num_classes=2), CPU)
    teacher = Teacher(real, Options(ipc=1, minutes=minutes), CPU, sharing=2)
    assert training.early_stopped(50_000, Augmentation(), teacher.most_steps).steps == steps
    ensemble = Ensemble(Snapshots(networks=2), real, CPU)
    teacher.snapshots = [[]]
    auto.share(teacher, ensemble)
    assert ensemble.most_steps == teacher.most_steps


def test_more_steps_must_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert searched(monkeypatch, lambda r: 0.5 + 1e-7 * r.steps, wide=True).steps == golden().recipe.steps


def test_a_search_that_has_no_time_left_keeps_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def worth(recipe: Recipe) -> float:
        trained.append(recipe)
        return 0.5 + recipe.student_lr + recipe.augmentation.shift + 1e-4 * recipe.steps

    assert searched(monkeypatch, worth, wide=True, deadline=0.0) == golden().recipe
    assert not trained


def test_minutes_that_end_before_distilling_begins_leave_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real images and the teacher's labels; nothing is trained to compare or to choose."""
    monkeypatch.setattr(training, "LEAST_STEPS", 2)
    monkeypatch.setattr(recipe_search, "validate", None)
    synthetic = edgedd.distill(tiny_images(count=60, shape=(1, 8, 8), num_classes=2), bytes=1500, minutes=1e-4)
    assert synthetic.provenance["iterations"] == 0
    assert synthetic.nbytes <= 1500


@pytest.mark.slow
def test_auto_within_the_bytes_and_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_search, "TRIAL_STEPS", 3)
    monkeypatch.setattr(recipe_search, "LONGEST", 3)
    monkeypatch.setattr(training, "LEAST_STEPS", 10)
    monkeypatch.setattr(training, "EPOCHS", 0)
    data = tiny_images(count=60, shape=(3, 12, 12), num_classes=3)
    options: dict[str, Any] = {
        "bytes": 1000,
        "iterations": 6,
        "width": 8,
        "recipe": Recipe(steps=5),
        "settings": {"networks": "2", "train_steps": "10", "real_per_class": "16"},
    }
    first, second = (edgedd.distill(data, method="auto", **options) for _ in range(2))
    assert first.to_bytes() == second.to_bytes()
    assert first.parameterization.kind == "dct"
    assert first.compact
    assert 51 % first.label_levels == 0 < first.label_levels - 1
    assert 800 <= first.nbytes <= 1000
