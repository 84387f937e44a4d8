"""A run that is cut and resumed gives the same file as one that is not; so does the same seed again."""

from pathlib import Path
from typing import Any

import pytest

import edgedd
from edgedd.distillation import auto, checkpoint, recipe_search, training
from edgedd.distillation.loop import Progress
from edgedd.distillation.snapshots import Ensemble
from edgedd.distillation.teacher import Teacher
from edgedd.errors import SettingError

OPTIONS: dict[str, Any] = {
    "method": "frepo",
    "ipc": 3,
    "rank": 3,
    "labels": "hard",
    "iterations": 12,
    "width": 8,
    "settings": {"pool": "3", "batch_real": "32", "max_age": "4"},
    "recipe": edgedd.Recipe(steps=5),
}


class CutError(Exception):
    """Stands for a power cut."""


def cut_at(iteration: int) -> Any:
    def on_step(progress: Progress) -> None:
        if progress.stage == "distil" and progress.step == iteration:
            raise CutError

    return on_step


@pytest.fixture(autouse=True)
def short_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_search, "TRIAL_STEPS", 3)
    monkeypatch.setattr(recipe_search, "LONGEST", 3)
    monkeypatch.setattr(training, "LEAST_STEPS", 10)
    monkeypatch.setattr(training, "EPOCHS", 0)


@pytest.fixture
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint.Checkpoint, "due", lambda self: True)


@pytest.mark.usefixtures("always_due")
@pytest.mark.parametrize("method", ["auto", "frepo", "dm"])
def test_cut_and_resumed_equals_unbroken(tmp_path: Path, method: str) -> None:
    options = OPTIONS | {"method": method}
    if method == "auto":
        options = {k: v for k, v in options.items() if k not in {"ipc", "rank", "labels"}} | {"bytes": 800}
        options["settings"] = {"networks": "1", "train_steps": "10", "real_per_class": "20"}
    if method == "dm":
        options |= {"settings": {"batch_real": "8"}, "bits": 2}
    unbroken = edgedd.distill("digits", **options).to_bytes()
    for iteration in (5, 12):
        output = tmp_path / f"{iteration}.safetensors"
        with pytest.raises(CutError):
            edgedd.distill("digits", output=output, on_step=cut_at(iteration), **options)
        assert not output.exists()
        edgedd.distill("digits", output=output, resume=True, **options)
        assert output.read_bytes() == unbroken
        assert [path.name for path in tmp_path.iterdir() if "checkpoint" in path.name] == []


@pytest.mark.usefixtures("always_due")
def test_a_resumed_run_keeps_the_width_that_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another pace of the machine would choose another one."""
    monkeypatch.setattr(auto, "WIDTHS", (12,))
    monkeypatch.setattr(Teacher, "pace", lambda self, width: 1e30)
    widths, loss = [], Ensemble.loss
    monkeypatch.setattr(Ensemble, "loss", lambda self, *given: widths.append(self.method.width) or loss(self, *given))
    output, networks = tmp_path / "set.safetensors", {"networks": "1", "train_steps": "10", "real_per_class": "20"}
    options: dict[str, Any] = {"bytes": 800, "minutes": 1, "recipe": edgedd.Recipe(steps=3), "settings": networks}
    with pytest.raises(CutError):
        edgedd.distill("digits", output=output, on_step=cut_at(12), **options)
    monkeypatch.setattr(Teacher, "pace", lambda self, width: 1.0)
    with pytest.raises(CutError):
        edgedd.distill("digits", output=output, on_step=cut_at(14), resume=True, **options)
    assert len(widths) > 12 and set(widths) == {12}


@pytest.mark.usefixtures("always_due")
def test_a_checkpoint_of_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    output = tmp_path / "set.safetensors"
    with pytest.raises(CutError):
        edgedd.distill("digits", output=output, on_step=cut_at(3), **OPTIONS)
    with pytest.raises(SettingError, match="another seed"):
        edgedd.distill("digits", output=output, resume=True, seed=1, **OPTIONS)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    first, second, third = (edgedd.distill("digits", seed=seed, **OPTIONS).to_bytes() for seed in (0, 0, 1))
    assert first == second
    assert first != third
