"""The service of examples/edge_app: corrections outlive every cut, weights are the old or the new ones."""

import fcntl
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from device_bundle import CLASSES, blobs
from edge_app import APP, Running, killed
from test_arm64 import inside, told_by_arm64  # noqa: F401  # a fixture

import edgedd

import corrections  # isort: skip  # of examples/edge_app, which the line above made importable
import generations  # isort: skip
import service  # isort: skip

IMAGES, LABELS = blobs(4, seed=2)
IMAGES = IMAGES[:, None]
QUICK = ("--steps", "20", "--retrain-after", "4")


def answers_of(bundle: Path, weights: Path | None) -> list[float]:
    """What a student with these weights answers to IMAGES: the probability of its first choice."""
    student = edgedd.Student.load(bundle, threads=1, low_memory=True)
    student.load_weights(weights)
    shares = []
    for image in IMAGES:
        scores = student.predict(image[None])[0].astype(np.float64)
        shares.append(float(1 / np.exp(scores - scores.max()).sum()))
    return shares


def refuses_nonsense(running: Running) -> None:
    ask = running.client.ask
    assert "wanted classify, correct, retrain or status" in ask(do="sing")["error"]
    short = ask(do="correct", pixels="AAAA", **{"class": "bar"})["error"]
    assert "3 bytes of pixels, wanted 64: uint8 1x8x8" in short
    assert "wanted one of circle, cross, bar" in ask(do="correct", pixels="", **{"class": "cat"})["error"]


def watches_a_folder(running: Running, state: Path) -> None:
    (state / "inbox" / "cross").mkdir()
    (state / "inbox" / "one.pgm").write_bytes(b"P5 8 8 255\n" + IMAGES[0].tobytes())
    np.save(state / "inbox" / "cross" / "two.npy", IMAGES[5, 0])
    running.until(kept=6)
    results = {path.name: json.loads(path.read_text()) for path in (state / "outbox").glob("*.json")}
    assert results["two.npy.json"] == {"file": "two.npy", "class": "cross", "correction": 6}
    assert results["one.pgm.json"]["probability"] == running.client.classify(IMAGES[0])["probability"]


def generation_0(bundle: Path, state: Path) -> Path:
    """What the service would train when it is first started."""
    student = edgedd.Student.load(bundle, threads=1)
    student.fit(seed=0)
    state.mkdir()
    student.save(generations.Generations(state, student).path(0))
    return generations.Generations(state, student).path(0)


def test_killed_while_it_learns(folder: Path, tmp_path: Path) -> None:
    """A kill in the middle of training, a torn record, torn weights: all corrections are there, and learnt."""
    state, notes = tmp_path / "state", tmp_path / "notes"
    base = generation_0(folder, state)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(notes))
        with Running(folder, state, *QUICK, NOTIFY_SOCKET=str(notes)) as running:
            assert systemd.recv(1000).startswith(b"READY=1\nSTATUS=")
            assert systemd.recv(1000).startswith(b"WATCHDOG=1\n")
            running.until(generation=0)
            first = running.client.classify(IMAGES[0])
            assert answers_of(folder, base)[0] == first["probability"]
            given = [running.client.correct(image, CLASSES[2])["correction"] for image in IMAGES[:4]]
            assert given == [1, 2, 3, 4]
            running.until(training=True)

    with open(state / "corrections", "ab") as file:
        file.write(corrections.encode(corrections.Correction(5, "bar", bytes(64)))[:-1])
    new = base.with_name(base.name.replace("000000000", "000000009"))
    new.write_bytes(base.read_bytes()[:1000])
    base.with_name(f".{new.name}.abcd1234").touch()
    with Running(folder, state, *QUICK) as running:
        assert running.status()["kept"] == 4
        assert running.client.classify(IMAGES[0]) | {"id": 0} == first | {"id": 0}
        running.until(generation=4)
        learnt = running.client.classify(IMAGES[0])
        assert learnt["class"] == CLASSES[2] != first["class"]
        assert running.client.ask(do="correct", id=learnt["id"], **{"class": "cross"}) == {"correction": 5}
        assert "not remembered" in running.client.ask(do="correct", id=first["id"], **{"class": "cross"})["error"]
        refuses_nonsense(running)
        watches_a_folder(running, state)
        running.stop()
    assert sorted(path.name[-14:-12] for path in state.glob("*weights-*")) == ["00", "04"]


def test_a_second_service_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("service.py", "--bundle", folder, "--state", tmp_path, "--socket", tmp_path / "s")
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    with open(tmp_path / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert service.main() == 2
    said = f"edge-app: another service works in {tmp_path}: stop it, or give this one another --state\n"
    assert capsys.readouterr().err == said


@pytest.mark.slow
def test_the_learner_killed_before_each_thing_it_does_with_files(folder: Path, tmp_path: Path) -> None:
    """What it leaves is read as the old or the new generation, and the next one ends as if nothing had been."""
    whole, state = tmp_path / "whole", tmp_path / "state"
    words = (APP / "learner.py", folder, "--steps", "5")
    for path in (whole, state):
        path.mkdir()
        journal = corrections.Journal(path / "corrections", 10_000)
        for image, label in zip(IMAGES, LABELS, strict=True):
            journal.append(CLASSES[label], image.tobytes())
    assert not killed(10**6, *words, whole)
    wanted = {path.name: path.read_bytes() for path in whole.glob("weights-*")}
    assert [name[-14:-12] for name in sorted(wanted)] == ["00", "12"]
    deaths = 0
    while killed(deaths + 1, *words, state):
        deaths += 1
        for path in state.glob("weights-*"):
            assert path.read_bytes() == wanted[path.name]
        if deaths % 2:
            for path in state.glob("*weights-*"):
                path.unlink()
    assert deaths >= 8
    assert {path.name: path.read_bytes() for path in state.glob("weights-*")} == wanted


@pytest.mark.slow
def test_killed_at_thirty_random_moments(folder: Path, tmp_path: Path) -> None:
    generator, state = random.Random(0), tmp_path / "state"
    confirmed, newest = 0, 0
    for _ in range(30):
        with Running(folder, state, "--steps", "5", "--retrain-after", "2") as running:
            found = running.status()
            assert confirmed <= found["kept"] <= confirmed + 1
            assert found["generation"] is None or newest <= found["generation"] <= found["last_correction"]
            confirmed, end = found["kept"], time.monotonic() + generator.uniform(0, 2.5)
            while time.monotonic() < end:
                newest = running.status()["generation"] or 0
                row = confirmed % len(IMAGES)
                confirmed = running.client.correct(IMAGES[row], CLASSES[LABELS[row]])["correction"]
                time.sleep(generator.uniform(0, 0.3))
    with Running(folder, state, "--steps", "5", "--retrain-after", "1") as running:
        found = running.until(generation=running.status()["last_correction"])
        weights = sorted(state.glob("weights-*"))[-1]
        assert [running.client.classify(image)["probability"] for image in IMAGES] == answers_of(folder, weights)
        assert found["kept"] >= confirmed > 30
        running.stop()


@pytest.mark.slow
def test_ten_thousand_requests_and_fifty_trainings(tmp_path: Path) -> None:
    """Under the memory cap of its unit; resident memory grows by 5 % at most after warm-up."""
    script, output = APP.parent.parent / "benchmarks" / "edge_service.py", tmp_path / "result.json"
    subprocess.run([sys.executable, script, "--output", output], check=True, timeout=3000, stdout=subprocess.DEVNULL)
    done = json.loads(output.read_text())["work"]
    assert (done["requests"] >= 10_000, done["trainings"]) == (True, 50)
    assert done["growth"] <= 0.05
    if done["group_peak_mb"] is not None:
        assert (done["group_peak_mb"] <= 160, done["killed_for_memory"]) == (True, 0)


@pytest.mark.slow
def test_a_new_class_is_learnt(synthetic: edgedd.SyntheticSet, tmp_path: Path) -> None:
    """With an output to spare; a second new class is refused, also after a restart."""
    bundle, state = tmp_path / "bundle", tmp_path / "state"
    edgedd.export(synthetic, bundle, student="convnet2-w8", spare_classes=1)
    stars = np.clip(np.eye(8) * 200 + np.random.default_rng(0).normal(30, 20, (8, 1, 8, 8)), 0, 255).astype(np.uint8)
    options = ("--steps", "60", "--retrain-after", "8")
    with Running(bundle, state, *options) as running:
        for image in stars:
            running.client.correct(image, "star")
        running.until(generation=8)
        assert running.client.classify(stars[0])["class"] == "star"
        known = [
            running.client.classify(image)["class"] == CLASSES[label]
            for image, label in zip(IMAGES, LABELS, strict=True)
        ]
        assert sum(known) >= 10
    with Running(bundle, state, *options) as running:
        found = running.status()
        assert (found["classes"], found["spare_classes"]) == ([*CLASSES, "star"], 0)
        assert running.client.classify(stars[1])["class"] == "star"
        assert "wanted one of circle, cross, bar, star" in running.client.correct(stars[0], "moon")["error"]


@pytest.mark.slow
def test_a_learner_without_room_ends_and_the_service_goes_on(folder: Path, tmp_path: Path) -> None:
    """Whether edgedd refuses or the kernel kills, under a cap that the learner does not fit."""
    group = Path("/sys/fs/cgroup/memory") / f"edge-app-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no memory control group (v1) can be made here")
    try:
        with Running(folder, tmp_path / "state", *QUICK, group=group) as running:
            running.until(generation=0)
            taken = int((group / "memory.usage_in_bytes").read_text())
            (group / "memory.limit_in_bytes").write_text(str(taken + 20 * 2**20))
            for image in IMAGES[:4]:
                running.client.correct(image, CLASSES[2])
            while not (found := running.client.ask(do="status"))["error"]:
                time.sleep(0.05)
            assert (found["generation"], found["kept"]) == (0, 4)
            assert "status -9" in found["error"] or "training takes" in found["error"]
            assert running.client.classify(IMAGES[0])["generation"] == 0
    finally:
        time.sleep(0.5)
        group.rmdir()


@pytest.mark.slow
def test_what_is_installed_runs(folder: Path, tmp_path: Path) -> None:
    """install.sh into a folder, and the unit's command from there; systemd reads the unit without complaint."""
    app = tmp_path / "opt" / "edge-app"
    (app / "venv" / "bin").mkdir(parents=True)
    for name, words in (("python", '"$@"'), ("edgedd", '-m edgedd "$@"')):
        script = app / "venv" / "bin" / name
        script.write_text(f"#!/bin/sh\nexec {sys.executable} {words}\n")
        script.chmod(0o755)
    command = ["sh", APP / "install.sh", folder]
    subprocess.run(command, env={**os.environ, "DESTDIR": str(tmp_path)}, check=True, stdout=subprocess.DEVNULL)
    assert {path.name for path in app.glob("*.py")} == {path.name for path in APP.glob("*.py")}
    unit = (tmp_path / "etc" / "systemd" / "system" / "edge-app.service").read_text()
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    words = line.removeprefix("ExecStart=").replace("/opt/", f"{tmp_path}/opt/").replace("/var/lib", str(tmp_path))
    service = subprocess.Popen(words.replace("/run/edge-app", str(tmp_path)).split())
    client = [app / "venv" / "bin" / "python", app / "client.py", tmp_path / "socket", "status"]
    for _ in range(200):
        asked = subprocess.run(client, capture_output=True, text=True, check=False)
        if asked.returncode == 0 and json.loads(asked.stdout)["generation"] == 0:
            break
        time.sleep(0.05)
    frames = subprocess.run(
        [*client[:-1], "camera"], input=IMAGES[:2].tobytes() + b"cut", capture_output=True, check=True
    )
    assert [json.loads(line)["generation"] for line in frames.stdout.splitlines()] == [0, 0]
    service.terminate()
    assert service.wait(30) == 0
    if shutil.which("systemd-analyze"):
        said = subprocess.run(
            ["systemd-analyze", "verify", APP / "edge-app.service"], capture_output=True, text=True, check=False
        ).stderr.splitlines()
        assert [line for line in said if "edge-app" in line and "not executable" not in line] == []


ON_ARM64 = """
import json, os, platform, sys
from pathlib import Path
folder, bundle = map(Path, sys.argv[1:])
os.environ["EDGE_APP_PATIENCE"] = "1200"
sys.path.insert(0, str(folder / "tests"))
import numpy as np
from edge_app import Running
images = np.load(bundle.parent / "images.npy")
options = ("--steps", "5", "--retrain-after", "3")
with Running(bundle, folder / "state", *options) as running:
    first = running.until(generation=0)
    for image in images[:3]:
        running.client.correct(image, "bar")
with Running(bundle, folder / "state", *options) as running:
    kept = running.status()["kept"]
    status = running.until(generation=3)
    answers = [running.client.classify(image)["probability"] for image in images]
    running.stop()
found = {"machine": platform.machine(), "kept": kept, "answers": answers}
print(json.dumps({**found, "resident_bytes": status["resident_bytes"]}))
"""


@pytest.mark.arm64
def test_the_service_on_arm64(folder: Path, inside: Path) -> None:  # noqa: F811
    """Killed after three corrections, it learns them when it is started again; its weights answer here as there."""
    shutil.copytree(APP, inside / "examples" / "edge_app")
    (inside / "tests").mkdir()
    shutil.copy(Path(__file__).with_name("edge_app.py"), inside / "tests")
    shutil.copytree(folder, inside / "bundle")
    np.save(inside / "images.npy", IMAGES)
    told = told_by_arm64(inside, ON_ARM64, inside, inside / "bundle")
    assert (told["machine"], told["kept"]) == ("aarch64", 3)
    (weights,) = (inside / "state").glob("weights-*-000000003.safetensors")
    assert np.allclose(told["answers"], answers_of(folder, weights), atol=1e-4)
