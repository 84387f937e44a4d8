"""The papers' evaluation against a plain torch loop, and what `evaluate` says of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_sets import random_set
from torch_students import state, torch_student

from edgedd import load_data
from edgedd.distillation import siamese
from edgedd.distillation.published_evaluation import PUBLISHED, PublishedEvaluation, published
from edgedd.distillation.real_images import normalise
from edgedd.errors import SettingError
from edgedd.evaluation import evaluate, evaluate_path
from edgedd.parameterization import Pixels
from edgedd.parameters import initial_parameters
from edgedd.student_trainings import RECIPES
from edgedd.students import student

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SET = random_set(Pixels((1, 8, 8), 8), 10, 2, seed=0)


@pytest.mark.parametrize(("name", "recipe"), [("convnet2-w8", "vico"), ("resnet8", "vico-plain")])
def test_training_and_accuracy_equal_a_plain_loop(name: str, recipe: str) -> None:
    chosen = replace(published(recipe, 4), batch_size=8, lr=0.02)
    evaluation = PublishedEvaluation(SET, student(name, (1, 8, 8), 10), chosen, "cpu")
    trained = evaluation.fit(np.random.default_rng(3))

    generator, module = np.random.default_rng(3), torch_student(name, (1, 8, 8), 10).train()
    values = state(module)
    for key, start in initial_parameters(evaluation.network.parameters(), generator).items():
        values[key].copy_(torch.from_numpy(start))
    images, labels = torch.from_numpy(SET.images(slice(None))), torch.from_numpy(SET.soft_labels(slice(None)))
    for rate in (0.02, 0.002):  # torch's momentum starts afresh with the optimizer
        optimizer = torch.optim.SGD(module.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
        for _ in range(2):
            order = generator.permutation(20)
            for rows in (order[:8], order[8:16], order[16:]):
                drawn = siamese.draw(siamese.STRATEGIES[chosen.strategy], generator, count=len(rows))
                optimizer.zero_grad()
                outputs = module(siamese.apply(images[rows], drawn))
                torch.nn.functional.cross_entropy(outputs, labels[rows]).backward()
                optimizer.step()
    names = (*evaluation.network.parameters(), *evaluation.network.buffers())
    for key, mine in zip(names, (*trained.parameters, *trained.buffers), strict=True):
        torch.testing.assert_close(mine, values[key], atol=1e-4, rtol=1e-4)

    data = load_data("digits")
    with torch.no_grad():
        outputs = module.eval()(normalise(torch.from_numpy(data.test_images), SET.tensors["mean"], SET.tensors["std"]))
    wanted = (outputs.argmax(1).numpy() == data.test_labels).mean()
    assert evaluation.accuracy(trained, data.test_images, data.test_labels) == pytest.approx(wanted, abs=2e-3)


def test_rows_say_how_students_were_trained() -> None:
    parts: list[tuple[int, int]] = []
    common: dict[str, Any] = {"seeds": 2, "seed": 4, "epochs": 3}
    wanted = ["convnet2-w4", "mlp"]
    rows = evaluate(
        SET, load_data("digits"), wanted, recipe="vico-digits", on_part=lambda *p: parts.append(p), **common
    )
    assert [row["student"] for row in rows] == wanted and parts == [(i, 12) for i in range(1, 13)]
    facts = {"recipe": "vico-digits", "epochs": 3, "steps": 3, "runtime": "torch", "seeds": [4, 5]}
    assert all(row.items() >= facts.items() and len(row["accuracies"]) == 2 for row in rows)
    again = evaluate(SET, load_data("digits"), ["mlp"], recipe="vico-digits", **common)[0]
    assert again["accuracies"] == rows[1]["accuracies"]
    (own,) = evaluate(SET, load_data("digits"), ["mlp"], **common)
    assert own.items() >= {"recipe": "set", "epochs": 3, "steps": 3, "runtime": "onnxruntime"}.items()


def test_the_published_recipes_are_the_papers() -> None:
    assert ("set", *PUBLISHED) == RECIPES
    assert [(r.epochs, r.strategy) for r in PUBLISHED.values()] == [(1000, "natural"), (1000, "digits"), (300, "none")]
    assert {(r.lr, r.momentum, r.weight_decay, r.batch_size) for r in PUBLISHED.values()} == {(0.01, 0.9, 5e-4, 256)}
    assert published("vico").steps(500) == 2000 and published("vico", 10).steps(256) == 10


def test_students_may_be_given_with_commas(tmp_path: Path) -> None:
    SET.save(tmp_path / "set.safetensors")
    rows = evaluate_path(tmp_path / "set.safetensors", "digits", ["mlp, convnet2-w4"], seeds=1, epochs=1)
    assert [row["student"] for row in rows] == ["mlp", "convnet2-w4"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recipe": "idc"}, "unknown recipe 'idc', wanted one of set, vico, vico-digits, vico-plain"),
        ({"epochs": 0}, "epochs=0, wanted 1 to 100,000"),
        ({"device": "tpu"}, "device 'tpu', wanted cpu or cuda"),
        ({"students": ["mlp", "vgg"], "recipe": "vico"}, "unknown student 'vgg', wanted convnet<depth>"),
    ],
)
def test_what_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        evaluate(SET, load_data("digits"), **options)  # type: ignore[arg-type]
