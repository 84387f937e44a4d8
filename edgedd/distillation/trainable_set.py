"""A synthetic set while it is being distilled: float factors and label logits as leaves, decoded on demand."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from edgedd.distillation import rate
from edgedd.parameterization import Parameterization
from edgedd.storage import quantize


@dataclass
class TrainableSet:
    """n images of K classes in class-major order.

    Attributes:
        factors: leaves by name, float32, shapes as `parameterization.factor_shapes(n)`.
        label_logits: leaf (n, K); soft labels are its softmax.
        scales: once quantisation is in the loop, the float32 scales and zeros by factor name.
        step: the one quantisation step of all coefficients, for the compact file; None: scales are fitted.
    """

    parameterization: Parameterization
    factors: dict[str, torch.Tensor]
    label_logits: torch.Tensor
    scales: dict[str, tuple[torch.Tensor, torch.Tensor]]
    step: float | None = None

    @classmethod
    def start(
        cls,
        parameterization: Parameterization,
        images: np.ndarray,
        label_logits: np.ndarray,
        device: torch.device,
    ) -> "TrainableSet":
        """Encode normalised real images (n, C, H, W); labels start at the softmax of `label_logits` (n, K)."""
        factors = {
            name: torch.tensor(values, device=device, requires_grad=True)
            for name, values in parameterization.encode(images).items()
        }
        labels = torch.tensor(label_logits.astype(np.float32), device=device, requires_grad=True)
        return cls(parameterization, factors, labels, {})

    @classmethod
    def blank(
        cls, parameterization: Parameterization, count: int, num_classes: int, device: torch.device
    ) -> "TrainableSet":
        """All zeros, for a checkpoint to fill."""
        factors = {
            name: torch.zeros(shape, device=device, requires_grad=True)
            for name, shape in parameterization.factor_shapes(count).items()
        }
        return cls(parameterization, factors, torch.zeros(count, num_classes, device=device, requires_grad=True), {})

    @property
    def count(self) -> int:
        """n."""
        return len(self.label_logits)

    @property
    def stored_per_class(self) -> int:
        """Stored images a class, the papers' IPC: a formation of f x f stores f^2 images as one."""
        return max(1, self.count // (self.label_logits.shape[1] * self.parameterization.per_stored))

    @property
    def classes(self) -> np.ndarray:
        """(n,) the class each image was started from."""
        return np.arange(self.count) * self.label_logits.shape[1] // self.count

    def images(self, rows: np.ndarray | slice = slice(None)) -> torch.Tensor:
        """Images (b, C, H, W), differentiable in the factors (straight through the rounding once that is on)."""
        decoded: torch.Tensor = self.parameterization.decode(self._rounded(), rows)
        return decoded

    def soft_labels(self) -> torch.Tensor:
        """Soft labels (n, K), rows sum to 1."""
        return torch.softmax(self.label_logits, dim=1)

    def copied(self) -> "TrainableSet":
        """The same set, which does not change with this one."""
        factors = {name: values.detach().clone() for name, values in self.factors.items()}
        return replace(self, factors=factors, label_logits=self.label_logits.detach().clone(), scales={})

    def state_dict(self) -> dict[str, Any]:
        """All that changes, for a checkpoint."""
        return {
            "factors": {name: values.detach() for name, values in self.factors.items()},
            "label_logits": self.label_logits.detach(),
            "scales": {name: list(pair) for name, pair in self.scales.items()},
            "step": self.step,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """The inverse, in place."""
        with torch.no_grad():
            for name, values in saved["factors"].items():
                self.factors[name].copy_(values)
            self.label_logits.copy_(saved["label_logits"])
        device = self.label_logits.device
        self.scales = {n: (pair[0].to(device), pair[1].to(device)) for n, pair in saved["scales"].items()}
        self.step = saved["step"]

    def stepped(self) -> list[torch.Tensor]:
        """The factors that are stored as codes."""
        return [self.factors[name] for name in self.parameterization.scale_shapes(self.count)]

    def fit_scales(self) -> None:
        """Put rounding to the file's bits in the loop, with scales fitted to the factors as they are now."""
        bits = self.parameterization.bits
        for name, shape in self.parameterization.scale_shapes(self.count).items():
            values = self.factors[name].detach().cpu().numpy()
            if self.step is not None:
                scale, zero = np.full(shape, self.step), np.full(shape, quantize.default_zero(bits))
            elif self.parameterization.has_zero:
                scale, zero = quantize.fit_range(values, bits, shape)
            else:
                scale = quantize.fit_scale(values, bits, shape)
                zero = np.full_like(scale, quantize.default_zero(bits))
            device = self.label_logits.device
            self.scales[name] = tuple(torch.from_numpy(v.astype(np.float32)).to(device) for v in (scale, zero))  # type: ignore[assignment]

    def numpy_factors(self) -> dict[str, np.ndarray]:
        """The factors as float32 arrays, not rounded; those with a step are multiples of it."""
        values = {name: factor.detach() for name, factor in self.factors.items()}
        if self.step is not None:
            for name in self.parameterization.scale_shapes(self.count):
                values[name] = self.step * rate.codes(values[name], self.step)
        return {name: factor.cpu().numpy() for name, factor in values.items()}

    def numpy_scales(self) -> dict[str, np.ndarray] | None:
        """The scales by factor name where there is one step for all of them, float16; None: they are to be fitted."""
        if self.step is None:
            return None
        shapes = self.parameterization.scale_shapes(self.count)
        return {name: np.full(shape, self.step, np.float16) for name, shape in shapes.items()}

    def numpy_labels(self) -> np.ndarray:
        """Soft labels (n, K) as a float32 array."""
        labels: np.ndarray = self.soft_labels().detach().cpu().numpy()
        return labels

    def _rounded(self) -> Mapping[str, torch.Tensor]:
        highest = 2**self.parameterization.bits - 1
        factors = dict(self.factors)
        for name, (scale, zero) in self.scales.items():
            values = factors[name]
            if self.step is None:
                codes = (values / scale + zero).round().clamp(0, highest)
            else:
                codes = (rate.codes(values, self.step) + zero).clamp(0, highest)
            factors[name] = values + ((codes - zero) * scale - values).detach()
        return factors
