"""Where a compact set loses accuracy: one part of it exchanged at a time, from all real images down to the set.

    python benchmarks/loss_by_part.py NAME DATA.npz --set FILE.edd [--seeds 2] [--width 32]

Every part is trained on by the set's own recipe, in torch, and scored on images held out from its distillation, never
on test images: what it costs to keep a few images only, to store them in the set's bytes, what distilling regains, what
soft labels, augmentation and steps are worth. Real images are those that `auto` starts from, with labels of four
early-stopped teachers. Rows go to results/loss_by_part_NAME.json, and a second call goes on with what is missing.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stored import RESULTS
from surroundings import surroundings

import edgedd
from edgedd.atomic import write_bytes
from edgedd.augmentation import Augmentation
from edgedd.distillation import auto, compact_budget
from edgedd.distillation.compute import Compute
from edgedd.distillation.filing import Filing
from edgedd.distillation.options import Options
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.recipe_search import Validation
from edgedd.distillation.teacher import Teacher
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.distillation.training import Shuffled, Trainer
from edgedd.recipe import Recipe
from edgedd.students import default_student, student

TEACHERS, LONGER, SHORTER = 4, 4, 600
Images = tuple[torch.Tensor, torch.Tensor]


class Parts:
    """A set, the real images it came from, and what lies between them; images normalised, labels one row an image."""

    def __init__(self, synthetic: edgedd.SyntheticSet, data: edgedd.LabelledImages, width: int) -> None:
        self.set, seed = synthetic, synthetic.provenance["seed"]
        self.compute = Compute.choose()
        self.training, held_out = data.split(seed=seed)
        self.validation = Validation.drawn(held_out, seed)
        self.real = RealImages.of(self.training, self.compute)
        self.teacher = Teacher(self.real, Options(bytes=synthetic.nbytes, seed=seed), self.compute, count=TEACHERS)
        network = student(default_student(data.shape, width), data.shape, data.num_classes)
        self.trainer = Trainer(network, self.compute)

    @cached_property
    def few(self) -> Images:
        """As many real images as the set has, as `auto` chooses them."""
        chooser = np.random.default_rng([self.set.provenance["seed"], 1])
        images = self.real.normalised(auto.START.choose(self.real, self.set.ipc, self.teacher, chooser))
        return images, torch.softmax(torch.from_numpy(self.teacher.start_logits(images)), 1)

    @cached_property
    def stored(self) -> Images:
        """The same in the set's form and bytes, labelled as they are then."""
        images, labels = (values.cpu().numpy() for values in self.few)
        start = TrainableSet.start(self.set.parameterization, images, np.log(labels + 1e-9), self.compute.device)
        mean, std = self.training.mean, self.training.std
        filing = Filing(mean, std, self.set.classes, self.set.provenance, packed=True)
        compact_budget.fit_step(start, lambda: filing.most_bytes(start), self.set.nbytes)
        decoded = torch.from_numpy(filing.file(start, self.set.recipe, 0).images(slice(None)))
        return decoded, torch.softmax(torch.from_numpy(self.teacher.start_logits(decoded)), 1)

    @cached_property
    def distilled(self) -> Images:
        """The set."""
        return torch.from_numpy(self.set.images(slice(None))), torch.from_numpy(self.set.soft_labels(slice(None)))

    def hard(self, images: torch.Tensor, labels: torch.Tensor) -> Images:
        """With the class alone for a label."""
        classes = torch.arange(len(images)) * labels.shape[1] // len(images)
        return images, torch.nn.functional.one_hot(classes, labels.shape[1]).float()

    def all(self) -> dict[str, tuple[Recipe, Callable[[], Images | None]]]:
        """What is trained on, by name; None: all real images."""
        own = self.set.recipe
        plain, short, long = (
            replace(own, augmentation=Augmentation()),
            replace(own, steps=min(SHORTER, own.steps)),
            replace(own, steps=LONGER * own.steps),
        )
        return {
            "all real images, longer": (long, lambda: None),
            "all real images": (own, lambda: None),
            "few real images": (own, lambda: self.few),
            "few real images, hard labels": (own, lambda: self.hard(*self.few)),
            "few real images, stored": (own, lambda: self.stored),
            "the set": (own, lambda: self.distilled),
            "the set, hard labels": (own, lambda: self.hard(*self.distilled)),
            "the set, no augmentation": (plain, lambda: self.distilled),
            "the set, shorter": (short, lambda: self.distilled),
            "the set, longer": (long, lambda: self.distilled),
        }

    def accuracy(self, recipe: Recipe, images: Images | None, seed: int) -> float:
        """On the validation images, of one student."""
        generator = np.random.default_rng([seed, 11])
        sample = self.real.sampler(generator) if images is None else Shuffled(*images, generator)
        parameters = self.trainer.fit(sample, recipe, generator)
        seen = self.validation
        return self.trainer.accuracy(parameters, seen.images, seen.labels, self.real.mean, self.real.std)


def main() -> None:
    """Parse, train what is missing, write after each training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("data")
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--width", type=int, default=32)
    arguments = parser.parse_args()
    path = RESULTS / f"loss_by_part_{arguments.name}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    synthetic = edgedd.SyntheticSet.load(arguments.set)
    about = {"file": arguments.set.name, "bytes": synthetic.nbytes, "ipc": synthetic.ipc, "width": arguments.width}
    command = f"python benchmarks/loss_by_part.py {arguments.name} {Path(arguments.data).name} --set {about['file']}"
    command += f" --seeds {arguments.seeds} --width {arguments.width}"
    parts = Parts(synthetic, edgedd.load_data(arguments.data), arguments.width)
    for part, (recipe, images) in parts.all().items():
        known = {**about, "part": part}
        done = next((row for row in rows if all(row[key] == value for key, value in known.items())), None)
        if done is None:
            done = {**known, "recipe": recipe.as_dict(), "accuracies": [], "command": command, "seconds": 0.0}
            rows.append(done)
        for seed in range(len(done["accuracies"]), arguments.seeds):
            begun = time.perf_counter()
            done["accuracies"].append(round(parts.accuracy(recipe, images(), seed), 4))
            done["seconds"] = round(done["seconds"] + time.perf_counter() - begun, 1)
            print(f"{part}: {done['accuracies']}, {done['seconds']} s", flush=True)
            write_bytes(
                path, json.dumps({"data": arguments.name, "rows": rows, **surroundings()}, indent=1).encode() + b"\n"
            )


if __name__ == "__main__":
    main()
