"""Squared error against bytes of real images: every way of storing a set, and JPEG. No training.

    python benchmarks/storage.py NAME DATA.npz [--images 400] [--seed 0]

Random training images are encoded in each form and written to a real file, plain and compact, with hard labels, which
take about nothing; a file's bytes over its images are what an image takes, header and all. JPEG counts an image's
entropy-coded scan alone (libjpeg's usual tables, quality as stated, colour at half resolution): no header, no table, no
length. Error is the mean squared difference of normalised pixels (unit variance a channel).
Writes benchmarks/results/storage_NAME.json.
"""

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from stored import RESULTS
from surroundings import surroundings

import edgedd
from edgedd.parameterization import DCT, LowRank, Parameterization
from edgedd.recipe import Recipe
from edgedd.storage import set_file
from edgedd.synthetic_set import SyntheticSet

STEPS = (4.0, 3.0, 2.0, 1.5, 1.0)
QUALITIES = (5, 8, 10, 15, 20, 30)
DEAD_ZONE = 0.6


def stored(form: Parameterization, images: np.ndarray, labels: np.ndarray, step: float | None) -> SyntheticSet:
    """A set of the images; with a step, its coefficients are multiples of that, else scales are fitted."""
    factors, scales = form.encode(images), None
    if step is not None:
        ((name, shape),) = form.scale_shapes(len(images)).items()
        codes = np.sign(factors[name]) * np.floor(np.abs(factors[name]) / step + 1 - DEAD_ZONE)
        factors[name], scales = (step * codes).astype(np.float32), {name: np.full(shape, step, np.float16)}
    return SyntheticSet.from_factors(
        form,
        factors=factors,
        labels=labels,
        mean=np.zeros(form.shape[0]),
        std=np.ones(form.shape[0]),
        recipe=Recipe(),
        classes=tuple(map(str, range(labels.shape[1]))),
        provenance={},
        scales=scales,
    )


def of_set(form: Parameterization, images: np.ndarray, labels: np.ndarray, step: float | None = None) -> dict[str, Any]:
    """A row: bytes an image of both files, error, and the processor seconds of reading the compact one."""
    synthetic = stored(form, images, labels, step)
    compact = synthetic.packed().to_bytes()
    begun = time.process_time()
    set_file.parse(compact)
    seconds = time.process_time() - begun
    return {
        "form": form.as_dict() | ({"step": step} if step else {}),
        "plain": round(synthetic.nbytes / len(images), 2),
        "compact": round(len(compact) / len(images), 2),
        "error": error(synthetic.images(slice(None)), images),
        "read_seconds": round(seconds, 3),
    }


def of_jpeg(pixels: np.ndarray, images: np.ndarray, mean: np.ndarray, std: np.ndarray, quality: int) -> dict[str, Any]:
    """A row: bytes an image of the scans, and error."""
    total, decoded = 0, []
    for each in pixels:
        file = io.BytesIO()
        Image.fromarray(each.transpose(1, 2, 0).squeeze()).save(file, "JPEG", quality=quality)
        content = file.getvalue()
        begin = content.index(b"\xff\xda")
        total += len(content) - begin - 2 - int.from_bytes(content[begin + 2 : begin + 4], "big") - 2
        decoded.append(np.atleast_3d(np.asarray(Image.open(file))).transpose(2, 0, 1))
    normalised = (np.stack(decoded) / 255 - mean) / std
    return {
        "form": {"kind": "jpeg", "quality": quality},
        "plain": round(total / len(images), 2),
        "error": error(normalised, images),
    }


def error(decoded: np.ndarray, images: np.ndarray) -> float:
    """Mean squared difference."""
    return round(float(np.square(decoded - images).mean()), 4)


def rows_of(pixels: np.ndarray) -> list[dict[str, Any]]:
    """All rows for uint8 images (n, C, H, W)."""
    scaled = pixels / 255
    mean, std = (each.astype(np.float32) for each in (scaled.mean((0, 2, 3)), scaled.std((0, 2, 3))))
    mean, std = mean[:, None, None], std[:, None, None]
    images, labels = ((scaled - mean) / std).astype(np.float32), np.eye(10)[np.arange(len(pixels)) * 10 // len(pixels)]
    shape = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
    side = min(shape[1:])
    rank = side // 4 if shape[0] > 1 else side // 2
    rows = [of_set(LowRank(shape, rank, 1, bits), images, labels) for bits in (2, 4, 8)]
    for form in (LowRank(shape, side // 2, 1, 8), DCT(shape, side // 2), DCT(shape, 3 * side // 4), DCT(shape, side)):
        rows += [of_set(form, images, labels, step) for step in STEPS]
    return rows + [of_jpeg(pixels, images, mean, std, quality) for quality in QUALITIES]


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data = edgedd.load_data(arguments.data)
    chosen = np.random.default_rng(arguments.seed).permutation(len(data.train_images))[: arguments.images]
    rows = rows_of(data.train_images[chosen])
    for row in rows:
        print(row)
    command = f"python benchmarks/storage.py {arguments.name} {Path(arguments.data).name} --images {arguments.images}"
    result = {
        "data": {"name": arguments.name, "fingerprint": data.fingerprint},
        "images": arguments.images,
        "rows": rows,
        "command": f"{command} --seed {arguments.seed}",
        **surroundings(),
    }
    path = RESULTS / f"storage_{arguments.name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
