"""Installed bundles: old or new and whole, whatever cuts, fails or competes."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from installing import state_of

from edgedd.bundles import installation
from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import ARCHIVE, MANIFEST, PREDICT, SIGNATURE, TRAIN_STEP
from edgedd.bundles.installation import install, rollback
from edgedd.device import Student
from edgedd.errors import BundleError, SettingError
from edgedd.exporting import export
from edgedd.synthetic_set import SyntheticSet


@pytest.fixture(scope="module")
def bundles(synthetic: SyntheticSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three bundles whose modes tell them apart; the last is an archive."""
    folder = tmp_path_factory.mktemp("three")
    found = {"full": folder / "full", "bias": folder / "bias", "head": folder / f"head{ARCHIVE}"}
    for mode, path in found.items():
        export(synthetic, path, student="convnet1-w4", mode=mode)
    return found


def test_install_and_rollback(bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "app"
    first = install(bundles["full"], folder)
    assert (first.previous, first.bundle.mode) == (None, "full")
    with pytest.raises(SettingError, match="has no previous bundle to go back to"):
        rollback(folder)
    second = install(bundles["head"], folder)
    assert (second.previous, second.bundle.mode) == (first.version, "head")
    assert install(bundles["head"], folder) == second
    third = install(bundles["bias"], folder)
    assert (third.previous, third.bundle.mode) == (second.version, "bias")
    assert sorted(os.listdir(folder / "versions")) == sorted([second.version, third.version])
    for mode in ("head", "bias", "head"):
        assert rollback(folder).bundle.mode == state_of(folder)[0] == mode
    assert Student.load(folder / "current", threads=1).fit(steps=1).steps == 1
    assert sorted(os.listdir(folder)) == [".edgedd.lock", "current", "previous", "versions"]
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (folder / "current").iterdir())


def test_what_is_open_stays_what_it_was(bundles: dict[str, Path], tmp_path: Path) -> None:
    """`predict.onnx` is opened when it is first used: then too it is that of the bundle that was loaded."""
    install(bundles["full"], tmp_path / "app")
    before = Bundle.load(tmp_path / "app" / "current")
    install(bundles["bias"], tmp_path / "app")
    assert before.file(TRAIN_STEP).read_bytes() == (bundles["full"] / TRAIN_STEP).read_bytes()


def test_what_does_not_run_is_not_installed(bundles: dict[str, Path], tmp_path: Path) -> None:
    folder, copy = tmp_path / "app", tmp_path / "copy"
    install(bundles["full"], folder)
    shutil.copytree(bundles["bias"], copy)
    (copy / PREDICT).write_bytes(b"x")
    with pytest.raises(BundleError, match=rf"{copy}/{PREDICT} was altered"):
        install(copy, folder)
    (copy / PREDICT).unlink()
    with pytest.raises(BundleError, match=rf"{copy}/{PREDICT} is missing"):
        install(copy, folder)
    (copy / MANIFEST).unlink()
    with pytest.raises(BundleError, match=rf"{copy}/{MANIFEST} is missing"):
        install(copy, folder)
    with pytest.raises(BundleError, match=f"{SIGNATURE} is missing: the bundle is not signed"):
        key = tmp_path / "public.pem"
        made = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519"], capture_output=True, check=True).stdout
        key.write_bytes(
            subprocess.run(["openssl", "pkey", "-pubout"], input=made, capture_output=True, check=True).stdout
        )
        install(bundles["bias"], folder, require_signature=key)
    assert state_of(folder) == ("full", None)


def test_a_damaged_version_is_replaced_by_installing_it_again(bundles: dict[str, Path], tmp_path: Path) -> None:
    installed = install(bundles["full"], tmp_path / "app")
    (installed.bundle.path / PREDICT).write_bytes(b"damaged")
    with pytest.raises(BundleError):
        Bundle.load(tmp_path / "app" / "current")
    assert install(bundles["full"], tmp_path / "app") == installed
    assert state_of(tmp_path / "app") == ("full", None)


def test_other_folders_and_links_are_left_alone(bundles: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "versions").write_bytes(b"mine")
    for folder in (tmp_path / "mine", tmp_path / "mine" / "versions"):
        with pytest.raises(SettingError, match="holds something else than installed bundles"):
            install(bundles["full"], folder)
        with pytest.raises(SettingError, match="has no installed bundle"):
            rollback(folder)
    with pytest.raises(SettingError, match="No such file or directory"):
        install(bundles["full"], tmp_path / "absent" / "app")
    install(bundles["full"], tmp_path / "app")
    (tmp_path / "app" / "current").unlink()
    os.symlink("/etc", tmp_path / "app" / "current")
    with pytest.raises(SettingError, match="current is no link that edgedd install made"):
        install(bundles["full"], tmp_path / "app")
    assert (tmp_path / "mine" / "versions").read_bytes() == b"mine"


def test_a_second_process_gets_a_line_and_a_dead_one_holds_nothing(bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "app"
    install(bundles["full"], folder)
    hold = "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True)"
    other = subprocess.Popen(
        [sys.executable, "-c", f"{hold}; time.sleep(60)", folder / ".edgedd.lock"], stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    other.stdout.readline()
    for attempt in (lambda: install(bundles["bias"], folder), lambda: rollback(folder)):
        with pytest.raises(SettingError, match=r"another process installs to .*: try again when it is done"):
            attempt()
    other.kill()
    other.wait()
    other.stdout.close()
    assert install(bundles["bias"], folder).bundle.mode == "bias"


@pytest.mark.parametrize("step", ["fsync", "replace", "symlink"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_an_error_of_the_system_is_one_line_and_loses_nothing(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    monkeypatch.setattr(installation, "verify", lambda path, **_: Bundle.load(path))
    install(bundles["full"], tmp_path / "app")

    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fails)
        with pytest.raises(SettingError, match=f"cannot install to .*{os.strerror(number)}; what was installed is"):
            install(bundles["bias"], tmp_path / "app")
    assert state_of(tmp_path / "app")[0] == "full"
    assert install(bundles["bias"], tmp_path / "app").bundle.mode == "bias"
    assert state_of(tmp_path / "app") == ("bias", "full")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts a small file system")
@pytest.mark.parametrize("options", ["size=100k", "remount,ro"])
def test_a_full_disk_and_a_read_only_one(bundles: dict[str, Path], tmp_path: Path, options: str) -> None:
    """On a file system that really is; what was installed there still loads."""
    code = """
import sys
from edgedd.bundles import installation
from edgedd.errors import SettingError
installation.verify = lambda path, **_: installation.Bundle.load(path)
try:
    installation.install(sys.argv[1], sys.argv[2])
except SettingError as error:
    print(error)
print(installation.Bundle.load(sys.argv[2] + "/current").mode)
"""
    script = f"""
mount -t tmpfs -o size=1m none "$1" || exit 77
"$2" -c 'import sys; from edgedd.bundles.installation import install; install(*sys.argv[1:])' "$3" "$1/app" || exit 1
{'mount -o remount,ro "$1"' if "ro" in options else 'head -c 1m /dev/zero > "$1/filler" 2> "$1/../said"'}
"$2" -c "$5" "$4" "$1/app"
"""
    (tmp_path / "disk").mkdir()
    words = [
        "unshare",
        "-m",
        "sh",
        "-c",
        script,
        "sh",
        tmp_path / "disk",
        sys.executable,
        bundles["full"],
        bundles["bias"],
    ]
    done = subprocess.run([*words, code], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == 77:
        pytest.skip("mounting is not allowed")
    reason = "Read-only file system" if "ro" in options else "No space left on device"
    assert done.stdout.splitlines()[-1] == "full", done.stderr
    assert f"cannot install to {tmp_path}/disk/app: {reason}; what was installed is untouched" in done.stdout
