"""Real images as a file that could be shipped instead of a synthetic set: what is counted is what is trained from.

    b"edr\\x01"   size of the next part (2 bytes)   deflated: metadata, count, mean, std
    soft labels, with their size before them (4 bytes; 0 of hard ones)   images as their store codes them

The metadata says as much as a synthetic set's, and is deflated with the same preset dictionary as that of a compact
set. Images are in class-major order, so that hard labels take no bytes. Letters: n images, K classes.
"""

import zlib
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from edgedd.baselines.levels import Shape, lossless, plain
from edgedd.baselines.stores import Store, store_from
from edgedd.errors import FormatError
from edgedd.parameterization import Pixels
from edgedd.recipe import Recipe
from edgedd.storage import set_metadata
from edgedd.storage.compact_file import DICTIONARY, deflated
from edgedd.synthetic_set import SyntheticSet, label_steps, quantize_labels

MAGIC = b"edr\x01"


@dataclass(frozen=True, eq=False)
class RealSet:
    """n real images of K classes, coded.

    Attributes:
        store: how the images are coded; `coded`: the bytes.
        labels: soft labels (n, K) uint8, steps whose rows sum to `label_steps(K)`; None for hard ones.
        selection: how the images were chosen: "random", "herding" or "kmeans".
    """

    store: Store
    coded: bytes
    labels: np.ndarray | None
    count: int
    selection: str
    shape: Shape
    mean: np.ndarray
    std: np.ndarray
    classes: tuple[str, ...]
    recipe: Recipe
    provenance: dict[str, Any]

    @property
    def ipc(self) -> int:
        """Images a class."""
        return self.count // len(self.classes)

    @property
    def label_kind(self) -> str:
        """ "hard" or "teacher"."""
        return "hard" if self.labels is None else "teacher"

    def to_bytes(self) -> bytes:
        """The file; `from_bytes` gives the same set."""
        about = {"selection": self.selection, "store": asdict(self.store), **self.provenance}
        text = set_metadata.to_text(Pixels(self.shape), self.recipe, self.classes, about)
        numbers = self.count.to_bytes(4, "little") + np.concatenate([self.mean, self.std]).astype("<f4").tobytes()
        front = deflated(text.encode() + b"\0" + numbers)
        labels = b"" if self.labels is None else lossless(np.ascontiguousarray(self.labels.T).tobytes())
        return (
            MAGIC + len(front).to_bytes(2, "little") + front + len(labels).to_bytes(4, "little") + labels + self.coded
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> "RealSet":
        """Read a file. Raises FormatError."""
        size = int.from_bytes(content[4:6], "little")
        try:
            front = zlib.decompressobj(-15, DICTIONARY).decompress(content[6 : 6 + size])
        except zlib.error as error:
            raise FormatError(f"real images whose header does not inflate ({error}): copy the file again") from error
        text, _, numbers = front.partition(b"\0")
        if not content.startswith(MAGIC) or len(numbers) < 12:
            raise FormatError("not a file of real images, or truncated: copy it again")
        fields = set_metadata.from_text(text.decode())
        about, place = dict(fields["provenance"]), 10 + size
        count = int.from_bytes(numbers[:4], "little")
        mean, std = np.frombuffer(numbers[4:], "<f4").reshape(2, -1)
        end = place + int.from_bytes(content[place - 4 : place], "little")
        stored = np.frombuffer(plain(content[place:end]), np.uint8) if end > place else None
        labels = None if stored is None else np.ascontiguousarray(stored.reshape(-1, count).T)
        common = {"classes": fields["classes"], "recipe": fields["recipe"], "shape": fields["parameterization"].shape}
        chosen = {"selection": about.pop("selection"), "store": store_from(about.pop("store"))}
        return cls(
            coded=content[end:], labels=labels, count=count, mean=mean, std=std, provenance=about, **common, **chosen
        )

    def synthetic(self) -> SyntheticSet:
        """The decoded images as 8-bit pixels, with the labels: what students are trained from."""
        images = self.store.decode(self.coded, self.count, self.shape).astype(np.float32) / 255
        form = Pixels(self.shape)
        return SyntheticSet.from_factors(
            form,
            factors=form.encode((images - self.mean[:, None, None]) / self.std[:, None, None]),
            labels=self.probabilities(),
            mean=self.mean,
            std=self.std,
            recipe=self.recipe,
            classes=self.classes,
            provenance=self.provenance,
        )

    def probabilities(self) -> np.ndarray:
        """Labels (n, K), rows sum to 1."""
        if self.labels is None:
            return np.repeat(np.eye(len(self.classes)), self.ipc, axis=0)
        return self.labels / label_steps(len(self.classes))

    def trained_by(self, synthetic: SyntheticSet) -> "RealSet":
        """The set with the recipe and, where they are soft, the labels that a search has found for it."""
        labels = None if self.labels is None else stepped(synthetic.soft_labels(slice(None)))
        return replace(self, labels=labels, recipe=synthetic.recipe)


def stepped(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities (n, K) -> uint8 steps (n, K), rows sum to `label_steps(K)`."""
    steps = label_steps(probabilities.shape[1])
    return quantize_labels(probabilities, steps) // (255 // steps)
