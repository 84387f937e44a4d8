"""What runs on the device: numpy, onnxruntime and safetensors, no torch.

    python examples/train_on_device.py BUNDLE WEIGHTS.safetensors

Trains the bundle's student from its synthetic set, adapts it to a few new images while rehearsing, and saves it.
"""

import sys

import numpy as np

from edgedd.device import Student


def main(bundle: str, weights: str) -> None:
    """Train, adapt, save."""
    student = Student.load(bundle, threads=2)
    result = student.fit(seed=0, on_epoch=lambda epoch, loss: None)
    print(f"{result.steps} steps in {result.seconds:.1f} s, loss {result.losses[0]:.3f} -> {result.final_loss:.3f}")

    # New labelled images would come from a camera; here, noise stands for 8 pictures of class 0.
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (8, *student.bundle.image_shape), dtype=np.uint8)
    labels = np.eye(len(student.classes), dtype=np.float32)[np.zeros(8, int)]
    for _ in range(5):
        rehearsed = generator.choice(student.synthetic.count, min(24, student.synthetic.count), replace=False)
        loss = student.step(student.normalise(pictures), labels, lr=0.01, rows=rehearsed)
    named = student.classes[student.predict(pictures).argmax(1)[0]]
    print(f"adapted, loss {loss:.3f}; the new pictures are now {named!r}")
    student.save(weights)


if __name__ == "__main__":
    main(*sys.argv[1:])
