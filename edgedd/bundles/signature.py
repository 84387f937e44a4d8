"""Ed25519 signatures (RFC 8032) of a bundle's manifest, 64 bytes in manifest.sig; the manifest vouches for the rest.

The bytes signed are those of manifest.json, so that other tools can check as well:
`openssl pkeyutl -verify -rawin -pubin -inkey public.pem -sigfile manifest.sig -in manifest.json`.
A pair of keys: `openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out public.pem`.
"""

import os
from pathlib import Path
from typing import Any

from edgedd.bundles.files import SIGNATURE_BYTES
from edgedd.errors import BundleError, MissingExtra, SettingError

MAX_KEY_BYTES = 2**14
Key = str | os.PathLike[str]


def signature(manifest: bytes, private_key: Key) -> bytes:
    """64 bytes. Raises SettingError for a key that cannot be used, MissingExtra without the extra [sign]."""
    signed: bytes = read_private_key(private_key).sign(manifest)
    return signed


def read_private_key(path: Key) -> Any:
    """The Ed25519PrivateKey of a PEM file. Raises SettingError, MissingExtra."""
    return _read(path, "load_pem_private_key", "private", password=None)


def check(manifest: bytes, path: Path, shown: Path, public_key: Key) -> None:
    """Refuse a manifest that the owner of `public_key` (PEM) did not sign, `path` being its signature.

    Raises BundleError, which calls the signature `shown`; SettingError for the key; MissingExtra without [sign].
    """
    key = _read(public_key, "load_pem_public_key", "public")
    from cryptography.exceptions import InvalidSignature

    if not path.is_file():
        raise BundleError(f"{shown} is missing: the bundle is not signed, export it with --sign KEY.pem")
    try:
        with open(path, "rb") as file:
            key.verify(file.read(SIGNATURE_BYTES + 1), manifest)
    except OSError as error:
        raise BundleError(f"{shown} cannot be read ({error.strerror}): copy the bundle again") from error
    except InvalidSignature as error:
        raise BundleError(
            f"{shown} is not the signature of this manifest by {public_key}: get the bundle from who signs it"
        ) from error


def _read(path: Key, loader: str, kind: str, **options: Any) -> Any:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtra("cryptography", "a signature", "sign") from error
    wanted = f"wanted a {kind} Ed25519 key (PEM, without password)"
    try:
        if not Path(path).is_file():
            raise SettingError(f"the key {path} is missing or no file, {wanted}")
        with open(path, "rb") as file:
            content = file.read(MAX_KEY_BYTES)
        key = getattr(serialization, loader)(content, **options)
    except OSError as error:
        raise SettingError(f"cannot read the key {path} ({error.strerror}), {wanted}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if isinstance(error, SettingError):
            raise
        raise SettingError(f"the key {path} cannot be read, {wanted}") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey if kind == "private" else ed25519.Ed25519PublicKey):
        raise SettingError(f"the key {path} is {type(key).__name__}, {wanted}")
    return key
