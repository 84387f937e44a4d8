"""A distillation method of your own, without touching the package: data plus two functions.

    python examples/own_method.py

Mean matching in pixel space: the simplest objective there is, a floor for any other. Needs the extra [distill].
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import edgedd


@dataclass(frozen=True)
class PixelMeans:
    """Pull the mean image of each synthetic class to that of real batches."""

    batch_real: int = 32
    lr: float = 0.02
    lr_mappers: float = 1e-3
    lr_labels: float = 0.0

    def init(self, synthetic: Any, real: Any, compute: Any, generator: np.random.Generator) -> "NoState":
        """What is kept between steps: nothing."""
        return NoState()

    def loss(self, synthetic: Any, real: Any, state: "NoState", generator: np.random.Generator) -> Any:
        """A scalar whose gradient moves the factors, and the next state."""
        rows = [real.sample_class(c, self.batch_real, generator) for c in range(real.num_classes)]
        target = torch.stack([real.normalised(r).mean(0) for r in rows])
        ours = synthetic.images().unflatten(0, (real.num_classes, -1)).mean(1)
        return (ours - target).square().sum(), state


class NoState:
    """An empty checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""


def main() -> None:
    """Distil digits with it and say what came out."""
    losses: list[float] = []

    def on_step(progress: Any) -> None:
        if progress.loss is not None:
            losses.append(progress.loss)

    synthetic = edgedd.distill(
        "digits",
        method=PixelMeans(),
        ipc=5,
        labels="hard",
        iterations=60,
        recipe=edgedd.Recipe(steps=100),
        on_step=on_step,
    )
    print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}, {synthetic.ipc} images a class in {synthetic.nbytes} bytes")


if __name__ == "__main__":
    main()
