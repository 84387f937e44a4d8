"""Who writes where another one writes is told so and changes nothing; threads that share things corrupt none."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_bundle import blobs
from tiny_data import tiny_images

import edgedd
from edgedd.atomic import only_writer, write_bytes
from edgedd.bundles import bundle
from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import ARCHIVE, CARD, MANIFEST
from edgedd.device.calibration import calibrate
from edgedd.distillation.experts import experts
from edgedd.errors import BundleError, SettingError
from edgedd.evaluation import train_bundle
from edgedd.exporting import export
from edgedd.synthetic_set import SyntheticSet

DATA = tiny_images(30, (1, 8, 8), 3)
BUSY = "another process writes"
WRITER = """
import signal, sys
from edgedd.atomic import only_writer
with only_writer(sys.argv[1]):
    open(sys.argv[1].replace("set", ".set.a1b2c3d4.partial"), "wb").write(b"half")
    print("!", flush=True)
    signal.pause()
"""


def test_one_writer_at_a_time_and_nothing_stays(tmp_path: Path) -> None:
    with only_writer(tmp_path / "set"):
        with pytest.raises(SettingError, match=f"{BUSY} {tmp_path / 'set'}: wait"), only_writer(tmp_path / "set"):
            pass
        with only_writer(tmp_path / "other"):
            pass
    with only_writer(tmp_path / "set"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_writer_that_was_killed_holds_nothing_and_its_leftovers_go(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "set"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.read(1) == b"!"
        with pytest.raises(SettingError, match=BUSY), only_writer(tmp_path / "set"):
            pass
        child.kill()
    assert sorted(os.listdir(tmp_path)) == [".set.a1b2c3d4.partial", ".set.lock"]
    with only_writer(tmp_path / "set"):
        assert os.listdir(tmp_path) == [".set.lock"]
    assert os.listdir(tmp_path) == []


def test_many_threads_wait_for_their_turn(tmp_path: Path) -> None:
    """The lock's file goes with each of them; whoever has opened it meanwhile takes another."""
    inside, most = [0], [0]

    def write(number: int) -> None:
        with only_writer(tmp_path / "set", wait=True):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            write_bytes(tmp_path / "set", bytes([number]) * 100)
            inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(64)))
    assert most == [1] and os.listdir(tmp_path) == ["set"]


def test_many_threads_write_one_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write_bytes(path, bytes([number]) * 1000 * number), range(1, 65)))
    content = path.read_bytes()
    assert len(content) == 1000 * content[0] and set(content) == {content[0]}
    assert os.listdir(tmp_path) == ["weights"]


COMMANDS: dict[str, Callable[[Path, Path, SyntheticSet], object]] = {
    "distill": lambda out, _, __: edgedd.distill(DATA, method="random", ipc=1, labels="hard", output=out),
    "export": lambda out, _, synthetic: export(synthetic, out, student="convnet1-w4"),
    "train": lambda out, bundle, _: train_bundle(bundle, out, threads=1),
    "calibrate": lambda out, _, __: calibrate(out),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_second_writer_is_refused(name: str, folder: Path, synthetic: SyntheticSet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with only_writer(out), pytest.raises(SettingError, match=f"{BUSY} {out}: wait"):
        COMMANDS[name](out, folder, synthetic)
    assert os.listdir(tmp_path) == []


def test_an_expert_is_trained_by_one_process(tmp_path: Path) -> None:
    how = {"count": 2, "epochs": 1, "width": 4}
    with only_writer(tmp_path / "expert-00001.part"), pytest.raises(SettingError, match=BUSY):
        experts(DATA, tmp_path, **how)
    assert experts(DATA, tmp_path, **how).count == 2
    assert sorted(os.listdir(tmp_path)) == ["expert-00000.safetensors", "expert-00001.safetensors", "experts.json"]


def test_a_bundle_is_read_while_it_is_replaced(synthetic: SyntheticSet, tmp_path: Path) -> None:
    path, done = tmp_path / "bundle", threading.Event()
    export(synthetic, path, student="convnet1-w4", mode="full")

    def replace() -> None:
        for mode in ("bias", "full") * 4:
            export(synthetic, path, student="convnet1-w4", mode=mode)
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    modes = []
    while not done.is_set():
        modes.append(Bundle.load(path).mode)
    writer.join()
    assert set(modes) == {"full", "bias"} and os.listdir(tmp_path) == ["bundle"]


def test_a_bundle_is_read_while_it_is_replaced_twice_and_is_again_what_it_was(
    synthetic: SyntheticSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, check = tmp_path / "bundle", bundle._check_file
    export(synthetic, path, student="convnet1-w4", mode="full")
    manifest = (path / MANIFEST).read_bytes()
    modes = ["full", "bias"]

    def replace() -> None:
        monkeypatch.setattr(bundle, "_check_file", check)  # export checks what it wrote
        export(synthetic, path, student="convnet1-w4", mode=modes.pop())
        monkeypatch.setattr(bundle, "_check_file", checked_late)

    def checked_late(file: Path, shown: Path, wanted: Mapping[str, Any]) -> None:
        if file.name == CARD and len(modes) == 2:
            replace()
        try:
            check(file, shown, wanted)
        except BundleError:
            replace()
            raise

    monkeypatch.setattr(bundle, "_check_file", checked_late)
    assert Bundle.load(path).mode == "full" and not modes
    assert (path / MANIFEST).read_bytes() == manifest


def test_a_student_is_trained_by_one_thread_and_predicts_in_all(folder: Path, tmp_path: Path) -> None:
    images, labels = blobs(5, seed=3)
    alone, student = (edgedd.Student.load(folder, threads=1) for _ in range(2))
    alone.fit()
    refused: list[str] = []
    others = (student.fit, lambda: student.load_weights(tmp_path / "w"), lambda: student.save(tmp_path / "w"))

    def meanwhile(*_: object) -> None:
        for call in others:
            try:
                call()
            except SettingError as error:
                refused.append(str(error))

    def predict() -> bool:
        return bool(np.isfinite(student.predict(images)).all()) and student.evaluate(images, labels) >= 0

    def on_epoch(epoch: int, loss: float) -> None:
        if epoch in (1, 5):
            thread = threading.Thread(target=meanwhile)
            thread.start()
            student.save(tmp_path / "kept")  # of the thread that trains
            thread.join()

    with ThreadPoolExecutor(2) as pool:
        predictions = [pool.submit(predict) for _ in range(10)]
        student.fit(on_epoch=on_epoch)
        assert all(each.result() for each in predictions)
    assert len(refused) == 6 and set(refused) == {
        "another thread trains this student: wait for it, or load one of your own"
    }
    assert not (tmp_path / "w").exists() and (tmp_path / "kept").exists()
    for name, values in alone.parameters.items():
        np.testing.assert_array_equal(values, student.parameters[name])


def test_the_archive_has_one_writer_too(synthetic: SyntheticSet, tmp_path: Path) -> None:
    out = tmp_path / f"one{ARCHIVE}"
    with only_writer(out), pytest.raises(SettingError, match=BUSY):
        export(synthetic, out, student="convnet1-w4")
    assert os.listdir(tmp_path) == []
