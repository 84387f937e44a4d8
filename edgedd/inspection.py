"""What is in a synthetic set: sizes to the byte, form, recipe, provenance."""

import os
from typing import Any

import numpy as np

from edgedd.storage import compact_file
from edgedd.synthetic_set import SyntheticSet


def inspect(synthetic: "SyntheticSet | str | os.PathLike[str]") -> dict[str, Any]:
    """Plain values for a table or JSON, of a set or of its file; `bytes` is the exact size and the sum of `parts`.

    Of a file it is the size on disk: a writer other than edgedd may have padded the header. `plain_bytes` and
    `compact_bytes` are what the set takes in either form of the file.
    `fp32_ipc_equivalent` is the papers' unit: the file's bytes over those of one float32 image a class.
    """
    if isinstance(synthetic, SyntheticSet):
        size = synthetic.nbytes
    else:
        path, synthetic = synthetic, SyntheticSet.load(synthetic)
        size = os.stat(path).st_size
    compact = synthetic.packed().to_bytes()
    plain = synthetic.packed(compact=False).nbytes
    form = synthetic.parameterization.as_dict()
    one_image = 4 * int(np.prod(form["shape"]))
    return {
        "bytes": size,
        "plain_bytes": plain if synthetic.compact else size,
        "compact_bytes": size if synthetic.compact else len(compact),
        "parts": _parts(synthetic, size, compact),
        "parameterization": form,
        "images": synthetic.count,
        "ipc": synthetic.ipc,
        "fp32_ipc_equivalent": round(size / (one_image * len(synthetic.classes)), 3),
        "classes": list(synthetic.classes),
        "recipe": synthetic.recipe.as_dict(),
        "provenance": dict(synthetic.provenance),
    }


def _parts(synthetic: SyntheticSet, size: int, compact: bytes) -> dict[str, int]:
    """Bytes by tensor and of the header; in a compact file tensors share a stream."""
    if synthetic.compact:
        front = compact_file.front_bytes(compact)
        return {"codes and labels": len(compact) - front, "header": size - len(compact) + front}
    parts = {name: int(values.nbytes) for name, values in synthetic.tensors.items()}
    return parts | {"header": size - sum(parts.values())}
