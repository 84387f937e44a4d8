"""What is in a synthetic set: sizes to the byte, form, recipe, provenance."""

import os
from typing import Any

import numpy as np

from edgedd.synthetic_set import SyntheticSet


def inspect(synthetic: "SyntheticSet | str | os.PathLike[str]") -> dict[str, Any]:
    """Plain values for a table or JSON, of a set or of its file; `bytes` is the exact size and the sum of `parts`.

    Of a file it is the size on disk: a writer other than edgedd may have padded the header.
    `fp32_ipc_equivalent` is the papers' unit: the file's bytes over those of one float32 image a class.
    """
    if isinstance(synthetic, SyntheticSet):
        size = synthetic.nbytes
    else:
        path, synthetic = synthetic, SyntheticSet.load(synthetic)
        size = os.stat(path).st_size
    tensors = synthetic.tensors
    parts = {name: int(values.nbytes) for name, values in tensors.items()}
    parts["header"] = size - sum(parts.values())
    form = synthetic.parameterization.as_dict()
    one_image = 4 * int(np.prod(form["shape"]))
    return {
        "bytes": size,
        "parts": parts,
        "parameterization": form,
        "images": synthetic.count,
        "ipc": synthetic.ipc,
        "fp32_ipc_equivalent": round(size / (one_image * len(synthetic.classes)), 3),
        "classes": list(synthetic.classes),
        "recipe": synthetic.recipe.as_dict(),
        "provenance": dict(synthetic.provenance),
    }
