"""Your own network on a device: any small inference model in ONNX, or a torch module, becomes a training graph.

    python examples/bring_your_own_model.py [FOLDER]

Puts random digits of scikit-learn's into 4096 bytes, exports a network that edgedd has never seen, with the weights
that it has, and trains it as a device would, with numpy and onnxruntime: the whole of it, then its last two layers.
"""

import sys
from pathlib import Path

from torch import nn

import edgedd


class Squeeze(nn.Module):
    """Channels weighed by what the whole picture shows (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, channels, 1), nn.Hardsigmoid()
        )

    def forward(self, images):
        return images * self.weigh(images)


network = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1, bias=False),
    nn.BatchNorm2d(16),
    nn.Hardswish(),
    nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
    nn.GroupNorm(4, 16),
    nn.GELU(),
    Squeeze(16),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(16 * 4 * 4, 32),
    nn.ReLU6(),
    nn.Linear(32, 10),
)

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "own_model")
folder.mkdir(parents=True, exist_ok=True)
recipe = edgedd.Recipe(steps=200, augmentation=edgedd.Augmentation(shift=1))
synthetic = edgedd.distill("digits", method="random", bytes=4096, labels="hard", recipe=recipe, seed=0)
data = edgedd.load_data("digits")
for mode in ("full", "last-2"):
    edgedd.export(synthetic, folder / mode, model=network, mode=mode)
    student = edgedd.Student.load(folder / mode)
    before = student.evaluate(data.test_images, data.test_labels)
    student.fit()
    after = student.evaluate(data.test_images, data.test_labels)
    print(f"{mode}: {100 * before:.1f} % -> {100 * after:.1f} % on test images")
