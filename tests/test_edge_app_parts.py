"""Parts of examples/edge_app by themselves: the journal of corrections, pictures, when to train."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from device_bundle import blobs

import edge_app  # isort: skip  # noqa: F401  # makes examples/edge_app importable
import corrections  # isort: skip
import pictures  # isort: skip
from training import Policy, Training  # isort: skip

IMAGES, LABELS = blobs(4, seed=2)


def test_a_record_cut_anywhere_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "corrections"
    journal = corrections.Journal(path, 10_000)
    numbers = [journal.append(name, bytes([number]) * 64) for number, name in enumerate(("a", "é", "b"))]
    content = path.read_bytes()
    whole = corrections.read(path)
    assert [(c.number, c.name, c.pixels[0]) for c in whole] == [(1, "a", 0), (2, "é", 1), (3, "b", 2)]
    last = len(corrections.encode(whole[-1]))
    for cut in range(1, last + 1):
        assert corrections.parse(content[:-cut]) == (whole[:2], len(content) - last)
    for cut in (1, last - 20, last - 1):
        path.write_bytes(content[:-cut])
        again = corrections.Journal(path, 10_000)
        assert (again.count, again.last) == (2, 2)
        assert again.append("c", b"x" * 64) == numbers[-1]
        assert corrections.read(path) == [*whole[:2], (3, "c", b"x" * 64)]
    for at in range(len(content) - last):  # a byte in the middle changes: its record goes, the others stay
        damaged = content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]
        assert len(corrections.parse(damaged)[0]) == 2


def test_a_full_journal_keeps_classes_in_balance(tmp_path: Path) -> None:
    path, budget = tmp_path / "corrections", 10 * 100
    journal = corrections.Journal(path, budget)
    rare = journal.append("rare", bytes(64))
    for _ in range(30):
        last = journal.append("often", bytes(64))
        assert path.stat().st_size <= budget
    kept = corrections.read(path)
    assert [c.number for c in kept] == [rare, *range(last - len(kept) + 2, last + 1)]
    assert (journal.count, journal.last, last) == (len(kept), 31, 31)


def test_pictures_are_averaged_over_areas(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6\n# made\n4 2\n255\n" + bytes(range(24)))
    pixels = np.arange(24).reshape(2, 2, 2, 3)  # y, x, two pixels, colour
    mean = np.rint(pixels.mean(axis=(0, 2)).T)[:, None]
    assert np.array_equal(pictures.read_picture(tmp_path / "a.ppm", (3, 1, 2)), mean)
    image = np.random.default_rng(0).integers(0, 256, (5, 7), np.uint8)
    assert np.array_equal(pictures.fitted(image, (1, 5, 7))[0], image)
    assert abs(pictures.fitted(image, (1, 3, 3)).mean() - image.mean()) < 1
    for name, content in (("short.pgm", b"P5 8 8 255\n123"), ("text.pgm", b"hello"), ("x.npy", b"\x93NUMPY")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(pictures.PictureError, match="wanted"):
            pictures.read_picture(tmp_path / name, (1, 8, 8))


def test_a_learner_that_fails_is_tried_later_and_later(tmp_path: Path) -> None:
    now = [0.0]
    training = Training(tmp_path / "nothing", tmp_path, Policy(corrections=2, seconds=60), clock=lambda: now[0])
    starts = []
    training._start = lambda: starts.append(now[0])
    training.want(3, 3)  # nothing new
    training.want(3, 4)
    now[0] = 59.0
    training.want(3, 4)
    assert not starts
    now[0] = 60.0
    training.want(3, 4)
    training.want(3, 5)
    assert starts == [60.0, 60.0]
    for failures in (1, 2, 3):
        training._learner = subprocess.Popen(["false"], stdout=subprocess.PIPE)
        training._learner.wait()
        assert not training.poll()
        assert training.error == "the learner ended with status 1"
        assert training._not_before - now[0] == 10 * 2 ** (failures - 1)
