"""A recipe for another student: what is tried, when it replaces the set's own, and the command."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, Made

import edgedd
from edgedd.distillation import recipe_search
from edgedd.distillation.recipe_search import GAIN
from edgedd.distillation.training import Trainer
from edgedd.distillation.tuning import CHECKS
from edgedd.errors import SettingError
from edgedd.recipe import Recipe
from edgedd.synthetic_set import SyntheticSet

Judge = Callable[[SyntheticSet, Recipe], float]


@pytest.fixture(scope="module")
def synthetic() -> SyntheticSet:
    recipe = Recipe(student_lr=0.1, weight_decay=0.002, steps=30)
    return edgedd.distill("digits", method="random", ipc=4, labels="hard", recipe=recipe)


def judged_by(monkeypatch: pytest.MonkeyPatch, judge: Judge) -> list[Recipe]:
    """The recipes that were trained by, each as good as `judge` says."""
    tried = []

    def validate(synthetic: SyntheticSet, recipe: Recipe, *_: Any) -> float:
        tried.append(recipe)
        return judge(synthetic, recipe)

    monkeypatch.setattr(recipe_search, "validate", validate)
    return tried


def near(recipe: Recipe, lr: float, decay: float) -> float:
    """0.9 at these values, a tenth less for each factor of ten away."""
    away = abs(np.log10(recipe.student_lr / lr)) + abs(np.log10(recipe.weight_decay / decay))
    return float(0.9 - 0.1 * away)


@pytest.mark.parametrize(("lr", "decay"), [(0.6, 0.008), (0.1, 0.002), (0.02, 0.0005), (50.0, 0.002)])
def test_rate_and_decay_are_followed_to_where_they_are_best(
    lr: float, decay: float, synthetic: SyntheticSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = judged_by(monkeypatch, lambda _, recipe: near(recipe, lr, decay))
    tuned = edgedd.tune(synthetic, "digits", "convnet2-w8")
    found = tuned.synthetic.recipe
    assert found.weight_decay == pytest.approx(decay)
    assert found.student_lr <= 2
    assert abs(np.log(found.student_lr / min(lr, 2))) < np.log(2.5)
    assert all(recipe.steps == 30 for recipe in tried)
    assert len(tried) == tuned.trainings
    assert (tuned.before, tuned.after) == pytest.approx((near(synthetic.recipe, lr, decay), near(found, lr, decay)))
    assert tuned.synthetic.provenance["student"] == "convnet2-w8"


def test_images_stay_and_labels_are_sharpened_where_that_helps(
    synthetic: SyntheticSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft = np.full(synthetic.tensors["labels"].shape, 5, np.uint8) + 205 * (synthetic.tensors["labels"] > 0)
    soft = replace(synthetic, tensors={**synthetic.tensors, "labels": soft.astype(np.uint8)})
    judged_by(monkeypatch, lambda each, _: float(each.soft_labels(slice(None)).max(1).mean()))
    tuned = edgedd.tune(soft, "digits", "convnet2-w8")
    assert tuned.after > tuned.before + GAIN
    assert tuned.synthetic.recipe == synthetic.recipe
    assert np.array_equal(tuned.synthetic.images(slice(None)), synthetic.images(slice(None)))


def test_another_augmentation_may_win(synthetic: SyntheticSet, monkeypatch: pytest.MonkeyPatch) -> None:
    judged_by(monkeypatch, lambda _, recipe: 0.5 + recipe.augmentation.cutout)
    assert edgedd.tune(synthetic, "digits", "convnet2-w8").synthetic.recipe.augmentation.cutout > 0


def test_what_only_the_search_found_better_is_not_taken(
    synthetic: SyntheticSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainings flatter every recipe but the own one, until those that only check."""
    flattered, tried = 10**6, list[Recipe]()

    def judge(_: SyntheticSet, recipe: Recipe) -> float:
        return 0.51 if recipe == synthetic.recipe else 0.6 if len(tried) <= flattered else 0.5

    tried = judged_by(monkeypatch, judge)
    always = edgedd.tune(synthetic, "digits", "convnet2-w8")
    assert always.synthetic.recipe != synthetic.recipe
    flattered = always.trainings - 2 * CHECKS
    tried.clear()
    tuned = edgedd.tune(synthetic, "digits", "convnet2-w8")
    assert tuned.trainings == always.trainings
    assert tuned.synthetic.recipe == synthetic.recipe
    assert tuned.before == tuned.after


def test_what_time_does_not_allow_is_not_tried(synthetic: SyntheticSet, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def slow(synthetic: SyntheticSet, recipe: Recipe, validation: Any, trainer: Trainer, *_: Any) -> float:
        tried.append(recipe)
        time.sleep(0.1)
        trainer.seconds_a_step = 0.1 / recipe.steps
        return 0.5

    monkeypatch.setattr(recipe_search, "validate", slow)
    tuned = edgedd.tune(synthetic, "digits", "convnet2-w8", minutes=0.15 / 60)
    assert tried == [synthetic.recipe]
    assert tuned.synthetic.recipe == synthetic.recipe


@pytest.mark.parametrize("seed", ["zero", -1, None])
def test_a_set_that_names_no_seed_has_the_seed_0(
    seed: Any, synthetic: SyntheticSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_by(monkeypatch, lambda _, recipe: near(recipe, 0.1, 0.002))
    odd = replace(synthetic, provenance={**synthetic.provenance, "seed": seed})
    assert edgedd.tune(odd, "digits", "convnet2-w8").synthetic.recipe == synthetic.recipe


def test_no_kept_image_judges(synthetic: SyntheticSet, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr(
        recipe_search, "validate", lambda s, r, validation, *_: sizes.append(len(validation.labels)) or 0.5
    )
    edgedd.tune(synthetic, "digits", "convnet2-w8")
    data = edgedd.load_data("digits")
    assert set(sizes) == {len(data.split(seed=0)[1][1])}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": 0}, "minutes=0, wanted more than 0"),
        ({"student": "resnet9"}, "resnet9"),
        ({"device": "tpu"}, "device 'tpu'"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str, synthetic: SyntheticSet) -> None:
    with pytest.raises(SettingError, match=message):
        edgedd.tune(synthetic, "digits", **{"student": "convnet2-w8", **options})


def test_the_command(made: Made, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        recipe_search, "augmentations", lambda *_: (edgedd.Augmentation(), edgedd.Augmentation(shift=1))
    )
    words = ("tune", made.synthetic, "--data", "digits", "--student", "mlp", "--json", "-o")
    said = [command(*words, tmp_path / name) for name in ("one", "two")]
    assert [ran.status for ran in said] == [0, 0], said[0].err
    row = json.loads(said[0].out)
    assert row["student"] == "mlp" and row["after"] >= row["before"] > 0
    one, two = (tmp_path / name for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert edgedd.SyntheticSet.load(one).recipe.as_dict() == row["recipe"]
    assert one.stat().st_size == row["bytes"]


def test_the_command_tells_what_changed(
    made: Made, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_by(monkeypatch, lambda _, recipe: near(recipe, 2.5 * Recipe().student_lr, Recipe().weight_decay))
    ran = command("tune", made.synthetic, "--data", "digits", "--student", "mlp", "-o", tmp_path / "set")
    assert ran.status == 0, ran.err
    assert "student_lr" in ran.out and "weight_decay" not in ran.out
    assert "90.0 %" in ran.out
    ran = command("tune", made.synthetic, "--data", "digits", "--student", "mlp", "-o", tmp_path / "no" / "set")
    assert ran.status == 2
    assert len(ran.err.splitlines()) == 1
