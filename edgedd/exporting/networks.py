"""Student networks as forward ONNX graphs; shapes and names come from edgedd.students."""

from edgedd.exporting.builder import GraphBuilder
from edgedd.students import ConvNet


def parameter_inputs(builder: GraphBuilder, network: ConvNet) -> dict[str, str]:
    """Declare every parameter as the graph input `p.<name>` -> {name: input}."""
    return {name: builder.input(f"p.{name}", spec.shape) for name, spec in network.parameters().items()}


def forward(builder: GraphBuilder, network: ConvNet, parameters: dict[str, str], images: str) -> str:
    """Append the network: images (b, C, H, W), normalised -> the name of the logits (b, K)."""
    value = images
    for i in range(network.depth):
        pads = network.first_padding if i == 0 else (1, 1, 1, 1)
        value = builder.node("Conv", value, parameters[f"block{i}.conv.weight"], pads=pads, kernel_shape=[3, 3])
        scale, bias = parameters[f"block{i}.norm.weight"], parameters[f"block{i}.norm.bias"]
        value = builder.node("InstanceNormalization", value, scale, bias, epsilon=1e-5)
        value = builder.node("Relu", value)
        value = builder.node("AveragePool", value, kernel_shape=[2, 2], strides=[2, 2])
    value = builder.node("Flatten", value)
    return builder.node("Gemm", value, parameters["head.weight"], parameters["head.bias"], transB=1, name="logits")
