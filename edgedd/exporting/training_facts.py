"""What the planner asks of a training graph, read from the graph itself or from one made for the purpose."""

import json

import onnx

from edgedd.augmentation import Augmentation
from edgedd.exporting.training_graph import training_graph
from edgedd.parameterization import Parameterization
from edgedd.planning.placement import GraphFacts
from edgedd.planning.training_cost import Work
from edgedd.recipe import Recipe

USUAL_AUGMENTATION = Augmentation(flip=0.5, shift=2)


def facts_of(model: onnx.ModelProto) -> GraphFacts:
    """Of a training graph that `training_graph` made."""
    said = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "edgedd"))
    changed = {value.name.removeprefix("next.") for value in model.graph.output if value.name.startswith("next.")}
    inputs = {i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim) for i in model.graph.input}
    return GraphFacts(
        parameters={name: tuple(spec["shape"]) for name, spec in said["parameters"].items()},
        carried={name: inputs[name] for name in sorted(changed)},
        graph_bytes=model.ByteSize(),
        activation_bytes=said["activation_bytes"],
        batch_statistics=said["batch_statistics"],
        work=Work.from_dict(said["work"]),
    )


def facts_for(
    student: str | None, form: Parameterization, num_classes: int, mode: str, recipe: Recipe | None = None
) -> GraphFacts:
    """Of the graph that would train `student` from images stored as `form`; augmented as usual unless a recipe says.

    Raises SettingError or ExportError for a student or a mode that does not exist or does not fit the images.
    """
    from edgedd.exporting.export import student_network

    network = student_network(student, form.shape, num_classes)
    return facts_of(training_graph(network, form, recipe or Recipe(augmentation=USUAL_AUGMENTATION), mode=mode))
