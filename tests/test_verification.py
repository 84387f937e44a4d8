"""`edgedd verify`, `install` and `rollback`: a line a check, or one line that names the part."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command, Made
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import ARCHIVE, CARD, MANIFEST, PREDICT, SET, SIGNATURE, TARGET, TRAIN_STEP
from edgedd.bundles.verification import verify
from edgedd.errors import BundleError, EdgeddError


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def relisted(folder: Path, name: str, content: bytes) -> None:
    """Put `content` there as if it had been exported."""
    (folder / name).write_bytes(content)
    values = json.loads((folder / MANIFEST).read_text())
    values["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(values))


def test_every_part_is_told(folder: Path) -> None:
    checks = dict(verify(folder))
    assert set(checks) == {MANIFEST, SET, TRAIN_STEP, PREDICT, TARGET, CARD}
    assert checks[SET] == "15 images of 3 classes"
    parameters = 8 * 9 + 16 + 8 * 8 * 9 + 16 + 8 * 4 * 3 + 3  # two blocks of width 8 with norms, and the last layer
    assert checks[TRAIN_STEP] == f"loads, {parameters:,} parameters"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (SET, lambda c: c[:-1], f"{SET}: not a valid safetensors file"),
        (TRAIN_STEP, lambda c: c[: len(c) // 2], f"cannot load .*{TRAIN_STEP}"),
        (PREDICT, lambda _: b"not a graph", f"cannot load .*{PREDICT}"),
        (TARGET, lambda c: c + b"\nx = 1", rf"{TARGET}.*unknown key 'x'|{TARGET}: figures"),
    ],
)
def test_a_wrong_part_is_named_though_its_sum_is_right(
    copy: Path, name: str, change: Callable[[bytes], bytes], words: str
) -> None:
    relisted(copy, name, change((copy / name).read_bytes()))
    assert Bundle.load(copy)
    with pytest.raises(EdgeddError, match=words):
        verify(copy)


def test_a_file_that_no_manifest_lists_is_named(copy: Path) -> None:
    (copy / "extra.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"copy/extra.bin is not in the manifest"):
        verify(copy)


def test_the_commands(command: Command, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    key, pem = ed25519.Ed25519PrivateKey.generate(), serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    Path("key.pem").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    Path("public.pem").write_bytes(public)
    words = ("--student", "convnet1-w4", "--zip", "--licence", "CC0-1.0", "--sign", "key.pem", "-o", "b")
    ran = command("export", made.synthetic, *words)
    archive = f"b{ARCHIVE}"
    assert (ran.status, Path(archive).is_file()) == (0, True), ran.err
    required = ("--require-signature", "public.pem")
    ran = command("verify", archive, *required)
    assert ran.status == 0 and f"{SIGNATURE}: signed by public.pem" in ran.out and "licence CC0-1.0" in ran.out
    checks = json.loads(command("verify", archive, "--json").out)["checks"]
    assert [check["part"] for check in checks] == [MANIFEST, SIGNATURE, SET, TRAIN_STEP, PREDICT, CARD]
    for arguments in (("verify", made.bundle), ("install", made.bundle, "app"), ("train", made.bundle, "-o", "w.st")):
        ran = command(*arguments, *required)
        assert (ran.status, ran.out) == (2, "") and f"{SIGNATURE} is missing: the bundle is not signed" in ran.err
    assert command("install", archive, "app", *required).status == 0
    assert json.loads(command("install", made.bundle, "app", "--json").out)["student"] == "convnet2-w8"
    assert "student convnet1-w4" in command("rollback", "app").out
    assert command("train", "app/current", "-o", "w.st", *required).status == 0
    assert command("predict", archive, "none.npy", "--weights", "w.st").err.startswith("edgedd: none.npy is not a file")
    assert (command("rollback", "none").status, command("rollback", tmp_path).status) == (2, 2)
