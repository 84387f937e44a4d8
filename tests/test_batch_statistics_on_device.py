"""Batch normalisation on the device: ghost batches, threads, and the running statistics that prediction uses."""

from pathlib import Path

import numpy as np
import pytest

from edgedd.device import Student
from edgedd.exporting import export
from edgedd.synthetic_set import SyntheticSet


@pytest.fixture(scope="module")
def resnet(synthetic: SyntheticSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "resnet"
    export(synthetic, path, student="resnet8")
    return path


@pytest.mark.parametrize("threads, micro_batch", [(1, None), (2, 3), (3, 2)])
def test_running_statistics_follow_the_images(resnet: Path, threads: int, micro_batch: int | None) -> None:
    """Of the stem's output on the batch itself: all images have the same, so every micro-batch says the same."""
    student = Student.load(resnet, threads=threads, micro_batch=micro_batch)
    image = np.random.default_rng(0).standard_normal((1, 1, 8, 8)).astype(np.float32)
    images, labels = np.repeat(image, 6, axis=0), np.full((6, 3), 1 / 3, np.float32)
    for _ in range(60):
        student.step(images, labels, 0.0)
    found = student.parameters
    kernels = found["stem.conv.weight"]
    padded = np.pad(image[0, 0], 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    responses = np.einsum("yxij,oij->oyx", windows, kernels[:, 0])
    np.testing.assert_allclose(found["stem.norm.running_mean"], responses.mean((1, 2)), atol=5e-3)
    assert (found["stem.norm.running_var"] < 0.9).any()


def test_whole_batches_are_to_be_had(resnet: Path) -> None:
    assert [Student.load(resnet).micro_batch(batch) for batch in (9, 128)] == [9, 32]
    assert Student.load(resnet, micro_batch=128).micro_batch(128) == 128
    assert Student.load(resnet, low_memory=True).micro_batch(128) == 32


def test_threads_share_whole_ghost_batches(resnet: Path) -> None:
    """Which images are normalised together does not depend on the threads: neither do loss and parameters."""
    results = []
    for threads in (1, 2, 3):
        student = Student.load(resnet, threads=threads, micro_batch=2)
        losses = student.fit(steps=3).losses
        results.append((losses, student.parameters["head.weight"]))
    for losses, head in results[1:]:
        np.testing.assert_allclose(losses, results[0][0], rtol=1e-4)
        np.testing.assert_allclose(head, results[0][1], rtol=1e-3, atol=1e-5)
