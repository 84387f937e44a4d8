"""A file is there whole or not at all, whatever cuts the write short."""

import errno
import os
from pathlib import Path

import pytest

from edgedd.atomic import refuse_unwritable, remove_leftovers, write_bytes
from edgedd.errors import SettingError


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("cut", [KeyboardInterrupt(), MemoryError(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_cut_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, cut: BaseException
) -> None:
    path = tmp_path / "set.safetensors"
    write_bytes(path, b"old")

    def fails(*_: object) -> None:
        raise cut

    monkeypatch.setattr(os, step, fails)
    wanted = SettingError if isinstance(cut, OSError) else type(cut)
    with pytest.raises(wanted, match="No space left on device; choose" if wanted is SettingError else None):
        write_bytes(path, b"new")
    assert os.listdir(tmp_path) == ["set.safetensors"]
    assert path.read_bytes() == b"old"


def test_a_file_is_replaced_and_readable_by_others_as_the_umask_says(tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    before = os.umask(0o027)
    try:
        write_bytes(path, b"old and longer")
        write_bytes(path, b"new")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_asking_first_leaves_nothing_behind(tmp_path: Path) -> None:
    refuse_unwritable(tmp_path / "new")
    (tmp_path / "old").write_bytes(b"old")
    refuse_unwritable(tmp_path / "old")
    assert os.listdir(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


@pytest.mark.parametrize("check", [refuse_unwritable, lambda path: write_bytes(path, b"")])
def test_what_a_rename_would_destroy_is_refused(tmp_path: Path, check) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path / "pipe", "a device or a pipe"), (tmp_path, "is a folder")):
        with pytest.raises(SettingError, match=words):
            check(path)
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(SettingError, match="Permission denied"):
        refuse_unwritable(tmp_path / "new")


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [".set.bin.template", ".set.bin.abc.partial", "set.bin.abcdefgh.partial", ".set_bin.abcdefgh.partial"]
    for name in (*kept, ".set.bin.a1b2c3_9.partial"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "set.bin")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
