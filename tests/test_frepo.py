"""FRePo's loss against its formula written again, and what must not change it."""

import numpy as np
import torch

from edgedd.distillation.frepo import regression_loss


def draw(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    features, real = generator.normal(size=(6, 10)), generator.normal(size=(9, 10))
    labels = generator.dirichlet(np.ones(4), 6) - 0.25
    target = np.eye(4)[generator.integers(0, 4, 9)] - 0.25
    return features, labels, real, target


def ours(features: np.ndarray, labels: np.ndarray, real: np.ndarray, target: np.ndarray, ridge: float) -> float:
    tensors = (torch.from_numpy(values) for values in (features, labels, real, target))
    return float(regression_loss(*tensors, ridge))


def test_equals_the_formula_written_plainly() -> None:
    for seed, ridge in enumerate((1e-6, 1e-3, 0.5)):
        features, labels, real, target = draw(seed)
        kernel = features @ features.T
        damping = ridge * np.trace(kernel) / len(kernel)
        predicted = real @ features.T @ np.linalg.inv(kernel + damping * np.eye(len(kernel))) @ labels
        expected = np.sum((target - predicted) ** 2) / (2 * len(real))
        assert np.isclose(ours(features, labels, real, target, ridge), expected, rtol=1e-9)


def test_is_ridge_regression_of_the_head() -> None:
    """The dual form equals the primal: W = (F^T F + lambda I)^-1 F^T Y."""
    features, labels, real, target = draw(5)
    damping = 0.01 * np.sum(features**2) / len(features)
    head = np.linalg.solve(features.T @ features + damping * np.eye(10), features.T @ labels)
    expected = np.sum((target - real @ head) ** 2) / (2 * len(real))
    assert np.isclose(ours(features, labels, real, target, 0.01), expected, rtol=1e-9)


def test_does_not_depend_on_the_order_of_the_synthetic_images() -> None:
    features, labels, real, target = draw(7)
    order = np.random.default_rng(0).permutation(len(features))
    value = ours(features, labels, real, target, 1e-3)
    assert np.isclose(ours(features[order], labels[order], real, target, 1e-3), value, rtol=1e-9)


def test_is_zero_when_the_set_is_the_real_batch_and_nothing_is_regularised() -> None:
    features, labels, _, _ = draw(9)
    assert ours(features, labels, features, labels, 1e-12) < 1e-12
