"""The pages of docs/ keep their promises: their code runs as it stands, their commands, links and error lines exist.

Blocks: `python` and `sh` run, page by page, in a folder with small files of the names that the pages use; `sh slow`
runs with the slow tests only; `toml` is a target; `console` is for another machine (root, network, a board): its
commands of edgedd are parsed; `text` is output.
"""

import ast
import re
import shlex
import shutil
import subprocess
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import Command
from PIL import Image
from typer.main import get_command

import edgedd
from edgedd.cli import app
from edgedd.distillation import recipe_search
from edgedd.distillation.methods import METHODS
from edgedd.parameterization import LowRank

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
RUN = ("server.md", "device.md", "targets.md", "methods.md", "own-method.md", "own-model.md", "troubleshooting.md")
QUICK = ("device.md", "troubleshooting.md")
KINDS = {"python", "sh", "sh slow", "toml", "console", "text", ""}
ELSEWHERE = {"pip", "sudo", "torchrun", "edgedd"}
CLASSES = ("bird", "cat", "dog")


class Block(NamedTuple):
    """A fenced block of a page: its info string, its text, and the line where it begins."""

    kind: str
    text: str
    line: int


def blocks(name: str) -> list[Block]:
    text = (ROOT / "docs" / name).read_text()
    found = re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(match[1], match[2], text[: match.start()].count("\n") + 2) for match in found]


def pictures(folder: Path, classes: Sequence[str], count: int) -> None:
    """folder/CLASS/N.png: grey, 8 x 8, a pattern a class under noise."""
    for name in classes:
        generator = np.random.default_rng(list(name.encode()))
        pattern = generator.integers(60, 196, (8, 8))
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(pattern + generator.normal(0, 25, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take as given."""
    folder = tmp_path_factory.mktemp("docs")
    pictures(folder / "photos" / "train", CLASSES, 12)
    pictures(folder / "photos" / "test", CLASSES, 4)
    pictures(folder / "new", ("cat", "fox"), 6)
    images = edgedd.load_data(str(folder / "photos")).train_images[::3]
    mean, std = np.float32([0.5]), np.float32([0.25])
    form = LowRank((1, 8, 8), 6, 1, 8)
    synthetic = edgedd.SyntheticSet.from_factors(
        form,
        factors=form.encode((images / np.float32(255) - mean[0]) / std[0]),
        labels=np.repeat(np.eye(3), 4, axis=0),
        mean=mean,
        std=std,
        recipe=edgedd.Recipe(steps=10, batch_size=8),
        classes=CLASSES,
        provenance={},
    )
    synthetic.save(folder / "set.safetensors")
    edgedd.export(synthetic, folder / "bundle", student="convnet1-w8")
    with zipfile.ZipFile(folder / "bundle.edgedd.zip", "w") as archive:
        for path in sorted((folder / "bundle").iterdir()):
            archive.write(path, path.name)
    np.save(folder / "picture.npy", np.zeros((8, 8), np.uint8))
    return folder


@pytest.fixture
def page(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> Any:
    """Runs a page's blocks in a copy of the files; recipes are searched by trials of 3 steps, else they take most."""
    monkeypatch.setattr(recipe_search, "TRIAL_STEPS", 3)
    monkeypatch.setattr(recipe_search, "LONGEST", 3)
    folder = tmp_path / "page"
    shutil.copytree(files, folder)
    monkeypatch.chdir(folder)

    def run(name: str, *, slow: bool) -> int:
        namespace: dict[str, Any] = {"__name__": name}
        ran = 0
        for block in blocks(name):
            if block.kind == "python":
                exec(compile("\n" * (block.line - 1) + block.text, name, "exec"), namespace)
            elif block.kind == "sh" or (slow and block.kind == "sh slow"):
                for line in block.text.splitlines():
                    shell(line, command)
            elif block.kind == "toml":
                Path("my-board.toml").write_text(block.text)
                assert edgedd.load_target("./my-board.toml").name == "my-board"
            else:
                continue
            ran += 1
        return ran

    return run


def shell(line: str, command: Command) -> None:
    """One line: a command of edgedd within this process, any other in a shell."""
    words, _, output = line.partition(" > ")
    if not line.startswith("edgedd "):
        subprocess.run(line, shell=True, check=True, capture_output=True, timeout=60)
        return
    ran = command(*shlex.split(words)[1:])
    assert ran.status == 0, f"{line}: {ran.err}"
    if output:
        Path(output).write_text(ran.out)


@pytest.mark.parametrize("name", QUICK)
def test_its_quick_code_runs(name: str, page: Any) -> None:
    assert page(name, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_all_its_code_runs(name: str, page: Any) -> None:
    assert page(name, slow=True)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_commands_and_kinds_of_blocks(path: Path) -> None:
    text = path.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (path.parent / link).exists(), link
    for name in re.findall(r"`((?:benchmarks|examples|edgedd)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
    if path.name in RUN:
        assert {block.kind for block in blocks(path.name)} <= KINDS - {""}
    for line in commands(path.name):
        _, name, *arguments = shlex.split(line.partition(" > ")[0])
        known = get_command(app).commands
        assert name in known, line
        if arguments:
            known[name].make_context(name, arguments)


def commands(name: str) -> Iterator[str]:
    """Every command of edgedd, in blocks and, where it is whole, in the text."""
    for block in blocks(name):
        if block.kind == "console":
            for line in block.text.splitlines():
                assert shlex.split(line)[0] in ELSEWHERE, line
        if block.kind in ("sh", "sh slow", "console"):
            yield from (line for line in block.text.splitlines() if line.startswith("edgedd "))
    text = re.sub(r"^```.*?^```$", "", (ROOT / "docs" / name).read_text(), flags=re.DOTALL | re.MULTILINE)
    yield from (line for line in re.findall(r"`(edgedd [a-z]+[^`]*)`", text) if "..." not in line)


def test_every_page_is_run_or_tested_elsewhere() -> None:
    assert {path.name for path in PAGES} - set(RUN) == {"format.md", "training-graph.md"}


def test_the_methods_are_those_that_exist() -> None:
    table = (ROOT / "docs" / "methods.md").read_text().partition("## Results")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(cells[1:]))) == set(METHODS)


def messages() -> list[list[str]]:
    """Everything that edgedd can say: the parts between what is filled in."""
    found = []
    for path in (ROOT / "edgedd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append([part.value if isinstance(part, ast.Constant) else "" for part in node.values])
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append([node.value])
    return [parts for parts in found if len("".join(parts)) > 20]


def says(parts: list[str], line: str) -> bool:
    """Whether the line is the parts in their order with anything in the places of the empty ones."""
    if not line.startswith(parts[0]) or not line.endswith(parts[-1]) or (len(parts) == 1 and line != parts[0]):
        return False
    at = 0
    for part in parts:
        at = line.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def test_error_lines_are_the_programs_own() -> None:
    known = messages()
    said = [line for block in blocks("troubleshooting.md") if block.kind == "text" for line in block.text.splitlines()]
    assert len(said) > 15
    for line in said:
        assert any(says(parts, text) for parts in known for text in (line, line.partition(": ")[2])), line
    assert not any(says(parts, "set.safetensors: format version 9, buy a newer edgedd") for parts in known)
