"""What the planner asks of a bundle's training graph, read by onnxruntime from the graph's metadata."""

from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import TRAIN_STEP
from edgedd.device.sessions import Runtime, Sessions
from edgedd.errors import BundleError
from edgedd.planning.placement import GraphFacts


def facts_of_bundle(bundle: Bundle) -> GraphFacts:
    """Raises BundleError for a graph that does not say what it computes: it was exported by an older edgedd."""
    facts, path = Sessions(bundle, Runtime()).facts, bundle.file(TRAIN_STEP)
    if facts.work is None:
        raise BundleError(f"{path} does not say what it computes (edgedd {bundle.edgedd}): export the bundle again")
    return GraphFacts(
        parameters={name: spec.shape for name, spec in facts.parameters.items()},
        carried=facts.carried,
        graph_bytes=path.stat().st_size,
        activation_bytes=facts.activation_bytes,
        batch_statistics=facts.batch_statistics,
        work=facts.work,
    )
