"""How much memory the activations of a graph need, read off the graph: a sum over what is alive at each node."""

import math

import onnx

from edgedd.exporting.builder import Dimension, GraphBuilder

VIEWS = ("Reshape", "Flatten", "Identity", "Unsqueeze", "Squeeze")


def peak_bytes_per_image(builder: GraphBuilder) -> int:
    """Most bytes alive at once per image of the batch, counting values that have a dynamic dimension.

    Nodes run in onnxruntime's order and a value lives from its node to its last use; views share the memory of what
    they view. Input images and factors are not counted; a runtime that reuses buffers in place needs less.
    """
    sizes = {name: _bytes_per_image(shape) for name, shape in builder.shapes().items()}
    nodes = execution_order(builder.nodes)
    owner: dict[str, str] = {}
    for node in nodes:
        for name in node.output:
            owner[name] = owner.get(node.input[0], node.input[0]) if node.op_type in VIEWS else name
    last_use = {owner.get(name, name): i for i, node in enumerate(nodes) for name in node.input}
    expiring: dict[int, list[str]] = {}
    for name in set(owner.values()) - set(builder.inputs):
        if name in last_use:
            expiring.setdefault(last_use[name], []).append(name)
    alive = peak = 0
    for i, node in enumerate(nodes):
        alive += sum(sizes.get(name, 0) for name in node.output if owner[name] == name and name in last_use)
        peak = max(peak, alive)
        alive -= sum(sizes.get(name, 0) for name in expiring.get(i, []))
    return peak


def execution_order(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes as onnxruntime runs them, one after another: depth first from each node whose outputs no other takes.

    Of the inputs of a node, the one that was written last in the graph comes first. So the patches of a convolution's
    weight gradient are cut and multiplied one by one, although the graph lists all of them before the first product.
    Ends come in the graph's order, in which the backward pass leaves gradients: the last layer's first.
    """
    made = {name: i for i, node in enumerate(nodes) for name in node.output}
    needs = [sorted({made[name] for name in node.input if name in made}) for node in nodes]
    used = {i for given in needs for i in given}
    pending = [(i, False) for i in reversed(range(len(nodes))) if i not in used]
    seen: set[int] = set()
    order = []
    while pending:
        i, ready = pending.pop()
        if ready:
            order.append(nodes[i])
        elif i not in seen:
            seen.add(i)
            pending.append((i, True))
            pending.extend((j, False) for j in needs[i] if j not in seen)
    return order


def _bytes_per_image(shape: tuple[Dimension, ...]) -> int:
    return 4 * math.prod(d for d in shape if d is not None) if None in shape else 0
