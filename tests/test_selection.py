"""Baselines that choose rows: herding and k-means against plain versions, and as commands."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command
from test_distill_contract import CPU
from tiny_data import tiny_images

import edgedd
from edgedd.distillation import networks, recipe_search, teacher
from edgedd.distillation.methods import METHODS
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.recipe_search import Validation
from edgedd.distillation.selection import herd, nearest_to_centres
from edgedd.synthetic_set import SyntheticSet


def test_herding_written_plainly() -> None:
    features = np.random.default_rng(0).normal(size=(30, 5))
    mean, chosen = features.mean(0), []
    for k in range(1, 8):
        distances = {
            x: np.linalg.norm(mean - (sum(features[j] for j in chosen) + features[x]) / k)
            for x in range(30)
            if x not in chosen
        }
        chosen.append(min(distances, key=lambda x: distances[x]))
    assert herd(features, 7).tolist() == chosen
    assert np.linalg.norm(features[chosen].mean(0) - mean) < 0.3 * np.linalg.norm(features[:7].mean(0) - mean)


def test_kmeans_takes_one_of_each_cluster() -> None:
    generator = np.random.default_rng(0)
    centres = 20 * np.eye(4)
    features = np.concatenate([centre + generator.normal(size=(12, 4)) for centre in centres])
    chosen = nearest_to_centres(features, 4, np.random.default_rng(1))
    assert sorted(chosen // 12) == [0, 1, 2, 3]
    for row in chosen:
        own = features[12 * (row // 12) : 12 * (row // 12) + 12]
        distances = np.linalg.norm(own - own.mean(0), axis=1)
        assert distances.argmin() == row % 12


def test_equal_images_are_each_chosen_once() -> None:
    features = np.repeat(np.eye(2), 5, axis=0)
    for chosen in (herd(features, 6), nearest_to_centres(features, 6, np.random.default_rng(0))):
        assert len(set(chosen.tolist())) == 6


class Means:
    """A teacher whose features are the images' channel means."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


@pytest.mark.parametrize("name", ["random", "herding", "kmeans"])
def test_rows_are_class_major_and_a_small_class_repeats(name: str) -> None:
    real = RealImages.of(tiny_images(count=12, shape=(3, 8, 8), num_classes=3), CPU)
    for ipc in (2, 4, 6):
        rows = METHODS[name].choose(real, ipc, Means(), np.random.default_rng(0))  # type: ignore[attr-defined]
        assert real.labels[torch.from_numpy(rows)].tolist() == [c for c in range(3) for _ in range(ipc)]
        assert len(set(rows.tolist())) == (3 * ipc if ipc <= 4 else len(set(rows.tolist())))


def test_the_same_seed_chooses_the_same_and_methods_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        teacher, "train_teacher", lambda trainer, real, g, *_: [networks.fresh(trainer.network, g, "cpu")]
    )
    options = {"ipc": 2, "parameterization": "pixels", "labels": "hard", "recipe": edgedd.Recipe(steps=3)}
    made = {name: edgedd.distill("digits", method=name, **options) for name in ("random", "herding", "kmeans")}
    assert edgedd.distill("digits", method="kmeans", **options).to_bytes() == made["kmeans"].to_bytes()
    pictures = [synthetic.images(slice(None)).tobytes() for synthetic in made.values()]
    assert len(set(pictures)) == 3


SETTINGS = {
    "dm": ("batch_real=16", "width=8", "strategy=digits", "optimizer=sgd"),
    "idm": ("batch_real=16", "width=8", "train_steps=1", "train_batch=16"),
    "iid": ("base=idm", "batch_real=16", "width=8", "train_steps=1", "train_batch=16", "pool=1"),
    "herding": (),
    "kmeans": (),
}


@pytest.mark.parametrize(("method", "kept"), [("random", 8), ("dm", 0)])
def test_the_recipe_of_real_images_is_judged_on_others(method: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that a set has kept; images that moved are no longer in it."""
    judged = []

    def choose(synthetic: SyntheticSet, validation: Validation, *_: Any, **__: Any) -> SyntheticSet:
        judged.append(validation)
        return synthetic

    monkeypatch.setattr(recipe_search, "choose_recipe", choose)
    data = tiny_images(count=60, shape=(1, 8, 8), num_classes=2)
    settings = None if method == "random" else {"batch_real": "8", "strategy": "none"}
    synthetic = edgedd.distill(
        data, method=method, ipc=4, iterations=2, parameterization="pixels", bits=16, width=8, settings=settings, seed=0
    )
    assert len(judged[0].labels) == 60 - kept
    if method == "random":
        std, mean = synthetic.tensors["std"], synthetic.tensors["mean"]
        own = np.rint(255 * (synthetic.images(slice(None)) * std[:, None, None] + mean[:, None, None]))
        seen = {image.tobytes() for image in judged[0].images}
        assert not seen & {image.tobytes() for image in own.astype(np.uint8)}


@pytest.mark.parametrize("method", SETTINGS)
def test_commands(method: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_search, "choose_recipe", lambda synthetic, *_, **__: synthetic)
    monkeypatch.setattr(
        teacher, "train_teacher", lambda trainer, real, g, *_: [networks.fresh(trainer.network, g, "cpu")]
    )
    settings = [part for text in SETTINGS[method] for part in ("--set", text)]
    output = tmp_path / "set.safetensors"
    ran = command(
        *("distill", "--data", "digits", "--method", method, "--ipc", 4, "--iterations", 10, "-o", output), *settings
    )
    assert ran.status == 0, ran.err
    synthetic = edgedd.SyntheticSet.load(output)
    assert synthetic.provenance["method"] == method
    assert synthetic.ipc == 4
    assert synthetic.parameterization.kind == ("formation" if method in ("idm", "iid") else "low_rank")
