"""A network as the exporter sees it: a student known by name, or somebody's own ONNX model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgedd.exporting.builder import GraphBuilder
from edgedd.parameters import ParameterSpec

Append = Callable[[GraphBuilder, Mapping[str, str], str], str]


@dataclass(frozen=True)
class Forward:
    """Parameters, buffers, and how the nodes are appended to a graph.

    Attributes:
        name: of the student, or of the model's file.
        shape: (C, H, W) of one normalised image.
        num_classes: K.
        parameters: what can be trained, in the order in which the network uses it.
        buffers: what is kept but not differentiated: running means and variances of batch normalisation.
        append: (builder, value of each parameter and buffer by name, images (b, C, H, W)) -> the logits (b, K).
        weights: start values of the parameters and buffers that come with the network; others start by their spec.
    """

    name: str
    shape: tuple[int, int, int]
    num_classes: int
    parameters: Mapping[str, ParameterSpec]
    buffers: Mapping[str, ParameterSpec]
    append: Append
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)

    def declare(self, builder: GraphBuilder, buffers: str = "b.") -> dict[str, str]:
        """Parameters as graph inputs `p.<name>`, buffers behind the prefix `buffers` -> input of each by its name."""
        given = ((self.parameters, "p."), (self.buffers, buffers))
        return {name: builder.input(f"{p}{name}", spec.shape) for specs, p in given for name, spec in specs.items()}
