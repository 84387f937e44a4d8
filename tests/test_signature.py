"""A signature by the right key passes, everything else is refused; openssl agrees."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import ARCHIVE, MANIFEST, SIGNATURE
from edgedd.bundles.signature import read_private_key, signature
from edgedd.device import Student
from edgedd.errors import BundleError, MissingExtra, SettingError
from edgedd.exporting import export
from edgedd.synthetic_set import SyntheticSet

# RFC 8032, section 7.1, test 3
SECRET = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
MESSAGE = bytes.fromhex("af82")
WANTED = (
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
)


def written(folder: Path, name: str, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
    """Files of the private and the public key."""
    pem = serialization.Encoding.PEM
    private, public = folder / f"{name}.pem", folder / f"{name}.public.pem"
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return written(tmp_path, "key", ed25519.Ed25519PrivateKey.from_private_bytes(SECRET))


def test_the_signature_is_that_of_rfc_8032(keys: tuple[Path, Path]) -> None:
    assert signature(MESSAGE, keys[0]).hex() == WANTED


def test_only_the_owner_of_the_key_signs(synthetic: SyntheticSet, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    _, other = written(tmp_path, "other", ed25519.Ed25519PrivateKey.generate())
    folder, archive = tmp_path / "bundle", tmp_path / f"b{ARCHIVE}"
    for path in (folder, archive):
        assert export(synthetic, path, student="convnet1-w4", sign=private).signed
        assert Student.load(path, threads=1, require_signature=public).bundle.signed
        with pytest.raises(BundleError, match=rf"{path.name}/{SIGNATURE} is not the signature of this manifest by"):
            Bundle.load(path, require_signature=other)
    manifest = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(manifest.replace(b'"full"', b'"head"'))
    assert Bundle.load(folder).mode == "head"
    with pytest.raises(BundleError, match="is not the signature"):
        Bundle.load(folder, require_signature=public)
    (folder / MANIFEST).write_bytes(manifest)
    for content in (b"", (folder / SIGNATURE).read_bytes() + b"\0"):
        (folder / SIGNATURE).write_bytes(content)
        with pytest.raises(BundleError, match="is not the signature"):
            Bundle.load(folder, require_signature=public)
    (folder / SIGNATURE).unlink()
    with pytest.raises(BundleError, match=rf"{SIGNATURE} is missing: the bundle is not signed"):
        Bundle.load(folder, require_signature=public)


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl")
def test_openssl_agrees(synthetic: SyntheticSet, keys: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    export(synthetic, folder, student="convnet1-w4", sign=keys[0])
    words = f"openssl pkeyutl -verify -rawin -pubin -inkey {keys[1]} -sigfile {folder / SIGNATURE} -in"
    done = subprocess.run([*words.split(), folder / MANIFEST], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_key_that_cannot_be_used_is_refused_before_the_work(
    synthetic: SyntheticSet, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    elliptic = written(tmp_path, "ec", ec.generate_private_key(ec.SECP256R1()))
    locked = tmp_path / "locked.pem"
    form, pem = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    encryption = serialization.BestAvailableEncryption(b"word")
    locked.write_bytes(read_private_key(private).private_bytes(pem, form, encryption))
    (tmp_path / "noise.pem").write_bytes(bytes(range(256)))
    for key, words in (
        (tmp_path / "none.pem", "none.pem is missing or no file, wanted a private Ed25519 key"),
        (tmp_path, "is missing or no file"),
        (tmp_path / "noise.pem", "cannot be read, wanted a private Ed25519 key"),
        (public, "cannot be read, wanted a private Ed25519 key"),
        (locked, "cannot be read, wanted a private Ed25519 key .PEM, without password"),
        (elliptic[0], "is ECPrivateKey, wanted a private Ed25519 key"),
    ):
        with pytest.raises(SettingError, match=words):
            export(synthetic, tmp_path / "new", student="vgg99", sign=key)
    assert not (tmp_path / "new").exists()
    export(synthetic, tmp_path / "new", student="convnet1-w4", sign=private)
    for key in (private, elliptic[1]):
        with pytest.raises(SettingError, match="wanted a public Ed25519 key"):
            Bundle.load(tmp_path / "new", require_signature=key)


def test_without_cryptography_the_extra_is_named(
    folder: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("cryptography")] + ["cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"cryptography is not installed .*: pip install 'edgedd\[sign\]'"):
        Bundle.load(folder, require_signature=keys[1])
