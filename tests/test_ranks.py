"""Two processes through gloo give what one gives; a rank that dies leaves a whole checkpoint."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgedd import load_data
from edgedd.distillation import ranks
from edgedd.distillation.ranks import Ranks
from edgedd.distillation.run import distill
from edgedd.errors import SettingError
from edgedd.recipe import Recipe
from edgedd.synthetic_set import SyntheticSet

pytestmark = pytest.mark.usefixtures("one_torch_thread")
COMMON: dict[str, Any] = {"ipc": 2, "rank": 4, "subspaces": 2, "bits": 16, "labels": "hard", "recipe": Recipe()}
SEGMENTS = {
    "width": "8",
    "inner_steps": "3",
    "expert_epochs": "1",
    "latest": "1",
    "expert_count": "3",
    "threshold": "0",
}
SETTINGS = {
    "dm": {"batch_real": "9", "width": "8"},
    "iid": {"batch_real": "9", "width": "8", "pool_epochs": "1", "pool": "1"},
    "dsa": {"batch_real": "9", "width": "8", "image_steps": "2", "epochs": "2", "warm_up_networks": "1"},
    "dsac": {"batch_real": "9", "width": "8", "image_steps": "2", "epochs": "2", "warm_up_networks": "1"},
    "frepo": {"batch_real": "33", "width": "8", "pool": "2"},
    "snapshots": {"networks": "1", "train_steps": "6", "real_per_class": "9", "width": "8"},
    "mtt": SEGMENTS,
    "lss": SEGMENTS | {"contrastive": "0.1", "start": "random"},
}
SCRIPT = """
import atexit, os, signal, sys
from pathlib import Path

def leave_no_thread():  # one that lives on may ask for the interpreter while that ends, which aborts the process
    names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    if any("gloo" in name for name in names):
        os._exit(3)

if sys.argv[3] == "none":
    atexit.register(leave_no_thread)
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from test_ranks import COMMON, SETTINGS, run
folder = Path(sys.argv[1])
for method in sys.argv[2].split(","):
    dies = sys.argv[3] == os.environ["RANK"]
    run(method, folder / f"{{method}}.safetensors", dies=dies)
"""


def run(method: str, output: Path, *, dies: bool = False, **more: Any) -> SyntheticSet:
    """Four iterations in float32 (in bfloat16 a divided batch rounds otherwise); `dies`: killed in the third."""
    from edgedd.distillation import compute, loop
    from edgedd.distillation.checkpoint import Checkpoint

    Checkpoint.__init__.__defaults__ = (0.0,)  # type: ignore[attr-defined]
    step, seen = loop.Loop._step, []

    def deadly(self: Any, on_step: Any) -> None:
        seen.append(1)
        if dies and len(seen) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        step(self, on_step)

    loop.Loop._step, fast = deadly, compute.multiplies_bfloat16  # type: ignore[method-assign]
    compute.multiplies_bfloat16 = lambda compiled: False
    try:
        options = COMMON | {"iterations": 4, "output": output, "settings": SETTINGS[method]} | more
        return distill(load_data("digits"), method=method, **options)
    finally:
        loop.Loop._step, compute.multiplies_bfloat16 = step, fast  # type: ignore[method-assign]


def two_ranks(tmp_path: Path, methods: str, dying: str = "none") -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = SCRIPT.format(tests=str(Path(__file__).parent))
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), methods, dying],
            env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=Path(__file__).parent.parent,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def factors(synthetic: SyntheticSet) -> np.ndarray:
    parts = [v.astype(np.float64).ravel() for n, v in sorted(synthetic.tensors.items()) if n.startswith("factors.")]
    return np.concatenate(parts)


@pytest.mark.parametrize(
    "methods",
    ["dm,dsac", *(pytest.param(some, marks=pytest.mark.slow) for some in ("iid,dsa,frepo,snapshots", "mtt,lss"))],
)
def test_two_ranks_give_the_factors_of_one(methods: str, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    processes = two_ranks(tmp_path / "two", methods)
    ones = {}
    for method in methods.split(","):
        start = factors(run(method, tmp_path / "one" / "start.safetensors", iterations=1))
        ones[method] = factors(run(method, tmp_path / "one" / f"{method}.safetensors"))
        assert np.abs(ones[method] - start).max() > 1e-2
    for process in processes:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    for method, one in ones.items():
        two = factors(SyntheticSet.load(tmp_path / "two" / f"{method}.safetensors"))
        np.testing.assert_allclose(two, one, atol=2e-3)
    assert not list((tmp_path / "two").glob("*.checkpoint"))


@pytest.mark.slow
@pytest.mark.parametrize("dying", ["0", "1"])
def test_a_rank_that_dies_ends_the_run_and_leaves_a_checkpoint(dying: str, tmp_path: Path) -> None:
    processes = two_ranks(tmp_path, "dm", dying)
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert processes[int(dying)].returncode == -signal.SIGKILL
    survivor = 1 - int(dying)
    line = errors[survivor].strip().splitlines()[-1]
    assert processes[survivor].returncode == 1
    assert line.endswith(
        f"EdgeddError: rank {survivor} has lost the others: the checkpoint is whole, start the run again with --resume"
    )
    resumed = factors(run("dm", tmp_path / "dm.safetensors", resume=True))
    whole = factors(run("dm", tmp_path / "whole.safetensors"))
    np.testing.assert_allclose(resumed, whole, atol=2e-3)


def test_without_torchrun_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone, values = ranks.join("cpu", 10), torch.ones(3, 2)
    assert alone == Ranks(0, 1) and alone.main and list(alone.own(3)) == [0, 1, 2]
    assert alone.gathered(values, 3) is values and alone.agreed(values) is values


def test_more_ranks_than_classes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert not ranks.speaks()
    with pytest.raises(SettingError, match="4 ranks for 3 classes, wanted whole classes for each: start fewer ranks"):
        ranks.join("cpu", 3)
    assert [list(Ranks(r, 4).own(6)) for r in range(4)] == [[0, 4], [1, 5], [2], [3]]
