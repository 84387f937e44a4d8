"""Parameters and momentum between optimizer steps: they stay onnxruntime values and are not copied.

Letters: n stored images, k rows of them, m images from outside, b = k + m, K classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgedd.augmentation import Draw
from edgedd.device.sessions import Sessions, value
from edgedd.errors import EdgeddError
from edgedd.synthetic_set import SyntheticSet, restore_factors


class Trainer:
    """State of one student in training; remembers the last parameters that gave a finite loss."""

    def __init__(self, sessions: Sessions, synthetic: SyntheticSet, parameters: Mapping[str, np.ndarray]) -> None:
        self._sessions, self._synthetic = sessions, synthetic
        self._bound: dict[str, Any] = {}
        self.reset(parameters)

    def reset(self, parameters: Mapping[str, np.ndarray]) -> None:
        """Start from `parameters`, with momentum at zero and steps counted from 0."""
        self._values = {f"p.{name}": value(array) for name, array in parameters.items()}
        trained = self._sessions.facts.trained
        self._momentum = {f"momentum.{name}": value(np.zeros_like(parameters[name])) for name in trained}
        self._good = self._values
        self.steps = 0

    def parameters(self) -> dict[str, np.ndarray]:
        """Copies of the parameters, float32, by name."""
        return {name.removeprefix("p."): np.array(held.numpy()) for name, held in self._values.items()}

    def step(self, rows: np.ndarray, images: np.ndarray, soft_labels: np.ndarray, lr: float, drawn: Draw) -> float:
        """One step on rows (k,) of the set and images (m, C, H, W) from outside -> loss before the step.

        Raises EdgeddError when the loss is not finite; the parameters are then those of the last finite loss.
        """
        feeds = {"rows": rows, "images": images, "soft_labels": soft_labels, "lr": np.float32(lr)}
        feeds |= {f"augment.{name}": getattr(drawn, name) for name in self._sessions.facts.augments}
        given = {name: value(np.asarray(array)) for name, array in feeds.items()}
        outputs = ["loss", *(f"next.{name}" for name in self._changing())]
        session = self._sessions.train
        results = session.run_with_ort_values(outputs, self._values | self._momentum | self._set_values() | given)
        loss = float(results[0].numpy())
        if not np.isfinite(loss):
            self._stop(f"the loss at step {self.steps} is {loss}")
        after = dict(zip(self._changing(), results[1:], strict=True))
        self._good = self._values
        self._values = self._values | {name: held for name, held in after.items() if name.startswith("p.")}
        self._momentum = {name: after[name] for name in self._momentum}
        self.steps += 1
        return loss

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits (b, K) of normalised float32 images (b, C, H, W)."""
        feeds = self._values | {"images": value(images)}
        logits: np.ndarray = self._sessions.predict.run_with_ort_values(["logits"], feeds)[0].numpy()
        return logits

    def check_finite(self) -> None:
        """Raises EdgeddError when the last step left a parameter that is not finite, and takes that step back."""
        wrong = [name for name, held in self._values.items() if not np.isfinite(held.numpy()).all()]
        if wrong:
            self._stop(f"after step {self.steps} the parameter {wrong[0]} is not finite")

    def _stop(self, what: str) -> None:
        self._values = self._good
        self._momentum = {name: value(np.zeros_like(held.numpy())) for name, held in self._momentum.items()}
        raise EdgeddError(
            f"{what}, wanted a finite number; the last good parameters are kept: lower the learning rate or check the "
            "images for values that are not finite"
        )

    def _changing(self) -> list[str]:
        return [f"p.{name}" for name in self._sessions.facts.trained] + list(self._momentum)

    def _set_values(self) -> dict[str, Any]:
        """The set's factors and labels, dequantised and bound once, when the first step is taken."""
        if not self._bound:
            s = self._synthetic
            factors = restore_factors(s.parameterization, s.tensors, s.count)
            self._bound = {f"factors.{name}": value(array) for name, array in factors.items()}
            self._bound["labels"] = value(s.soft_labels(slice(None)))
        return self._bound
