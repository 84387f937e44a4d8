"""A tiny set with its bundle and weights, and the `edgedd` command run within this process."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from device_bundle import CLASSES, RECIPE, SHAPE, blobs

import edgedd
from edgedd import cli
from edgedd.exporting import export
from edgedd.parameterization import LowRank
from edgedd.synthetic_set import SyntheticSet


@dataclass(frozen=True)
class Made:
    """Files that `edgedd` made of digits; tests only read them."""

    synthetic: Path
    bundle: Path
    weights: Path


@dataclass(frozen=True)
class Ran:
    """What a command left: exit status, stdout, stderr."""

    status: int
    out: str
    err: str


Command = Callable[..., Ran]


@pytest.fixture(scope="session", autouse=True)
def no_boards_of_ones_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests do not see the boards that a user keeps at home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of profiles: empty, and not that of whoever runs the tests."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "edgedd" / "targets"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Two runtimes that both wait for work on all cores slow each other down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    files = Made(folder / "set.safetensors", folder / "bundle", folder / "weights.safetensors")
    recipe = edgedd.Recipe(steps=3, batch_size=32)
    edgedd.distill("digits", method="random", bytes=2900, labels="hard", recipe=recipe).save(files.synthetic)
    edgedd.export(edgedd.SyntheticSet.load(files.synthetic), files.bundle, student="convnet2-w8")
    student = edgedd.Student.load(files.bundle, threads=1)
    student.fit(seed=0)
    student.save(files.weights)
    return files


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `edgedd ARGUMENTS...`; a status of 1 would be a traceback, which is raised here as it is."""

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["/usr/bin/edgedd", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return Ran(end.value.code or 0, out, err)

    return run


@pytest.fixture(scope="module")
def synthetic() -> SyntheticSet:
    images, labels = blobs(5, seed=1)
    mean, std = np.float32([0.5]), np.float32([0.25])
    parameterization = LowRank(SHAPE, 6, 1, 8)
    return SyntheticSet.from_factors(
        parameterization,
        factors=parameterization.encode((images[:, None] / np.float32(255) - mean[0]) / std[0]),
        labels=np.eye(3)[labels] * 0.9 + 0.1 / 3,
        mean=mean,
        std=std,
        recipe=RECIPE,
        classes=CLASSES,
        provenance={"seed": 1},
    )


@pytest.fixture(scope="module")
def folder(synthetic: SyntheticSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    export(synthetic, path, student="convnet2-w8", target="raspberry-pi-zero-2w")
    return path
