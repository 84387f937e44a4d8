"""The commands as a user meets them: data on stdout, messages on stderr, JSON that says the same as the tables."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, Made, Ran
from PIL import Image
from tiny_sets import golden

import edgedd
from edgedd import demonstration
from edgedd.commands import output
from edgedd.commands.output import spoken_command
from edgedd.distillation import recipe_search

RANDOM = ("distill", "--data", "digits", "--method", "random", "--labels", "hard", "--bytes", 2900)


def succeeded(ran: Ran) -> str:
    assert ran.status == 0, ran.err
    return ran.out


def json_of(ran: Ran) -> Any:
    return json.loads(succeeded(ran))


@pytest.fixture
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_search, "TRIAL_STEPS", 2)


def test_inspect_says_the_size_on_disk(command: Command, made: Made) -> None:
    size = os.stat(made.synthetic).st_size
    values = json_of(command("inspect", made.synthetic, "--json"))
    assert values["bytes"] == size == sum(values["parts"].values())
    ran = command("inspect", made.synthetic)
    assert f"{size:,} bytes" in succeeded(ran)
    assert ran.err == ""


def test_inspect_counts_what_another_writer_padded(command: Command, tmp_path: Path) -> None:
    content = golden().to_bytes()
    length = int.from_bytes(content[:8], "little")
    padded = (length + 16).to_bytes(8, "little") + content[8 : 8 + length] + b" " * 16 + content[8 + length :]
    path = tmp_path / "padded.safetensors"
    path.write_bytes(padded)
    values = json_of(command("inspect", path, "--json"))
    assert values["bytes"] == len(padded) == sum(values["parts"].values())


@pytest.mark.usefixtures("short_search")
def test_distill(command: Command, tmp_path: Path) -> None:
    table, data = tmp_path / "table.safetensors", tmp_path / "json.safetensors"
    ran = command(*RANDOM, "-o", table)
    size = table.stat().st_size
    assert size <= 2900
    assert f"{size:,} bytes" in succeeded(ran)
    done, told = map(int, re.findall(r"recipe search (\d+)/(\d+), ", ran.err)[-1])
    assert done == told and done in range(14, 14 + 12 + 1, 2)  # twice three more for each of two close finalists
    values = json_of(command(*RANDOM, "--seed", 0, "--resume", "--json", f"--output={data}"))
    assert values["bytes"] == data.stat().st_size
    assert values["provenance"]["command"] == " ".join(["edgedd", *map(str, RANDOM), "--seed 0"])
    assert sorted(os.listdir(tmp_path)) == ["json.safetensors", "table.safetensors"]


def test_a_set_with_the_recipe_of_another(command: Command, made: Made, tmp_path: Path) -> None:
    ran = command(*RANDOM, "--recipe", made.synthetic, "-o", tmp_path / "new.safetensors", "--json")
    assert json_of(ran)["recipe"] == json_of(command("inspect", made.synthetic, "--json"))["recipe"]
    assert "recipe search" not in ran.err


@pytest.mark.usefixtures("short_search")
def test_the_same_command_gives_the_same_bytes_wherever_they_go(command: Command, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    first, second, third = (tmp_path / name for name in ("one.st", "elsewhere/two.st", "three.st"))
    for path, seed in ((first, 3), (second, 3), (third, 4)):
        succeeded(command(*RANDOM, "--seed", seed, "-o", path))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() != third.read_bytes()


@pytest.mark.parametrize(
    ("words", "spoken"),
    [
        ("--data /home/me/cats -o /home/me/out.st --seed 1", "--data cats --seed 1"),
        ("--data=/home/me/cats/ --output=/home/me/out.st", "--data=cats"),
        ("-o/home/me/out.st --output /home/me/out.st --data ./x.npz", "--data x.npz"),
        ("-o -o --data digits --set lr=0.5 --resume --json", "--data digits --set lr=0.5"),
        ("--data /", "--data /"),
    ],
)
def test_the_command_in_the_provenance_has_no_folder_and_no_output(words: str, spoken: str) -> None:
    assert spoken_command(["/opt/bin/edgedd", "distill", *words.split()]) == f"edgedd distill {spoken}"


def test_export_lists_every_file_with_its_bytes(command: Command, made: Made, tmp_path: Path) -> None:
    arguments = ("export", made.synthetic, "-o", tmp_path / "bundle", "--student", "convnet2-w8")
    target = "raspberry-pi-zero-2w"
    values = json_of(command(*arguments, "--mode", "head", "--target", target, "--json"))
    assert (values["student"], values["mode"]) == ("convnet2-w8", "head")
    assert values["files"] == {path.name: path.stat().st_size for path in (tmp_path / "bundle").iterdir()}
    assert json.loads((tmp_path / "bundle/manifest.json").read_text())["target"] == target
    out = succeeded(command(*arguments))
    for name in os.listdir(tmp_path / "bundle"):
        assert name in out


def test_train_then_evaluate_the_weights(command: Command, made: Made, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    arguments = ("train", made.bundle, "-o", weights, "--threads", 1, "--data", "digits")
    values = json_of(command(*arguments, "--json"))
    assert (values["steps"], values["student"], values["weights"]) == (3, "convnet2-w8", str(weights))
    assert weights.read_bytes() == made.weights.read_bytes()
    ran = command(*arguments)
    assert succeeded(ran).startswith("convnet2-w8: 3 steps in ")
    assert ran.out.endswith(f"{weights}\n")
    assert "training" in ran.err
    row = json_of(command("evaluate", made.bundle, "--data", "digits", "--weights", weights, "--json"))[0]
    assert row["accuracy"] == values["accuracy"]
    table = succeeded(command("evaluate", made.bundle, "--data", "digits", "--weights", weights))
    assert f"{100 * row['accuracy']:.1f} %" in table
    assert "+-" not in table


def test_evaluate_a_set(command: Command, made: Made) -> None:
    arguments = ("evaluate", made.synthetic, "--data", "digits", "--students", "convnet2-w8", "--seeds", 2)
    row = json_of(command(*arguments, "--seed", 5, "--json"))[0]
    assert row["seeds"] == [5, 6]
    assert row["bytes"] == made.synthetic.stat().st_size
    assert row["accuracy"] == pytest.approx(np.mean(row["accuracies"]))
    assert row["spread"] == pytest.approx(abs(np.subtract(*row["accuracies"])) / 2**0.5)
    ran = command(*arguments)
    assert re.search(r"convnet2-w8 .*\+- .* 2 ", succeeded(ran))
    assert ran.err.startswith("evaluating 2/2")


def test_predict_pictures_and_arrays_alike(command: Command, made: Made, tmp_path: Path) -> None:
    images = edgedd.load_data("digits").test_images[:3]
    np.save(tmp_path / "three.npy", images[:, 0])
    Image.fromarray(images[1, 0]).save(tmp_path / "one.png")
    Image.fromarray(images[1, 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    student = edgedd.Student.load(made.bundle, threads=1)
    student.load_weights(made.weights)
    best = [student.classes[k] for k in student.predict(images).argmax(axis=1)]
    files = [tmp_path / name for name in ("three.npy", "one.png", "deep.png")]
    rows = json_of(command("predict", made.bundle, *files, "--weights", made.weights, "--json"))
    assert [row["class"] for row in rows] == [*best, best[1], best[1]]
    assert rows[3]["classes"] == rows[4]["classes"] == pytest.approx(rows[1]["classes"], abs=1e-5)
    for row in rows:
        assert sum(row["classes"].values()) == pytest.approx(1)
        assert row["probability"] == max(row["classes"].values()) == row["classes"][row["class"]]
    table = succeeded(command("predict", made.bundle, files[1], "--weights", made.weights))
    assert f"{100 * rows[3]['probability']:.1f} %" in table


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--parameterization formation --bits 4", "formation 2x2, 4 bits"),
        ("--parameterization shared_basis --half --rank 3", "shared_basis, rank 3, subspaces 1, half"),
    ],
)
def test_a_form_from_distill_to_the_picture(command: Command, tmp_path: Path, options: str, said: str) -> None:
    out = succeeded(command(*RANDOM, *options.split(), "-o", tmp_path / "set.st"))
    assert said in " ".join(out.split())
    assert os.stat(tmp_path / "set.st").st_size <= 2900
    succeeded(command("preview", tmp_path / "set.st", "-o", tmp_path / "grid.png"))
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.format == "PNG"


def test_preview_prints_the_picture_it_drew(command: Command, tmp_path: Path) -> None:
    synthetic = golden()
    object.__setattr__(synthetic, "classes", ("$a$b$\\frac$", "日本"))
    synthetic.save(tmp_path / "set.st")
    ran = command("preview", tmp_path / "set.st", "-o", tmp_path / "grid.png")
    assert succeeded(ran) == f"{tmp_path / 'grid.png'}\n"
    assert ran.err == ""
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.format == "PNG"


def test_what_a_file_says_is_shown_as_it_is(command: Command, tmp_path: Path) -> None:
    synthetic = golden()
    object.__setattr__(synthetic, "provenance", {"[bold]": "[/red] \x1b[31m", "method": "\x9b2J"})
    synthetic.save(tmp_path / "set.st")
    out = succeeded(command("inspect", tmp_path / "set.st"))
    for text in ("[bold]", "[/red] \\x1b[31m", "\\x9b2J"):
        assert text in out
    assert "\x1b" not in out


def test_targets(command: Command) -> None:
    values = json_of(command("targets", "--json"))
    assert [target["name"] for target in values] == list(edgedd.targets())
    out = succeeded(command("targets", values[0]["name"]))
    assert values[0]["title"] in out
    assert "measured" in out or "estimated" in out


def test_demo_prints_its_comparison(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = {"what": "synthetic set", "bytes": 4096, "ipc": 9, "accuracy": 0.5, "accuracies": [0.5], "seeds": 1}
    result = {"rows": [row], "files": {"bundle": "demo/bundle"}, "student": "convnet2-w32", "seconds": 1.0}
    monkeypatch.setattr(demonstration, "demo", lambda folder, on_step: result)
    assert json_of(command("demo", "--folder", tmp_path, "--json")) == result
    out = succeeded(command("demo", "--folder", tmp_path))
    assert "50.0 %" in out
    assert "bundle: demo/bundle" in out


@pytest.mark.slow
def test_demo_beats_random_images_of_the_same_bytes(command: Command, tmp_path: Path) -> None:
    rows = {row["what"]: row for row in json_of(command("demo", "--folder", tmp_path / "demo", "--json"))["rows"]}
    assert rows["synthetic set"]["bytes"] <= demonstration.BYTES
    assert rows["synthetic set"]["accuracy"] > rows["random real images"]["accuracy"]
    assert (tmp_path / "demo/preview.png").exists()


def test_help_and_interrupts(command: Command, monkeypatch: pytest.MonkeyPatch, made: Made) -> None:
    for arguments in ((), ("--help",)):
        assert "distill" in succeeded(command(*arguments))
    assert "--bytes" in succeeded(command("distill", "--help"))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "print_inspection", interrupted)
    ran = command("inspect", made.synthetic)
    assert (ran.status, ran.out, ran.err) == (130, "", "edgedd: interrupted\n")


WITHOUT_EXTRAS = """
import sys
for name in ("torch", "onnx", "tensorly", "sklearn", "matplotlib", "PIL"):
    sys.modules[name] = None
from edgedd.cli import main
main()
"""


def test_as_a_process_of_its_own(made: Made, tmp_path: Path) -> None:
    bundle = shutil.copytree(made.bundle, tmp_path / "bundle")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)

    done = run("-m", "edgedd", "inspect", "missing.safetensors")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("edgedd: cannot read missing.safetensors: ")
    done = run("-c", WITHOUT_EXTRAS, "export", made.synthetic, "-o", "other")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "edgedd: onnx is not installed and this command needs it: pip install 'edgedd[distill]'\n"
    done = run("-c", WITHOUT_EXTRAS, "train", bundle, "-o", "weights.safetensors")
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["bundle", "weights.safetensors"]
