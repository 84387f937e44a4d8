"""One gradient rule an operator, in standard ONNX operators only.

A rule takes the Step of a node and returns {input position: name of the gradient} for the inputs that are needed.
Only the first dimension may be dynamic, and a dynamic dimension is never broadcast.
"""

from collections.abc import Callable

from edgedd.exporting.activations import (
    clip,
    hard_sigmoid,
    hard_swish,
    leaky_relu,
    log_softmax,
    relu,
    sigmoid,
    softmax,
    tanh,
)
from edgedd.exporting.convolution import conv, conv_transpose
from edgedd.exporting.differentiate import Step
from edgedd.exporting.elementwise import add, cast, div, dropout, erf, exp, identity, log, mul, neg, power, sqrt, sub
from edgedd.exporting.gathering import gather
from edgedd.exporting.normalization import (
    batch_normalization,
    instance_normalization,
    layer_normalization,
)
from edgedd.exporting.pooling import average_pool, global_average_pool, global_max_pool, max_pool
from edgedd.exporting.products import gemm, matmul
from edgedd.exporting.reductions import reduce_max, reduce_mean, reduce_sum
from edgedd.exporting.resizing import resize
from edgedd.exporting.shaping import concat, expand, pad, reshape, slice_, split, transpose

Rule = Callable[[Step], dict[int, str]]

GRADIENTS: dict[str, Rule] = {
    "Add": add,
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Cast": cast,
    "Clip": clip,
    "Concat": concat,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Div": div,
    "Dropout": dropout,
    "Erf": erf,
    "Exp": exp,
    "Expand": expand,
    "Flatten": reshape,
    "Gather": gather,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "Identity": identity,
    "InstanceNormalization": instance_normalization,
    "LayerNormalization": layer_normalization,
    "LeakyRelu": leaky_relu,
    "Log": log,
    "LogSoftmax": log_softmax,
    "MatMul": matmul,
    "MaxPool": max_pool,
    "Mul": mul,
    "Neg": neg,
    "Pad": pad,
    "Pow": power,
    "ReduceMax": reduce_max,
    "ReduceMean": reduce_mean,
    "ReduceSum": reduce_sum,
    "Relu": relu,
    "Reshape": reshape,
    "Resize": resize,
    "Sigmoid": sigmoid,
    "Slice": slice_,
    "Softmax": softmax,
    "Split": split,
    "Sqrt": sqrt,
    "Squeeze": reshape,
    "Sub": sub,
    "Sum": add,
    "Tanh": tanh,
    "Transpose": transpose,
    "Unsqueeze": reshape,
}
