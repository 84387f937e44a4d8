"""Parameters and optimizer state between steps: they stay onnxruntime values and are not copied.

Letters: n stored images, k rows of them, m images from outside, b = k + m, K outputs. Each thread works on its own
part of a batch, a micro-batch at a time; the gradients are added up and one last call moves the parameters.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from edgedd.augmentation import Draw
from edgedd.device.free_memory import Room
from edgedd.device.sessions import Sessions, value
from edgedd.device.spare import widened
from edgedd.errors import BudgetError, EdgeddError
from edgedd.planning.memory_model import part_size
from edgedd.synthetic_set import SyntheticSet, restore_factors

NO_MEMORY = ("bad_alloc", "failed to allocate", "out of memory")
OUTPUT, SUM = "next.", "sum."
Values = dict[str, Any]


class Batch(NamedTuple):
    """Rows (k,) of the set, images (m, C, H, W) from outside and their soft labels (m, K)."""

    rows: np.ndarray
    images: np.ndarray
    soft_labels: np.ndarray

    @property
    def size(self) -> int:
        """k + m."""
        return len(self.rows) + len(self.images)


class Trainer:
    """State of one student in training; remembers the last parameters that gave a finite loss."""

    def __init__(self, sessions: Sessions, synthetic: SyntheticSet, weights: Mapping[str, np.ndarray]) -> None:
        self._sessions, self._synthetic, self._room = sessions, synthetic, Room()
        self._bound: Values = {}
        carried = sessions.facts.carried
        self._zeros = {n: value(np.zeros(shape, np.float32)) for n, shape in carried.items() if n.startswith(SUM)}
        self._changing = [name for name in carried if not name.startswith(SUM)]
        self._weights: Values = {}
        self._state: Values = {}
        self.reset(weights)

    def reset(self, weights: Mapping[str, np.ndarray]) -> None:
        """Start from the parameters and buffers in `weights`, with the optimizer's state at zero and steps at 0."""
        facts = self._sessions.facts
        self._weights = {f"p.{name}": value(weights[name]) for name in facts.parameters}
        self._weights |= {f"b.{name}": value(weights[name]) for name in facts.buffers}
        self._forget()
        self._good = self._weights
        self.steps = 0

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of the parameters and buffers, float32, by name."""
        return {name[2:]: np.array(held.numpy()) for name, held in self._weights.items()}

    def snapshot(self) -> dict[str, np.ndarray]:
        """Copies of all that a step changes: p.*, b.* and the optimizer's state."""
        return {name: np.array(held.numpy()) for name, held in (self._weights | self._state).items()}

    def restore(self, snapshot: Mapping[str, np.ndarray], steps: int) -> None:
        """Go on from a snapshot that was taken after so many steps."""
        self._weights = {name: value(snapshot[name]) for name in self._weights}
        self._state = {name: value(snapshot[name]) for name in self._state}
        self._good, self.steps = self._weights, steps

    def step(self, batch: Batch, lr: float, drawn: Draw, micro_batch: int) -> float:
        """One step -> loss before the step.

        Raises EdgeddError when the loss is not finite, the parameters are then those of the last finite loss; and
        BudgetError when the micro-batch does not fit into memory, which is asked before memory is taken.
        """
        self._room.check(self._sessions, self._synthetic, batch.size, micro_batch)
        arrays = batch._asdict()
        arrays |= {f"augment.{name}": array for name, array in drawn._asdict().items()}
        asked = self._sessions.facts.asked
        numbers: dict[str, Any] = {"lr": np.float32(lr), "batch": np.float32(batch.size)}
        numbers |= {"micro_batch": np.int64(micro_batch), "step": np.float32(self.steps + 1)}
        common = {name: value(np.asarray(number)) for name, number in numbers.items() if name in asked}
        common |= self._weights | self._state | self._set_values() | self._zeros
        parts = _parts({n: a for n, a in arrays.items() if n in asked}, self._sessions.threads, micro_batch)
        loss, after = self._run(common, parts, micro_batch)
        if not np.isfinite(loss):
            self._stop(f"the loss at step {self.steps} is {loss}")
        self._good = self._weights
        self._weights = {name: after.get(name, held) for name, held in self._weights.items()}
        self._state = {name: after[name] for name in self._state}
        self.steps += 1
        return loss

    def predict(self, images: np.ndarray, *, int8: bool = False) -> np.ndarray:
        """Logits (b, K) of normalised float32 images (b, C, H, W), or those of the quantised graph's own weights."""
        session = self._sessions.int8 if int8 else self._sessions.predict
        weights = {} if int8 else self._weights

        def logits(part: np.ndarray) -> np.ndarray:
            found: np.ndarray = session.run_with_ort_values(["logits"], weights | {"images": value(part)})[0].numpy()
            return found

        parts = [part for part in np.array_split(images, self._sessions.threads) if len(part)]
        return np.concatenate(self._sessions.each(logits, parts))

    def check_finite(self) -> None:
        """Raises EdgeddError when the last step left a parameter that is not finite, and takes that step back."""
        wrong = [name for name, held in self._weights.items() if not np.isfinite(held.numpy()).all()]
        if wrong:
            self._stop(f"after step {self.steps} the parameter {wrong[0][2:]} is not finite")

    def _run(self, common: Values, parts: list[Values], micro_batch: int) -> tuple[float, Values]:
        """Loss, and what a step changes."""
        moved = [OUTPUT + name for name in self._changing]
        try:
            if len(parts) == 1:
                loss, *after = self._sessions.step(["loss", *moved], common | parts[0])
                return float(loss.numpy()), dict(zip(self._changing, after, strict=True))
            buffers = [name for name in self._changing if name.startswith("b.")]
            wanted = ["loss", *(OUTPUT + name for name in (*self._zeros, *buffers))]
            results = self._sessions.each(lambda part: self._sessions.step(wanted, common | part), parts)
            loss, *found = (sum(held.numpy() for held in column) for column in zip(*results, strict=True))
            total = {name: value(array) for name, array in zip(self._zeros, found, strict=False)}
            means = [array / np.float32(len(parts)) for array in found[len(total) :]]
            total |= {name: value(array) for name, array in zip(buffers, means, strict=True)}
            nothing = {name: value(held.numpy()[:0]) for name, held in parts[0].items()}
            after = self._sessions.step(moved, common | total | nothing)
        except Exception as error:
            if not isinstance(error, MemoryError) and not any(words in str(error).lower() for words in NO_MEMORY):
                raise
            need = len(parts) * micro_batch * self._sessions.facts.activation_bytes / 1e6
            raise BudgetError(
                f"out of memory in a training step: {len(parts)} x {micro_batch} images at once need about {need:.0f} "
                "MB for activations; train with a smaller --micro-batch, one thread, or --low-memory"
            ) from error
        return float(loss), dict(zip(self._changing, after, strict=True))

    def _forget(self) -> None:
        carried = self._sessions.facts.carried
        state = [name for name in self._changing if name not in self._weights]
        self._state = {name: value(np.zeros(carried[name], np.float32)) for name in state}

    def _stop(self, what: str) -> None:
        self._weights = self._good
        self._forget()
        raise EdgeddError(
            f"{what}, wanted a finite number; the last good parameters are kept: lower the learning rate or check the "
            "images for values that are not finite"
        )

    def _set_values(self) -> Values:
        """The set's factors and labels, dequantised and bound once, when the first step is taken."""
        if not self._bound:
            s = self._synthetic
            factors = restore_factors(s.parameterization, s.tensors, s.count)
            self._bound = {f"factors.{name}": value(array) for name, array in factors.items()}
            self._bound["labels"] = value(widened(s.soft_labels(slice(None)), self._sessions.facts.outputs))
        return self._bound


def _parts(arrays: Mapping[str, np.ndarray], workers: int, micro_batch: int) -> list[Values]:
    """A batch shared among workers in whole micro-batches; rows of the set come before images from outside."""
    stored = len(arrays["rows"])
    count = stored + len(arrays["images"])
    share = part_size(count, micro_batch, workers)
    parts = []
    for first in range(0, count, share):
        last = min(first + share, count)
        ends = {"rows": (first, last)} | dict.fromkeys(
            ("images", "soft_labels"), (max(first - stored, 0), max(last - stored, 0))
        )
        cut = {name: array[slice(*ends.get(name, (first, last)))] for name, array in arrays.items()}
        parts.append({name: value(array) for name, array in cut.items()})
    return parts
