"""A synthetic set while it is being distilled: float factors and label logits as leaves, decoded on demand."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from edgedd import quantize
from edgedd.parameterization import Parameterization


@dataclass
class TrainableSet:
    """n images of K classes in class-major order.

    Attributes:
        factors: leaves by name, float32, shapes as `parameterization.factor_shapes(n)`.
        label_logits: leaf (n, K); soft labels are its softmax.
        scales: once quantisation is in the loop, the float32 scales and zeros by factor name.
    """

    parameterization: Parameterization
    factors: dict[str, torch.Tensor]
    label_logits: torch.Tensor
    scales: dict[str, tuple[torch.Tensor, torch.Tensor]]

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

    def fit_scales(self) -> None:
        """Put rounding to the file's bits in the loop, with scales fitted to the factors as they are now."""
        bits = self.parameterization.bits
        for name, shape in self.parameterization.scale_shapes(self.count).items():
            values = self.factors[name].detach().cpu().numpy()
            if self.parameterization.has_zero:
                scale, zero = quantize.fit_range(values, bits, shape)
            else:
                scale = quantize.fit_scale(values, bits, shape)
                zero = np.full_like(scale, quantize.default_zero(bits))
            device = self.label_logits.device
            self.scales[name] = tuple(torch.from_numpy(v.astype(np.float32)).to(device) for v in (scale, zero))  # type: ignore[assignment]

    def numpy_factors(self) -> dict[str, np.ndarray]:
        """The factors as float32 arrays, not rounded."""
        return {name: values.detach().cpu().numpy() for name, values in self.factors.items()}

    def numpy_labels(self) -> np.ndarray:
        """Soft labels (n, K) as a float32 array."""
        labels: np.ndarray = self.soft_labels().detach().cpu().numpy()
        return labels

    def _rounded(self) -> Mapping[str, torch.Tensor]:
        highest = 2**self.parameterization.bits - 1
        factors = dict(self.factors)
        for name, (scale, zero) in self.scales.items():
            values = factors[name]
            codes = (values / scale + zero).round().clamp(0, highest)
            factors[name] = values + ((codes - zero) * scale - values).detach()
        return factors
