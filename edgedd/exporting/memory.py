"""How much memory the activations of a graph need, read off the graph: a sum over what is alive at each node."""

import math

from edgedd.exporting.builder import GraphBuilder

VIEWS = ("Reshape", "Flatten", "Identity", "Unsqueeze", "Squeeze")


def peak_bytes_per_image(builder: GraphBuilder) -> int:
    """Most bytes alive at once per image of the batch, counting values whose first dimension is dynamic.

    Nodes run in the graph's order and a value lives from its node to its last use; views share the memory of what they
    view. Input images and factors are not counted; a runtime that reuses buffers in place needs less.
    """
    sizes = {name: _bytes_per_image(shape) for name, shape in builder.shapes().items()}
    owner: dict[str, str] = {}
    for node in builder.nodes:
        for name in node.output:
            owner[name] = owner.get(node.input[0], node.input[0]) if node.op_type in VIEWS else name
    last_use = {owner.get(name, name): i for i, node in enumerate(builder.nodes) for name in node.input}
    expiring: dict[int, list[str]] = {}
    for name in set(owner.values()) - set(builder.inputs):
        if name in last_use:
            expiring.setdefault(last_use[name], []).append(name)
    alive = peak = 0
    for i, node in enumerate(builder.nodes):
        alive += sum(sizes.get(name, 0) for name in node.output if owner[name] == name and name in last_use)
        peak = max(peak, alive)
        alive -= sum(sizes.get(name, 0) for name in expiring.get(i, []))
    return peak


def _bytes_per_image(shape: tuple[int | None, ...]) -> int:
    return 4 * math.prod(d for d in shape[1:] if d is not None) if shape and shape[0] is None else 0
