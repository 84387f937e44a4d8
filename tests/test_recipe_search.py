"""The recipe is chosen by validation accuracy: what is compared, how often, and what wins."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_data import tiny_images
from tiny_sets import golden

from edgedd.augmentation import Augmentation
from edgedd.distillation import recipe_search
from edgedd.distillation.compute import Compute
from edgedd.distillation.recipe_search import Search, Validation, sharpened, with_augmentations
from edgedd.distillation.training import Trainer
from edgedd.parameterization import Pixels
from edgedd.recipe import Recipe
from edgedd.students import student
from edgedd.synthetic_set import SyntheticSet

EMPTY = Validation(np.zeros((0, 1, 8, 8), np.uint8), np.zeros(0, np.int64))


def test_sharpened_labels_are_the_powers_by_hand() -> None:
    tensors = {**golden().tensors, "labels": np.array([[51, 204], [255, 0], [254, 1]], np.uint8)}
    result = sharpened(replace(golden(), tensors=tensors), 0.5)
    # 0.2^2 : 0.8^2 = 1 : 16, so 15 and 240 of 255
    assert result.tensors["labels"].tolist() == [[15, 240], [255, 0], [255, 0]]


def test_sharpened_labels_keep_their_levels() -> None:
    tensors = {**golden().tensors, "labels": np.array([[51, 204], [102, 153]], np.uint8)}
    result = sharpened(replace(golden(), tensors=tensors), 0.5)
    # 1 : 16 and 4 : 9 of five levels
    assert result.tensors["labels"].tolist() == [[0, 255], [102, 153]]


def test_temperature_one_changes_nothing() -> None:
    assert np.array_equal(sharpened(golden(), 1.0).tensors["labels"], golden().tensors["labels"])


def numbered(count: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of one pixel that hold, and are labelled with, numbers of their own."""
    numbers = np.arange(first, first + count)
    return numbers.astype(np.uint8).reshape(-1, 1, 1, 1), numbers


def test_few_held_out_images_are_filled_up_with_training_images_that_the_set_does_not_keep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recipe_search, "ENOUGH_IMAGES", 12)
    held_out, training = Validation(*numbered(5, 0)), numbered(20, 100)
    judges = held_out.filled(*training, np.array([0, 3]), 0)
    assert np.array_equal(judges.images[:, 0, 0, 0], judges.labels)
    assert judges.labels[:5].tolist() == [0, 1, 2, 3, 4] and len(set(judges.labels)) == 12
    assert not {100, 103} & set(judges.labels)
    assert np.array_equal(judges.labels, held_out.filled(*training, np.array([0, 3]), 0).labels)
    assert not np.array_equal(judges.labels, held_out.filled(*training, np.array([0, 3]), 1).labels)


def test_enough_held_out_images_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_search, "ENOUGH_IMAGES", 5)
    assert Validation(*numbered(5, 0)).filled(*numbered(20, 100), np.array([0]), 0).labels.tolist() == [0, 1, 2, 3, 4]


Pairs = list[tuple[float, float]]


def contest(
    monkeypatch: pytest.MonkeyPatch, first: list[float], again: Pairs, deadline: float | None = None
) -> tuple[int, Search]:
    """Which of three candidates wins when they score so at `first`, and the best two `again`; all must be asked for."""
    left = iter([*first, *(score for pair in again for score in pair)])
    monkeypatch.setattr(Search, "score", lambda self, candidate: next(left))
    search = Search(EMPTY, SimpleNamespace(seconds_a_step=0.1), [0], 5, deadline=deadline)  # type: ignore[arg-type]
    candidates = with_augmentations(golden(), [Augmentation(), Augmentation(shift=1), Augmentation(flip=0.5)])
    winner, score = search.best(candidates)
    assert next(left, None) is None
    place = candidates.index(winner)
    rank = sorted(first, reverse=True).index(first[place])
    assert score == pytest.approx(np.mean([first[place], *(pair[rank] for pair in again)]))
    return place, search


def test_the_best_after_a_second_look_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first trial flatters candidate 0; the second look at the two finalists puts candidate 2 ahead."""
    assert contest(monkeypatch, [0.9, 0.2, 0.8], [(0.1, 0.8)], deadline=np.inf)[0] == 2


def test_finalists_that_two_trainings_cannot_tell_apart_are_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the demo once: the better one has two unlucky trainings, the other two lucky ones."""
    again = [(0.909, 0.918), (0.90, 0.94), (0.89, 0.94)]
    winner, search = contest(monkeypatch, [0.910, 0.2, 0.917], again)
    assert winner == 0
    assert search.trials == 5 + 4


def test_finalists_are_trained_five_times_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    again = [(0.90, 0.93), (0.93, 0.90), (0.90, 0.93), (0.93, 0.90)]
    assert contest(monkeypatch, [0.90, 0.2, 0.91], again)[0] == 2


@pytest.mark.parametrize("apart", [0.1, 0.001])
def test_two_trainings_are_enough_where_they_are_apart_or_within_half_a_point(
    monkeypatch: pytest.MonkeyPatch, apart: float
) -> None:
    assert contest(monkeypatch, [0.903, 0.2, 0.903 - apart], [(0.900, 0.900 - apart)])[0] == 0


def test_known_scores_are_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def score(self: Search, candidate: SyntheticSet) -> float:
        measured.append(candidate.recipe.weight_decay)
        return candidate.recipe.weight_decay

    monkeypatch.setattr(Search, "score", score)
    candidates = [replace(golden(), recipe=Recipe(weight_decay=w)) for w in (0.1, 0.2, 0.3)]
    trainer = SimpleNamespace(seconds_a_step=0.1)
    winner, _ = Search(EMPTY, trainer, [0], 5, deadline=np.inf).best(candidates, [0.9])  # type: ignore[arg-type]
    assert measured == [0.2, 0.3, 0.1, 0.3]
    assert winner.recipe.weight_decay == 0.1


def test_a_real_search_prefers_no_mirror_where_the_mirror_image_is_another_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two classes that are mirror images of each other: with mirrors in training nothing can be learned."""
    monkeypatch.setattr(recipe_search, "TRIAL_STEPS", 40)
    data = tiny_images(count=60, shape=(1, 8, 8), num_classes=2)
    form = Pixels((1, 8, 8), 8)
    base = data.train_images[data.train_labels == 0]
    normal = (np.concatenate([base, base[:, :, :, ::-1]]).astype(np.float32) / 255 - 0.5) / 0.25
    synthetic = SyntheticSet.from_factors(
        form,
        factors=form.encode(normal),
        labels=np.eye(2)[np.repeat([0, 1], len(base))],
        mean=np.array([0.5]),
        std=np.array([0.25]),
        recipe=Recipe(batch_size=32),
        classes=("left", "right"),
        provenance={},
    )
    validation = Validation(np.concatenate([base, base[:, :, :, ::-1]]), np.repeat([0, 1], len(base)))
    compute = Compute(torch.device("cpu"), bfloat16=False, compiled=False)
    trainer = Trainer(student("convnet2-w8", (1, 8, 8), 2), compute)
    assert recipe_search.choose_augmentation(synthetic, validation, trainer, seed=[0]).flip == 0
