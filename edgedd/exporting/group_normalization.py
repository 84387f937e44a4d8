"""GroupNormalization of opset 18, which shape inference does not follow, in terms of InstanceNormalization."""

from onnx import helper

from edgedd.exporting.builder import GraphBuilder


def decompose_group_normalization(builder: GraphBuilder) -> None:
    """Replace each GroupNormalization in place: each group of channels becomes one channel, with its scale and bias."""
    forward = list(builder.nodes)
    builder.nodes.clear()
    for node in forward:
        if node.op_type != "GroupNormalization":
            builder.nodes.append(node)
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        x, scale, bias = node.input
        grouped = builder.node("Reshape", x, builder.integers(0, int(attributes["num_groups"]), -1))
        epsilon = attributes.get("epsilon", 1e-5)
        normalized = builder.node("InstanceNormalization", grouped, scale, bias, epsilon=epsilon)
        builder.node("Reshape", normalized, builder.node("Shape", x), name=node.output[0])
