"""The onnxruntime sessions of a bundle, opened when first used, and what the training graph says of itself."""

import ctypes
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import PREDICT, PREDICT_INT8, TRAIN_STEP
from edgedd.errors import BundleError, SettingError
from edgedd.parameters import ParameterSpec
from edgedd.planning.machine import usable_cores
from edgedd.planning.training_cost import Work

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    import onnxruntime

M_MMAP_THRESHOLD = -3
LARGE_BYTES = 512 * 1024


@dataclass(frozen=True)
class Runtime:
    """How graphs are run.

    Attributes:
        threads: CPU threads; None: as many as the bundle's target has cores, and not more than this machine.
        low_memory: whether memory goes back as soon as it is used.
        micro_batch: images computed at once in a training step; None: as many as suit the cache.
    """

    threads: int | None = None
    low_memory: bool = False
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        for name, most in (("threads", 1024), ("micro_batch", 65_536)):
            number = getattr(self, name)
            if number is not None and (type(number) is not int or not 1 <= number <= most):
                raise SettingError(
                    f"{name}={number!r}, wanted a whole number in [1, {most}], or None to have it chosen"
                )


@dataclass(frozen=True)
class Facts:
    """The training graph's description of itself.

    Attributes:
        parameters: shape and start of each parameter, in order.
        buffers: the same of running statistics.
        carried: inputs that a step gives back changed, with their shapes: p.*, b.* and the optimizer's state.
        asked: names of all inputs.
        activation_bytes: predicted peak of activations per image of a micro-batch; what the arena takes on top is in
            edgedd.planning.memory_model.
        batch_statistics: whether the batch is normalised by its own mean and variance.
        work: what one of its turns computes; None in graphs that do not say.
        outputs: logits of an image, as many as the set's classes and the spare ones together.
    """

    parameters: Mapping[str, ParameterSpec]
    buffers: Mapping[str, ParameterSpec]
    carried: Mapping[str, tuple[int, ...]]
    asked: frozenset[str]
    activation_bytes: int
    batch_statistics: bool
    work: Work | None
    outputs: int


class Sessions:
    """Opens the graphs of a bundle. Raises BundleError when onnxruntime cannot load one.

    A graph runs on one thread; `threads` of them run it at once, each on its own images. That takes down to half as
    long as onnxruntime's own threads, which meet after every node.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        self.bundle, self.runtime = bundle, runtime
        few = min(bundle.threads or usable_cores(), usable_cores())
        self.threads = 1 if runtime.low_memory else runtime.threads or few
        if runtime.low_memory:
            _map_large_blocks()

    def each(self, function: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
        """`function` of each part, on a thread of its own."""
        return [function(parts[0])] if len(parts) == 1 else list(self._pool.map(function, parts))

    def step(self, outputs: list[str], feeds: Mapping[str, Any]) -> list[Any]:
        """Values of `outputs` of the training graph, as onnxruntime values; nothing else is computed."""
        results: list[Any] = self.train.run_with_ort_values(outputs, feeds, self._only_what_is_asked)
        return results

    @cached_property
    def train(self) -> "onnxruntime.InferenceSession":
        """One optimizer step."""
        return self._open(TRAIN_STEP)

    @cached_property
    def predict(self) -> "onnxruntime.InferenceSession":
        """Images -> logits."""
        return self._open(PREDICT)

    @cached_property
    def int8(self) -> "onnxruntime.InferenceSession":
        """The quantised graph: images -> logits."""
        return self._open(PREDICT_INT8)

    @cached_property
    def _pool(self) -> "ThreadPoolExecutor":
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(self.threads, thread_name_prefix="edgedd")

    @cached_property
    def _only_what_is_asked(self) -> Any:
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.only_execute_path_to_fetches = True
        options.log_severity_level = 4  # what goes wrong is raised, and said in one line
        return options

    @cached_property
    def facts(self) -> Facts:
        """Read from the training graph's metadata."""
        stored = self.train.get_modelmeta().custom_metadata_map.get("edgedd", "")
        try:
            values = json.loads(stored)
            parameters, buffers = _specs(values["parameters"]), _specs(values["buffers"])
            peak, batch_statistics = int(values["activation_bytes"]), bool(values["batch_statistics"])
            work = Work.from_dict(values["work"]) if "work" in values else None
            width = int(values["classes"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            path = self.bundle.file(TRAIN_STEP)
            raise BundleError(f"{path} does not describe its parameters ({error}): export the bundle again") from error
        shapes = {i.name: i.shape for i in self.train.get_inputs()}
        outputs = [o.name.removeprefix("next.") for o in self.train.get_outputs() if o.name.startswith("next.")]
        carried = {name: tuple(shapes[name]) for name in outputs}
        return Facts(parameters, buffers, carried, frozenset(shapes), peak, batch_statistics, work, width)

    def _open(self, name: str) -> "onnxruntime.InferenceSession":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Layouts rewritten for constant weights (the last level) only cost time here, where weights are inputs.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.enable_cpu_mem_arena = not self.runtime.low_memory
        options.enable_mem_pattern = False  # one block planned ahead is larger than what the arena ends up with
        path = self.bundle.checked(name)
        how: dict[str, Any] = {"providers": ["CPUExecutionProvider"], "enable_fallback": 0}  # else it prints
        try:
            return onnxruntime.InferenceSession(str(path), options, **how)
        except Exception as error:
            reason = str(error).splitlines()[0]
            version = onnxruntime.__version__
            raise BundleError(
                f"onnxruntime {version} cannot load {path} ({reason}): export the bundle again"
            ) from error


def _specs(values: Mapping[str, Mapping[str, Any]]) -> dict[str, ParameterSpec]:
    return {name: ParameterSpec(**{**spec, "shape": tuple(spec["shape"])}) for name, spec in values.items()}


def _map_large_blocks() -> None:
    """Have glibc map every large block on its own, for the whole process: otherwise it keeps freed ones in pieces.

    Measured on ConvNet-3 of width 32, batch 64: 40 MB over the idle process instead of 93, predicted 41.
    """
    try:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
    except (AttributeError, OSError, TypeError):
        return  # another C library: nothing to set


def value(array: np.ndarray) -> Any:
    """An array as onnxruntime's own value, which stays in place between runs."""
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"))
