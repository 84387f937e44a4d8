"""How much a training graph computes, counted from its nodes: multiplications, bytes moved, calls.

Letters: u images of a micro-batch. Counts are lines in u, known from the graphs of one and of two images.
"""

import math
from collections.abc import Collection, Sequence

import onnx

from edgedd.exporting.builder import GraphBuilder
from edgedd.exporting.decode import decode, factor_inputs
from edgedd.exporting.memory import VIEWS
from edgedd.parameterization import Parameterization
from edgedd.planning.training_cost import Work

STORED = 128
LOOP_NODES = 15
DEPTHWISE_BYTES = 24  # moved in the time of a multiply-add of a depthwise convolution, for which there are no products
Shapes = dict[str, tuple[int, ...]]


def work_of(gradient: GraphBuilder, parameterization: Parameterization, trained: Collection[Sequence[int]]) -> Work:
    """Of one turn of the training graph's loop: decoding, augmentation, forwards, backwards, and adding gradients up.

    `trained` holds the shape of each parameter that gets a gradient.
    """
    decoder = GraphBuilder()
    rows = decoder.input("rows", ("u",), onnx.TensorProto.INT64)
    decode(decoder, parameterization, factor_inputs(decoder, parameterization), rows)
    (flops, moved), (more_flops, more_moved) = (_counts((gradient, decoder), images) for images in (1, 2))
    return Work(
        flops=more_flops - flops,
        moved_bytes=more_moved - moved,
        fixed_bytes=max(2 * moved - more_moved, 0) + 3 * 4 * sum(map(math.prod, trained)),
        nodes=len(gradient.nodes) + len(decoder.nodes) + len(trained) + LOOP_NODES,
    )


def _counts(builders: tuple[GraphBuilder, ...], images: int) -> tuple[int, int]:
    """Floating-point operations of products, and bytes that nodes read and write, for so many images."""
    flops = moved = 0
    for builder in builders:
        shapes = _shapes(builder, images)
        for node in builder.nodes:
            flops += _product_flops(node, shapes)
            moved += DEPTHWISE_BYTES * _depthwise_multiply_adds(node, shapes)
            if node.op_type not in VIEWS:
                moved += 4 * sum(math.prod(shapes.get(name, ())) for name in (*node.input, *node.output) if name)
    return flops, moved


def _shapes(builder: GraphBuilder, images: int) -> Shapes:
    """Of every value, with `images` in the batch and STORED in the set."""
    model = builder.model()
    for given in model.graph.input:
        for side in given.type.tensor_type.shape.dim:
            if side.HasField("dim_param"):
                side.dim_value = STORED if side.dim_param in ("n", "stored") else images
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    found: Shapes = {name: array.shape for name, array in builder.constants.items()}
    for value in (*inferred.input, *inferred.value_info):
        found[value.name] = tuple(side.dim_value or 1 for side in value.type.tensor_type.shape.dim)
    return found


def _depthwise_multiply_adds(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Of a convolution, turned round or not, whose groups have one channel; 0 of other nodes."""
    if node.op_type not in ("Conv", "ConvTranspose"):
        return 0
    weight = shapes[node.input[1]]
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if groups == 1 or weight[1] > 1:
        return 0
    maps = node.output[0] if node.op_type == "Conv" else node.input[0]
    return math.prod(shapes[maps]) * math.prod(weight[2:])


def _product_flops(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Two a multiply-add of a convolution or a matrix product; 0 of other nodes."""
    if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return 0
    first, second = (shapes.get(name, ()) for name in node.input[:2])
    made = math.prod(shapes.get(node.output[0], ()))
    if node.op_type == "Conv":
        return 2 * made * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return 2 * math.prod(first) * math.prod(second[1:])
    turned = any(a.name == "transA" and a.i for a in node.attribute)
    return 2 * made * (first[-2 if turned else -1] if first else 1)
