"""Small synthetic sets written out by hand, and random ones of any shape."""

import numpy as np

from edgedd.augmentation import Augmentation
from edgedd.parameterization import LowRank, Parameterization, SharedBasis
from edgedd.recipe import Recipe
from edgedd.synthetic_set import SyntheticSet


def golden() -> SyntheticSet:
    """The set of docs/format.md: two 8x8 grey images of two classes, rank 2, two subspaces, 4 bits."""
    steps = np.arange(16, dtype=np.float16).reshape(8, 2)
    tensors = {
        "factors.core": np.array([0xA3, 0x1F, 0x08, 0xC7], np.uint8),
        "scale.core": np.array([0.5, 0.25, 0.125, 1.0], np.float16).reshape(1, 1, 2, 2),
        "factors.left": np.stack([steps / 8, 1 - steps / 4]).astype(np.float16),
        "factors.right": np.stack([steps.T / 16, steps.T / 2 - 2]).astype(np.float16),
        "labels": np.array([[250, 5], [0, 255]], np.uint8),
        "mean": np.array([0.5], np.float32),
        "std": np.array([0.25], np.float32),
    }
    recipe = Recipe(student_lr=0.01, steps=200, batch_size=2, augmentation=Augmentation(flip=0.5))
    provenance = {"method": "by hand", "seed": 0}
    return SyntheticSet(LowRank((1, 8, 8), 2, 2, 4), tensors, recipe, ("zero", "één"), provenance)


def golden_shared_basis() -> SyntheticSet:
    """The second golden file: four grey 8x8 images at half resolution, one picture a subspace, 2 bits, version 2."""
    steps = np.arange(16, dtype=np.float32).reshape(1, 1, 1, 4, 4)
    tensors = {
        "factors.coefficients": np.array([0b11_01_10_00], np.uint8),
        "scale.coefficients": np.array([[0.5]], np.float16),
        "factors.basis": np.concatenate([steps / 8, 1 - steps / 4]).astype(np.float16),
        "factors.mean": np.concatenate([steps[0] / 16, steps[0] * 0 - 0.5]).astype(np.float16),
        "labels": np.array([[255, 0], [200, 55], [5, 250], [0, 255]], np.uint8),
        "mean": np.array([0.5], np.float32),
        "std": np.array([0.25], np.float32),
    }
    recipe = Recipe(student_lr=0.01, steps=200, batch_size=2)
    form = SharedBasis((1, 8, 8), 1, 2, 2, half=True)
    return SyntheticSet(form, tensors, recipe, ("zero", "one"), {"method": "by hand", "seed": 0})


def random_set(parameterization: Parameterization, num_classes: int, ipc: int, seed: int) -> SyntheticSet:
    """A set of random images and labels."""
    generator = np.random.default_rng(seed)
    count, channels = num_classes * ipc, parameterization.shape[0]
    shapes = parameterization.factor_shapes(count)
    return SyntheticSet.from_factors(
        parameterization,
        factors={name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()},
        labels=generator.dirichlet(np.ones(num_classes), count),
        mean=generator.random(channels),
        std=generator.random(channels) + 0.1,
        recipe=Recipe(steps=int(generator.integers(1, 1000))),
        classes=tuple(f"class {k}" for k in range(num_classes)),
        provenance={"seed": seed, "note": "naïve \n \u2028 text", "nested": [1, 2.5, None, True]},
    )
