"""Real data: built-in sets, exact statistics, fingerprints and seeded splits."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from tiny_data import arrays, saved

from edgedd.errors import DataError, MissingExtra, SettingError
from edgedd.labelled_images import LabelledImages, load_data


def test_digits_are_all_there_once() -> None:
    data, stored = load_data("digits"), load_digits()
    assert data.shape == (1, 8, 8) and data.num_classes == 10 and len(data.train_images) + len(data.test_images) == 1797
    everything = np.concatenate([data.train_images, data.test_images])[:, 0].reshape(1797, -1)
    wanted = np.round(stored.data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, everything)) == sorted(map(bytes, wanted))
    counts = np.bincount(stored.target)
    np.testing.assert_allclose(np.bincount(data.test_labels) / counts, 0.2, atol=0.003)
    assert data.fingerprint == load_data("digits").fingerprint


def test_npz_keeps_pixels_labels_and_names(tmp_path: Path) -> None:
    data = load_data(
        saved(tmp_path, classes=np.array(["red", "vert", "blå"]), train_labels=np.arange(12, dtype=">u2") % 3)
    )
    assert data.classes == ("red", "vert", "blå") and data.train_labels.dtype == np.int64 and data.shape == (3, 8, 9)
    assert np.array_equal(data.train_images.transpose(0, 2, 3, 1), arrays()["train_images"])
    grey = load_data(
        saved(tmp_path, train_images=arrays()["train_images"][..., 0], test_images=arrays()["test_images"][..., :1])
    )
    assert grey.shape == (1, 8, 9) and grey.classes == ("0", "1", "2")


def test_statistics_are_numpys_over_the_training_part(tmp_path: Path) -> None:
    data = load_data(saved(tmp_path))
    pixels = data.train_images / 255
    np.testing.assert_allclose(data.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(data.std, pixels.std(axis=(0, 2, 3)), rtol=1e-6)
    normal = data.normalise(data.train_images)
    assert normal.dtype == data.mean.dtype == data.std.dtype == np.float32
    np.testing.assert_allclose(normal.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(normal.std(axis=(0, 2, 3)), 1, atol=1e-5)
    black = load_data(
        saved(
            tmp_path,
            train_images=np.zeros((12, 8, 9), np.uint8),
            test_images=np.zeros((1, 8, 9), np.uint8),
            test_labels=np.array([2]),
        )
    )
    assert black.std.tolist() == [np.float32(1e-3)] and not black.normalise(black.test_images).any()
    with pytest.raises(DataError, match=r"float64 \(12, 3, 8, 9\), wanted uint8 \(b, 3x8x9\)"):
        data.normalise(pixels)


def test_the_fingerprint_is_of_the_training_part_alone(tmp_path: Path) -> None:
    data = load_data(saved(tmp_path))
    text = b"(12, 3, 8, 9)" + data.train_labels.astype("<i8").tobytes() + data.train_images.tobytes()
    assert data.fingerprint == hashlib.sha256(text).hexdigest()[:16]
    assert load_data(saved(tmp_path, test_images=arrays()["train_images"])).fingerprint == data.fingerprint
    other = arrays()["train_images"].copy()
    other[0, 0, 0, 0] ^= 1
    assert load_data(saved(tmp_path, train_images=other)).fingerprint != data.fingerprint


def test_split_is_stratified_seeded_and_loses_nothing() -> None:
    data = load_data("digits")
    rest, (images, labels) = data.split(0.25, seed=3)
    np.testing.assert_allclose(np.bincount(labels) / np.bincount(data.train_labels), 0.25, atol=0.01)
    together = np.concatenate([rest.train_images, images]).reshape(len(data.train_images), -1)
    assert sorted(map(bytes, together)) == sorted(map(bytes, data.train_images.reshape(len(together), -1)))
    assert np.array_equal(data.split(0.25, seed=3)[1][0], images)
    assert not np.array_equal(data.split(0.25, seed=4)[1][0], images)
    assert rest.fingerprint != data.fingerprint and np.array_equal(rest.test_images, data.test_images)
    for fraction in (0, 1, float("nan")):
        with pytest.raises(SettingError, match="validation fraction"):
            data.split(fraction)


def test_split_leaves_every_class_an_image(tmp_path: Path) -> None:
    rest, (_, labels) = load_data(saved(tmp_path)).split(0.99)
    assert np.bincount(rest.train_labels).tolist() == [1, 1, 1] and len(labels) == 9
    with pytest.raises(DataError, match="one image a class"):
        rest.split()


def test_an_unknown_name_lists_the_known_and_suggests_the_nearest() -> None:
    with pytest.raises(
        DataError, match=r"unknown data set 'cifar-10', wanted one of: digits, mnist.*did you mean cifar10\?"
    ):
        load_data("cifar-10")


def test_without_a_network_the_folder_for_the_files_is_named(tmp_path: Path, monkeypatch, capsys) -> None:
    import torchvision.datasets

    def offline(_self: object) -> None:
        print("Downloading ...")
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", offline)
    with pytest.raises(DataError, match=r"no route to host.*put its files into .*FashionMNIST/raw"):
        load_data("fashion-mnist", tmp_path)
    monkeypatch.setenv("EDGEDD_DATA", str(tmp_path / "other"))
    with pytest.raises(DataError, match="other"):
        load_data("fashion-mnist")
    assert capsys.readouterr().out == ""


def idx(values: np.ndarray) -> bytes:
    """MNIST's file layout."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes()


def test_torchvision_files_that_are_there_are_read(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28))
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(20) % 10))
    data = load_data("mnist", tmp_path)
    assert np.array_equal(data.train_images[:, 0], images) and data.test_labels.tolist() == [*range(10), *range(10)]


def test_a_missing_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match=r"scikit-learn is not installed.*edgedd\[distill\]"):
        load_data("digits")


def test_parts_given_in_python_are_checked_too() -> None:
    images, labels = np.zeros((2, 1, 8, 8), np.uint8), np.array([0, 1], np.int8)
    assert LabelledImages(images, labels, images, labels, ("a", "b"), "mine").train_labels.dtype == np.int64
    with pytest.raises(DataError, match="mine: train_images is list, wanted a uint8 array"):
        LabelledImages([[0]], labels, images, labels, ("a", "b"), "mine")  # type: ignore[arg-type]
