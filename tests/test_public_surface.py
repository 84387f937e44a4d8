"""`import edgedd` costs nothing, and what it promises is there."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import edgedd

PACKAGE = Path(edgedd.__file__).parent
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "sklearn", "tensorly", "scipy", "matplotlib", "PIL")


def packages_after(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded once `code` has run."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout))


def test_importing_edgedd_loads_nothing() -> None:
    loaded = packages_after("import edgedd; edgedd.__version__, edgedd.__all__, dir(edgedd)")
    assert not loaded & {"numpy", "safetensors", "typer", "rich", *HEAVY}


def test_importing_the_commands_loads_no_room() -> None:
    assert not packages_after("import edgedd.cli") & set(HEAVY)


@pytest.mark.parametrize("name", edgedd.__all__)
def test_every_public_name_can_be_imported_and_says_what_it_is(name: str) -> None:
    value = getattr(edgedd, name)
    assert value.__name__ == name
    assert value.__module__.startswith("edgedd.")
    assert value.__doc__


@pytest.mark.parametrize("name", edgedd.__all__)
def test_no_module_hides_a_public_name(name: str) -> None:
    """Importing `edgedd.export`, were it a module, would put it in the place of the function."""
    assert not (PACKAGE / f"{name}.py").exists()
    assert not (PACKAGE / name / "__init__.py").exists()


def test_all_is_what_there_is() -> None:
    assert sorted(edgedd.__all__) == edgedd.__all__ == sorted(edgedd._ROOMS)
    assert dir(edgedd) == sorted([*edgedd.__all__, "__version__"])
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == set(edgedd.__all__)
    scope: dict[str, object] = {}
    exec("from edgedd import *", scope)
    assert set(edgedd.__all__) <= scope.keys()


def test_another_name_is_refused_by_name() -> None:
    with pytest.raises(AttributeError, match="'edgedd' has no attribute 'destill'"):
        _ = edgedd.destill
