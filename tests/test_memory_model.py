"""The prediction of a training process's memory: by hand, in what it grows with, measured, and where it refuses."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_sets import random_set

from edgedd.device import Student, free_memory
from edgedd.errors import BudgetError
from edgedd.exporting import export
from edgedd.exporting.builder import GraphBuilder
from edgedd.exporting.memory import execution_order, peak_bytes_per_image
from edgedd.parameterization import LowRank
from edgedd.planning import memory_model
from edgedd.planning.memory_model import Breakdown, largest_map_bytes, predict, workers

CONV, LINEAR = (8, 3, 3, 3), (10, 32)
PARAMETERS = {"conv": CONV, "linear": LINEAR}
FULL = {f"{kind}.{name}": shape for name, shape in PARAMETERS.items() for kind in ("p", "sum", "momentum")}
HEAD = {name: shape for name, shape in FULL.items() if name.endswith("linear")}
CONV_BYTES, LINEAR_BYTES = 4 * 216, 4 * 320
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its memory from /proc")


def said(**changes: Any) -> Breakdown:
    given: dict[str, Any] = {"parameters": PARAMETERS, "carried": FULL, "graph_bytes": 1000, "set_bytes": 500}
    given |= {"activation_bytes": 60_000, "image_shape": (3, 8, 8), "batch": 8, "micro_batch": 2}
    return predict(**{**given, **changes})


def test_the_parts_by_hand() -> None:
    parts = said()
    assert parts.session == memory_model.SESSION_PER_BYTE * 1000
    assert parts.parameters == 9 * (CONV_BYTES + LINEAR_BYTES)
    assert parts.activations == 2 * 60_000
    assert parts.scratch == 3 * CONV_BYTES
    assert parts.data == 2 * 500 + 4 * 3 * 64 * (2 * 8 + 3 * 2)
    assert parts.total == sum(parts.parts().values()) and len(parts.lines()) == len(parts.parts()) + 1
    assert said(carried=HEAD).parameters == CONV_BYTES + 9 * LINEAR_BYTES
    assert said(threads=2).parameters == (9 + 3 + 2) * (CONV_BYTES + LINEAR_BYTES)
    assert largest_map_bytes(PARAMETERS, (3, 8, 8)) == 4 * 8 * 64


def test_a_batch_is_shared_in_whole_micro_batches() -> None:
    assert [workers(8, u, 2) for u in (1, 4, 5, 8)] == [2, 2, 2, 1]
    assert workers(1, 1, 4) == 1 and workers(64, 1, 3) == 3


def test_it_grows_with_what_takes_memory() -> None:
    wide = {name: (4 * shape[0], *shape[1:]) for name, shape in FULL.items()}
    for more in ({"batch": 16}, {"micro_batch": 4}, {"threads": 2}, {"carried": wide}, {"graph_bytes": 2000}):
        assert said(**more).total > said().total
    assert said(carried=HEAD).total < said().total
    assert said(low_memory=True).total < said().total
    assert said(threads=2, low_memory=True) == said(low_memory=True)


def test_nodes_run_depth_first_and_die_after_their_last_use() -> None:
    b = GraphBuilder()
    x = b.input("x", ("n", 4))
    doubled = [b.node("Add", x, x) for _ in range(3)]
    sums = [b.node("ReduceSum", value, b.integers(0), keepdims=0) for value in doubled]
    b.node("Concat", *sums, axis=0)
    assert [n.op_type for n in execution_order(b.nodes)] == ["Add", "ReduceSum"] * 3 + ["Concat"]
    assert peak_bytes_per_image(b) == 16


def test_a_batch_in_any_dimension_counts() -> None:
    b = GraphBuilder()
    turned = b.node("Transpose", b.input("x", ("n", 4)), perm=[1, 0])
    b.node("ReduceSum", turned, b.integers(1), keepdims=0)
    assert peak_bytes_per_image(b) == 16
    assert isinstance(execution_order(b.nodes)[0], onnx.NodeProto)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("memory") / "bundle"
    export(random_set(LowRank((3, 32, 32), 4, 1, 4), 3, 4, seed=0), path, student="convnet3-w32")
    return path


CHILD = """
import re, sys
import numpy as np
from edgedd.device import Student
from edgedd.device.free_memory import predicted
batch, micro_batch = int(sys.argv[2]), int(sys.argv[3])
student = Student.load(sys.argv[1], threads=1, micro_batch=micro_batch)
images, labels = np.zeros((batch, 3, 32, 32), np.float32), np.full((batch, 3), 1 / 3, np.float32)
for _ in range(5):
    student.step(images, labels, 0.01)
peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
print(predicted(student._sessions, student.synthetic, batch, micro_batch).total / peak)
"""


@needs_proc
@pytest.mark.parametrize("batch, micro_batch", [(4, 2), (32, 32)])
def test_the_prediction_holds_in_a_process_of_its_own(bundle: Path, batch: int, micro_batch: int) -> None:
    command = [sys.executable, "-c", CHILD, str(bundle), str(batch), str(micro_batch)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0.95 <= float(ran.stdout) <= 1.3


@needs_proc
def test_too_little_memory_is_said_before_it_is_taken(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = Student.load(bundle, threads=1, micro_batch=32)
    images, labels = np.zeros((32, 3, 32, 32), np.float32), np.full((32, 3), 1 / 3, np.float32)
    monkeypatch.setattr(free_memory, "free_bytes", lambda: 5_000_000)
    for train in (lambda: student.step(images, labels, 0.1), lambda: student.fit(steps=1)):
        with pytest.raises(
            BudgetError, match=r"MB more, .* activations .*; train with a smaller --micro-batch"
        ) as said:
            train()
        assert "\n" not in str(said.value) and str(said.value).endswith("--low-memory")
    monkeypatch.setattr(free_memory, "free_bytes", lambda: None)
    student.step(images, labels, 0.1)


def test_control_groups_of_both_versions_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "proc/meminfo": "MemAvailable:   2000 kB\n",
        "proc/self/cgroup": "4:memory:/a\n0::/b/c\n",
        "groups/memory/a/memory.limit_in_bytes": "1000000\n",
        "groups/memory/a/memory.usage_in_bytes": "300000\n",
        "groups/b/c/memory.max": "max\n",
        "groups/b/c/memory.current": "1\n",
        "groups/b/memory.max": "900000\n",
        "groups/b/memory.current": "500000\n",
        "groups/b/memory.stat": "anon 1\ninactive_file 100000\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(free_memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(free_memory, "CGROUPS", tmp_path / "groups")
    assert free_memory.free_bytes() == 500_000
    (tmp_path / "groups/b/memory.max").write_text("max\n")
    assert free_memory.free_bytes() == 700_000
    monkeypatch.setattr(free_memory, "PROC", tmp_path / "nowhere")
    assert free_memory.free_bytes() is None and free_memory.resident_bytes() is None


def test_micro_batches_are_of_about_equal_size_and_fit_the_cache() -> None:
    assert [memory_model.even_share(count, 15) for count in (0, 1, 15, 16, 32, 100)] == [1, 1, 15, 8, 11, 15]
    suited = memory_model.suited_micro_batch
    assert suited(64, 2, memory_model.CACHE_BYTES // 5) == 5 and suited(12, 2, memory_model.CACHE_BYTES // 5) == 3
    assert suited(64, 2, 10 * memory_model.CACHE_BYTES) == 3 and suited(1, 2, 10 * memory_model.CACHE_BYTES) == 1
