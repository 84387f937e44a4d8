"""Every mistake of a user's: one line on stderr, exit status 2, nothing on stdout, no file made or left behind."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command, Made
from PIL import Image
from tiny_data import arrays, saved

import edgedd
from edgedd import device
from edgedd.distillation import recipe_search, run

Refused = Callable[..., str]
DIGITS = ("distill", "--data", "digits", "--method", "random", "--labels", "hard")
SET, BUNDLE, WEIGHTS = "set.safetensors", "bundle", "weights.safetensors"


@pytest.fixture
def here(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the commands run in, with a set, a bundle and weights."""
    shutil.copy(made.synthetic, tmp_path / SET)
    shutil.copytree(made.bundle, tmp_path / BUNDLE)
    shutil.copy(made.weights, tmp_path / WEIGHTS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(command: Command, here: Path) -> Refused:
    """Run a command that must be refused; its one line."""

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() if path.is_file() else b"" for path in here.rglob("*")}

    def check(*arguments: object) -> str:
        before = contents()
        ran = command(*arguments)
        assert (ran.status, ran.out) == (2, "")
        assert re.fullmatch(r"edgedd: [^\n]{10,700}\n", ran.err), ran.err
        assert "Traceback" not in ran.err
        assert contents() == before
        return ran.err

    return check


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "bytes nor ipc"),
        ("--bytes 3000 --method nothing", "unknown method 'nothing', wanted one of auto, snapshots, frepo, dm, idm"),
        ("--bytes 3000 --set width=3", "no setting 'width', wanted one of lr, "),
        ("--bytes 3000 --set lr", "--set lr: wanted NAME=VALUE"),
        ("--bytes 3000 --set =3", "wanted NAME=VALUE"),
        ("--bytes 3000 --set lr=fast", "lr='fast', wanted a finite number"),
        ("--bytes 3000 --set lr=nan", "lr='nan', wanted a finite number"),
        ("--bytes 3000 --method dm --set batch_real=0", "batch_real='0', wanted a whole number of at least 1"),
        ("--bytes 3000 --method dm --set batch_real=1.5", "batch_real='1.5', wanted a whole number of at least 1"),
        ("--bytes 3000 --iterations 3 --minutes 1", "both iterations and minutes are given: leave one out"),
        ("--bytes 3000 --labels soft", "labels 'soft', wanted one of auto, hard, teacher, learned"),
        ("--bytes 3000 --bits 3", "bits=3, wanted one of 16, 8, 4, 2"),
        ("--bytes 3000 --rank 9", "rank=9, wanted a whole number in [1, 8]"),
        ("--bytes 3000 --parameterization fourier", "'fourier', wanted low_rank, pixels, formation, shared_basis"),
        ("--half --ipc 3", "low_rank takes no half: leave it out or choose shared_basis"),
        ("--parameterization shared_basis --ipc 1", "10 images for 1 x 16 basis pictures, wanted at least as many"),
        ("--parameterization formation --ipc 3", "ipc=3, wanted a multiple of 4"),
        ("--parameterization formation --formation 3 --ipc 9", "formation=3, wanted a whole number in [2, 2]"),
        ("--bytes 3000 --width 9999", "unknown student 'convnet2-w9999'"),
        ("--bytes 3000 --device tpu", "device 'tpu', wanted cpu or cuda"),
        ("--bytes -1", "bytes=-1, wanted more than 0"),
        ("--ipc 0", "ipc=0, wanted more than 0"),
        ("--bytes 2000 --ipc 50", "more than the budget of 2000"),
        ("--bytes 3000 --recipe other.st", "cannot read other.st: No such file"),
    ],
)
def test_settings_of_distill(refused: Refused, arguments: str, words: str) -> None:
    assert words in refused(*DIGITS, *arguments.split(), "-o", "new.st")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(refused: Refused) -> None:
    assert "use --device cpu" in refused(*DIGITS, "--bytes", 3000, "--device", "cuda", "-o", "new.st")


@pytest.mark.parametrize("form", ["", "--parameterization pixels", "--rank 4 --bits 16"])
def test_a_budget_below_one_image_a_class_says_what_is_enough(
    refused: Refused, command: Command, here: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(recipe_search, "TRIAL_STEPS", 2)
    message = refused(*DIGITS, *form.split(), "--bytes", 1200, "-o", "new.st")
    found = re.search(r"which takes (\d+)", message)
    assert found
    ran = command(*DIGITS, *form.split(), "--bytes", found[1], "-o", "new.st", "--json")
    assert ran.status == 0, ran.err
    assert edgedd.SyntheticSet.load("new.st").ipc == 1
    assert (here / "new.st").stat().st_size <= int(found[1])
    (here / "new.st").unlink()
    refused(*DIGITS, *form.split(), "--bytes", int(found[1]) - 100, "-o", "new.st")  # 32 are for the command


def bad_data(here: Path) -> dict[str, str]:
    """Files and folders that are no data set -> what is said of them."""
    folders = {"one": ["a"], "broken": ["a", "b"]}
    for folder, classes in folders.items():
        for name in classes:
            (here / folder / name).mkdir(parents=True)
            for number in range(3):
                Image.fromarray(np.full((8, 8), 40 * number, np.uint8)).save(here / folder / name / f"{number}.png")
    (here / "broken/b/2.png").write_bytes(b"no picture")
    np.savez(here / "other.npz", x=np.zeros(3))
    nan = arrays()["train_images"].astype(np.float32)
    nan[3, 2, 2] = np.nan
    zeros = np.zeros(12, np.int64)
    saved(here, train_images=nan).rename(here / "nan.npz")
    saved(here, train_labels=zeros, test_labels=zeros).rename(here / "same.npz")
    return {
        "missing.npz": "missing.npz does not exist, wanted an .npz file",
        "didgits": "did you mean digits?",
        "other.npz": "other.npz lacks train_images, train_labels, test_images, test_labels and has x",
        "nan.npz": "nan.npz: train_images has NaN pixels",
        "same.npz": "same.npz has 1 class(es), wanted 2",
        "one": "one has 1 class folder(s), wanted two or more",
        "broken": "cannot read the image broken/b/2.png",
        SET: f"{SET} is not an .npz file",
    }


def test_data_that_cannot_be_used(refused: Refused, here: Path) -> None:
    for data, words in bad_data(here).items():
        assert words in refused("distill", "--data", data, "--bytes", 3000, "-o", "new.st")
        assert words in refused("train", BUNDLE, "--data", data, "-o", "new.st")
        assert words in refused("evaluate", SET, "--data", data)


def test_data_of_another_shape_is_refused_before_training(
    refused: Refused, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(here)
    monkeypatch.setattr(device.Student, "fit", None)
    words = "the data has 3x8x9 images of 3 classes, the set 1x8x8 of 10"
    assert words in refused("train", BUNDLE, "--data", "data.npz", "-o", "new.st")
    assert words in refused("evaluate", SET, "--data", "data.npz")
    assert words in refused("evaluate", BUNDLE, "--data", "data.npz", "--weights", WEIGHTS)


@pytest.mark.parametrize("what", ["truncated", "longer", "header", "labels", "empty", "missing"])
def test_a_set_that_was_altered(refused: Refused, here: Path, what: str) -> None:
    path = here / SET
    content = bytearray(path.read_bytes())
    labels = content.index(edgedd.SyntheticSet.load(path).tensors["labels"].tobytes())
    content[{"header": 30, "labels": labels + 3}.get(what, 0)] ^= 0x81 if what in ("header", "labels") else 0
    altered = {"truncated": content[:-7], "longer": content + b"\0", "empty": b""}.get(what, content)
    path.unlink() if what == "missing" else path.write_bytes(altered)
    messages = {
        refused("inspect", SET),
        refused("export", SET, "-o", "new"),
        refused("preview", SET, "-o", "new.png"),
        refused("evaluate", SET, "--data", "digits"),
    }
    assert len(messages) == 1
    assert SET in messages.pop()


@pytest.mark.parametrize("name", ["train_step.onnx", "predict.onnx", SET, "manifest.json"])
def test_a_bundle_that_was_altered(refused: Refused, here: Path, name: str) -> None:
    path = here / BUNDLE / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    path.write_bytes(content)
    for arguments in (
        ("train", BUNDLE, "-o", "new.st"),
        ("predict", BUNDLE, "x.png", "--weights", WEIGHTS),
        ("evaluate", BUNDLE, "--data", "digits", "--weights", WEIGHTS),
    ):
        assert f"{BUNDLE}/{name}" in refused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (f"export {SET} -o new --student convnet4-w8", "too often for 8x8 pixels: choose a lower depth"),
        (f"evaluate {SET} --data digits --students convnet4-w8", "too often for 8x8 pixels: choose a lower depth"),
        (f"export {SET} -o new --student vgg", "unknown student 'vgg', wanted convnet<depth>-w<width>"),
        (f"export {SET} -o new --mode fast", "unknown mode 'fast', wanted one of full, head, bias"),
        (f"export {SET} -o new --target toaster", "unknown target 'toaster', wanted one of: "),
        ("targets toaster", "unknown target 'toaster', wanted one of: "),
        (f"inspect {WEIGHTS}", "this is not an edgedd synthetic set"),
        ("train missing -o new.st", "missing/manifest.json is missing"),
        (f"train {BUNDLE} -o new.st --threads 2000", "threads=2000, wanted a whole number in [1, 1024]"),
        (f"evaluate {BUNDLE} --data digits", "is a bundle: give the weights"),
        (f"evaluate {BUNDLE} --data digits --torch", "--torch are for a set, and"),
        (f"evaluate {BUNDLE} --data digits --weights {WEIGHTS} --students resnet8", "has no student 'resnet8'"),
        (f"evaluate {SET} --data digits --weights {WEIGHTS}", "--weights is for a bundle"),
        (f"evaluate {SET} --data digits --seeds 0", "seeds=0, wanted 1 to 100"),
        (f"predict {BUNDLE} missing.png --weights {WEIGHTS}", "missing.png is not a file"),
        (f"predict {BUNDLE} {SET} --weights {WEIGHTS}", f"cannot read the image {SET}"),
        (f"predict {BUNDLE} x.png --weights {SET}", "these weights are of another student"),
        (f"predict {BUNDLE} x.png --weights missing.st", "cannot read missing.st"),
        # what the parser finds
        ("nothing", "'nothing'; see edgedd --help"),
        ("inspect", "'SET'; see edgedd inspect --help"),
        (f"inspect {SET} more", "(more); see edgedd inspect --help"),
        ("distill --data digits", "'--output'"),
        ("distill --data digits -o new.st --colour", "--colour; see edgedd distill --help"),
        ("distill --data digits -o new.st --bytes many", "'--bytes'"),
        ("distill --data digits -o new.st --seed -1", "'--seed'"),
        (f"preview {SET} -o new.png --columns 0", "'--columns'"),
    ],
)
def test_other_commands(refused: Refused, arguments: str, words: str) -> None:
    assert words in refused(*arguments.split())


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("missing/new.st", "cannot write missing/new.st: No such file or directory"),
        (f"{SET}/new.st", "Not a directory"),
        (BUNDLE, f"{BUNDLE} is a folder, wanted a file name"),
        ("/dev/null", "/dev/null is a device or a pipe"),
        ("/proc/new.st", "cannot write /proc/new.st"),
        ("x" * 253, "File name too long"),
    ],
)
def test_an_impossible_output_is_refused_before_any_work(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, output: str, words: str
) -> None:
    monkeypatch.setattr(run, "load_data", None)
    monkeypatch.setattr(device.Student, "fit", None)
    assert words in refused(*DIGITS, "--bytes", 3000, "-o", output)
    assert words in refused("train", BUNDLE, "-o", output)
    assert words in refused("preview", SET, "-o", output)


@pytest.mark.parametrize("output", ["missing/new", SET, "/dev/null", "pictures"])
def test_an_impossible_bundle_folder(refused: Refused, here: Path, output: str) -> None:
    (here / "pictures").mkdir()
    (here / "pictures/cat.png").write_bytes(b"a cat")
    assert output in refused("export", SET, "-o", output)


@pytest.mark.parametrize("folder", [SET, f"{SET}/demo", "/proc/demo"])
def test_an_impossible_folder_for_the_demo(refused: Refused, folder: str) -> None:
    assert f"cannot make the folder {folder}" in refused("demo", "--folder", folder)


EXPORTS = (
    (("--mode", "all"), "unknown mode 'all', wanted one of full, head, bias, last-<k>"),
    (("--mode", "last-9", "--student", "mlp"), "asks for 9 layers, the network has 3"),
    (("--student", "mlp", "--model", "net.onnx"), "both a student and a model are given"),
    (("--model", "net.onnx"), "cannot read net.onnx"),
    (("--model", SET), "is no ONNX model"),
    (("--student", "mlp", "--weights", WEIGHTS), "these weights are of another student"),
    (("--weights", "none.st"), "cannot read none.st"),
    (("--target", "milk-v-duo"), "milk-v-duo only infers ("),
    (("--data", "digits"), "--data is for the comparison of --quantize"),
)


@pytest.mark.parametrize("options, words", EXPORTS, ids=[" ".join(options) for options, _ in EXPORTS])
def test_impossible_exports(refused: Refused, options: tuple[str, ...], words: str) -> None:
    assert words in refused("export", SET, *options, "-o", "new")


def test_predicting_without_weights_or_an_int8_graph(refused: Refused, here: Path) -> None:
    np.save("image.npy", np.zeros((8, 8), np.uint8))
    assert "brings no weights: give those" in refused("predict", BUNDLE, "image.npy")
    assert "int8" in refused("predict", BUNDLE, "image.npy", "--weights", WEIGHTS, "--int8")
    assert "brings no weights" in refused("predict", BUNDLE, "image.npy", "--int8")
