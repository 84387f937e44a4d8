"""Who may import whom, read from the source, and a device that has none of the server's packages."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_sets import random_set

from edgedd.exporting import export
from edgedd.parameterization import Formation, LowRank, Parameterization, SharedBasis

PACKAGE = Path(__file__).parent.parent / "edgedd"
ROOMS = ("distillation", "exporting", "device", "baselines", "report", "commands")
CONTRACT = ("parameterization", "storage", "bundles", "planning")  # and of the files beside them all but these:
THROUGH_SEVERAL = ("__init__", "__main__", "cli", "continual", "demonstration", "evaluation", "prediction", "ranking")
THROUGH_SEVERAL += ("rehearsing", "student_trainings")
HEAVY = ("torch", "torchvision", "onnx", "onnxscript", "scipy", "tensorly", "sklearn", "matplotlib")


def imported(path: Path, everywhere: bool) -> Iterator[str]:
    """Full names of what a file imports, at module level or inside functions too; for type checking does not count."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending.extend(ast.iter_child_nodes(node))


def sources(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def rooms(*names: str) -> tuple[str, ...]:
    return tuple(f"edgedd.{name}" for name in names)


def contract() -> list[Path]:
    beside = [path for path in sorted(PACKAGE.glob("*.py")) if path.stem not in THROUGH_SEVERAL]
    return [*beside, *(path for folder in CONTRACT for path in sources(folder))]


@pytest.mark.parametrize("path", contract(), ids=lambda p: f"{p.parent.stem}-{p.stem}")
def test_the_contract_stands_alone(path: Path) -> None:
    """But to train a bundle's graph once, and to ask what a graph of a student that is not there yet would take."""
    allowed = {"verification.py": rooms("device"), "plan.py": rooms("device", "exporting")}.get(path.name, ())
    found = [n for n in imported(path, everywhere=True) if within(n, rooms(*ROOMS))]
    assert not [n for n in found if not within(n, allowed)]
    assert not [n for n in imported(path, everywhere=False) if within(n, (*rooms(*ROOMS), *HEAVY, "onnxruntime"))]


@pytest.mark.parametrize("path", sources("device"), ids=lambda p: p.name)
def test_the_device_needs_no_server(path: Path) -> None:
    forbidden = (*rooms("distillation", "exporting", "baselines", "report"), *HEAVY)
    assert not [n for n in imported(path, everywhere=True) if within(n, forbidden)]


@pytest.mark.parametrize("path", sources("exporting"), ids=lambda p: p.name)
def test_exporting_needs_onnx_alone(path: Path) -> None:
    """But to trace a torch module, to quantise, and to train the weights that are quantised."""
    allowed = {"own_model.py": ("torch",), "int8.py": ("onnxruntime",), "export.py": rooms("device")}.get(path.name, ())
    forbidden = (*rooms("distillation", "device", "baselines", "report"), "torch", "onnxruntime")
    assert not [n for n in imported(path, everywhere=False) if within(n, forbidden)]
    assert not [n for n in imported(path, everywhere=True) if within(n, forbidden) and not within(n, allowed)]


@pytest.mark.parametrize("room", ROOMS[:4])
def test_no_room_imports_the_report(room: str) -> None:
    for path in sources(room):
        assert not [n for n in imported(path, everywhere=True) if within(n, rooms("report"))]


BLOCKED = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None  # importing it now raises ImportError
"""


def run_apart(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "form",
    [LowRank((3, 8, 8), 3, 2, 4), Formation((3, 8, 8), 2, 4), SharedBasis((3, 8, 8), 3, 2, 2, half=True)],
    ids=lambda form: form.kind,
)
def test_a_device_without_the_servers_packages_trains(form: Parameterization, tmp_path: Path) -> None:
    export(random_set(form, 3, 4, seed=0), tmp_path / "bundle", student="convnet2-w8")
    code = f"""{BLOCKED}
import numpy as np
import edgedd
student = edgedd.Student.load(sys.argv[1])
assert student.fit(steps=3).steps == 3
student.save(sys.argv[2])
logits = student.predict(np.zeros((5, 8, 8, 3), np.uint8))
assert logits.shape == (5, 3) and np.isfinite(logits).all()
print(student.step(np.zeros((2, 3, 8, 8), np.float32), np.full((2, 3), 1 / 3, np.float32), 0.01))
"""
    assert np.isfinite(float(run_apart(code, str(tmp_path / "bundle"), str(tmp_path / "weights.safetensors"))))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_importing_the_device_room_is_light() -> None:
    code = """
import re, sys, edgedd.device
assert "onnxruntime" not in sys.modules
print(re.search(r"VmRSS:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
"""
    assert int(run_apart(code)) <= 48 * 1024
