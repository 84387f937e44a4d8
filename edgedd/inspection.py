"""What is in a synthetic set: sizes to the byte, form, recipe, provenance."""

from typing import Any

import numpy as np

from edgedd.synthetic_set import SyntheticSet


def inspect(synthetic: SyntheticSet) -> dict[str, Any]:
    """Plain values for a table or JSON; `bytes` is the file's exact size and equals the sum of `parts`.

    `fp32_ipc_equivalent` is the papers' unit: the file's bytes over those of one float32 image a class.
    """
    tensors = synthetic.tensors
    parts = {name: int(values.nbytes) for name, values in tensors.items()}
    parts["header"] = synthetic.nbytes - sum(parts.values())
    form = synthetic.parameterization.as_dict()
    one_image = 4 * int(np.prod(form["shape"]))
    return {
        "bytes": synthetic.nbytes,
        "parts": parts,
        "parameterization": form,
        "images": synthetic.count,
        "ipc": synthetic.ipc,
        "fp32_ipc_equivalent": round(synthetic.nbytes / (one_image * len(synthetic.classes)), 3),
        "classes": list(synthetic.classes),
        "recipe": synthetic.recipe.as_dict(),
        "provenance": dict(synthetic.provenance),
    }
