"""Experts: plain SGD, the same files however the training was cut or spread, and refusals of one line."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_data import tiny_images

import edgedd
from edgedd.distillation import networks
from edgedd.distillation.compute import Compute
from edgedd.distillation.expert_files import ExpertFolder
from edgedd.distillation.experts import ExpertTraining, experts
from edgedd.distillation.flat_passes import FlatPasses
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.trajectory_matching import MTT
from edgedd.errors import SettingError
from edgedd.students import default_student, student

DATA = tiny_images(count=60, shape=(3, 8, 8), num_classes=3)
SMALL: dict[str, Any] = {"count": 3, "epochs": 3, "width": 4}
EAGER = Compute(torch.device("cpu"), bfloat16=False, compiled=False)


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Compute, "choose", lambda *arguments, **options: EAGER)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*"))}  # a kill may leave a hidden part


def test_an_epoch_is_torchs_sgd_on_shuffled_batches_without_what_does_not_fill_one() -> None:
    real = RealImages.of(DATA, EAGER)
    network = student(default_student(real.shape, 4), real.shape, 3)
    passes = FlatPasses(network, EAGER)
    passes.chunk = 7
    found = ExpertTraining(passes, real, lr=0.1, batch=25, strategy="none").trained([5], 1)
    parameters = [p.requires_grad_() for p in networks.fresh(network, np.random.default_rng([5, 0]), EAGER.device)]
    assert torch.equal(found[0], torch.cat([p.detach().flatten() for p in parameters]))
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    order = np.random.default_rng([5, 1])
    for rows in np.split(order.permutation(60)[:50], 2):
        outputs = networks.logits(network, parameters, real.normalised(rows))
        optimizer.zero_grad()
        F.cross_entropy(outputs, real.labels[torch.from_numpy(rows)]).backward()
        optimizer.step()
    assert torch.allclose(found[1], torch.cat([p.detach().flatten() for p in parameters]), atol=1e-6)


def test_cut_after_any_epoch_and_run_again_gives_the_same_files(tmp_path: Path) -> None:
    class CutError(Exception):
        """Stands for a power cut."""

    def cut_at(epoch: int) -> Any:
        def told(done: int, total: int) -> None:
            if done == epoch:
                raise CutError

        return told

    for half in (False, True):
        whole = tmp_path / f"whole-{half}"
        experts(DATA, whole, half=half, **SMALL)
        for epoch in (1, 3, 5):
            cut = tmp_path / f"cut-{half}-{epoch}"
            with pytest.raises(CutError):
                experts(DATA, cut, half=half, on_epoch=cut_at(epoch), **SMALL)
            experts(DATA, cut, half=half, **SMALL)
            assert contents(cut) == contents(whole)


def test_half_is_the_rounded_weights_in_half_the_bytes(tmp_path: Path) -> None:
    full, half = (experts(DATA, tmp_path / str(half), half=half, **SMALL) for half in (False, True))
    assert torch.equal(half.weights(1, 2), full.weights(1, 2).half().float())
    assert 0.49 < half.stored_bytes / full.stored_bytes < 0.56


def test_more_are_added_to_those_that_are_there_and_ranks_give_what_one_process_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experts(DATA, tmp_path / "one", **SMALL)
    experts(DATA, tmp_path / "more", **SMALL | {"count": 1})
    first = (tmp_path / "more" / "expert-00000.safetensors").stat().st_mtime_ns
    experts(DATA, tmp_path / "more", **SMALL)
    assert (tmp_path / "more" / "expert-00000.safetensors").stat().st_mtime_ns == first
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, files in (("1", ["expert-00001.safetensors"]), ("0", [f"expert-0000{k}.safetensors" for k in range(3)])):
        monkeypatch.setenv("RANK", rank)
        experts(DATA, tmp_path / "ranks", **SMALL)
        assert sorted(path.name for path in (tmp_path / "ranks").glob("expert-*")) == files
    assert contents(tmp_path / "one") == contents(tmp_path / "more") == contents(tmp_path / "ranks")


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"width": 6}, "another network, parameters"), ({"epochs": 2}, "another epochs"), ({"seed": 1}, "another seed")],
)
def test_a_folder_of_other_settings_is_refused(tmp_path: Path, changed: dict[str, int], message: str) -> None:
    experts(DATA, tmp_path / "e", **SMALL | {"count": 1, "epochs": 1})
    with pytest.raises(SettingError, match=message):
        experts(DATA, tmp_path / "e", **SMALL | {"count": 1, "epochs": 1} | changed)


def damage(folder: Path, kind: str) -> None:
    expert, manifest = folder / "expert-00000.safetensors", folder / "experts.json"
    if kind == "no manifest":
        manifest.unlink()
    elif kind == "version":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": 2}))
    elif kind == "unknown key":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"odd": 2}))
    elif kind == "cut":
        expert.write_bytes(expert.read_bytes()[:-100])
    elif kind == "nan":
        content = bytearray(expert.read_bytes())
        content[-4:] = np.float32(np.nan).tobytes()
        expert.write_bytes(content)
    elif kind == "none":
        expert.unlink()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no manifest", "has no experts"),
        ("version", "is of version 2, wanted 1"),
        ("unknown key", "cannot read .*experts.json"),
        ("cut", "cannot read the expert"),
        ("nan", "is damaged"),
        ("none", "no finished expert"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path, kind: str, message: str) -> None:
    experts(DATA, tmp_path / "e", **SMALL | {"count": 1, "epochs": 1})
    damage(tmp_path / "e", kind)
    with pytest.raises(SettingError, match=message) as caught:
        ExpertFolder.open(tmp_path / "e").weights(0, 1)
    assert "\n" not in str(caught.value)


OPTIONS: dict[str, Any] = {
    "ipc": 2,
    "rank": 3,
    "iterations": 4,
    "width": 4,
    "recipe": edgedd.Recipe(steps=5),
    "settings": {"inner_steps": "2", "latest": "2", "expert_epochs": "1"},
}


def test_a_run_reads_experts_and_holds_out_the_images_that_they_have_not_seen(tmp_path: Path) -> None:
    experts(DATA, tmp_path / "e", count=1, epochs=2, width=4, seed=3)
    first, again = (edgedd.distill(DATA, method="mtt", experts=tmp_path / "e", **OPTIONS).to_bytes() for _ in range(2))
    assert first == again
    assert edgedd.distill(DATA, method="mtt", experts=tmp_path / "e", seed=1, **OPTIONS).to_bytes() != first
    assert replace(MTT, experts=str(tmp_path / "e")).split_seed(DATA.fingerprint, 7) == 3
    assert MTT.split_seed(DATA.fingerprint, 7) == 7


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (DATA, {"method": "dm", "settings": {}}, "reads no experts"),
        (DATA, {"method": "mtt", "width": 6}, "set --width"),
        (DATA, {"method": "mtt", "settings": {"latest": "3", "expert_epochs": "1"}}, "have 2 epochs, wanted 3"),
        (tiny_images(count=63, shape=(3, 8, 8), num_classes=3), {"method": "mtt"}, "are of data"),
    ],
)
def test_experts_that_do_not_fit_are_refused(tmp_path: Path, data: Any, options: dict[str, Any], message: str) -> None:
    experts(DATA, tmp_path / "e", count=1, epochs=2, width=4)
    with pytest.raises(SettingError, match=message):
        edgedd.distill(data, experts=tmp_path / "e", **OPTIONS | options)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_run_without_experts_trains_them_and_rounds_in_the_loop(bits: int) -> None:
    stages: list[str] = []
    settings = OPTIONS["settings"] | {"expert_count": "2"}
    made = edgedd.distill(
        DATA, method="lss", bits=bits, on_step=lambda p: stages.append(p.stage), **OPTIONS | {"settings": settings}
    )
    assert stages.count("experts") == 4
    assert made.bits == bits
    assert np.isfinite(made.images(slice(None))).all()


@pytest.mark.slow
def test_killed_at_a_random_moment(tmp_path: Path) -> None:
    """SIGKILL of `edgedd experts`, then of a run that reads them: both end in the files of an unbroken one."""
    data = _npz(tmp_path)
    command = [sys.executable, "-m", "edgedd", "experts", "--data", str(data), "--count", "2", "--epochs", "6"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([*command, "--width", "8", "-o", str(whole)], check=True, capture_output=True, timeout=600)
    _killed([*command, "--width", "8", "-o", str(cut)], cut / "expert-00000.part")
    subprocess.run([*command, "--width", "8", "-o", str(cut)], check=True, capture_output=True, timeout=600)
    assert contents(cut) == contents(whole)
    script = (
        "import edgedd, sys; from edgedd.distillation.checkpoint import Checkpoint; Checkpoint.due = lambda self: True;"
        "edgedd.distill(sys.argv[1], method='datm', ipc=2, rank=3, bits=4, iterations=30, width=8, experts=sys.argv[2],"
        " recipe=edgedd.Recipe(), settings={'inner_steps': '3', 'latest': '2'}, output=sys.argv[3],"
        " resume=bool(sys.argv[4:]))"
    )
    run = [sys.executable, "-c", script, str(data), str(whole)]
    subprocess.run([*run, str(tmp_path / "a.safetensors")], check=True, capture_output=True, timeout=600)
    _killed([*run, str(tmp_path / "b.safetensors")], tmp_path / "b.safetensors.checkpoint")
    subprocess.run([*run, str(tmp_path / "b.safetensors"), "resume"], check=True, capture_output=True, timeout=600)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def _npz(folder: Path) -> Path:
    path = folder / "data.npz"
    names = ("train_images", "train_labels", "test_images", "test_labels")
    arrays = {name: getattr(DATA, name) for name in names}
    np.savez(path, **{n: v.transpose(0, 2, 3, 1) if v.ndim == 4 else v for n, v in arrays.items()})
    return path


def _killed(command: list[str], sign: Path) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    deadline = time.monotonic() + 300
    while not sign.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sign.exists(), "killed too late to show anything"
