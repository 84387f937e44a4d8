"""The two onnxruntime sessions of a bundle, opened when first used, and what the training graph says of itself."""

import ctypes
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedd.bundle import PREDICT, TRAIN_STEP, Bundle
from edgedd.errors import BundleError, SettingError
from edgedd.students import ParameterSpec

if TYPE_CHECKING:
    import onnxruntime

M_MMAP_THRESHOLD = -3
LARGE_BYTES = 512 * 1024


@dataclass(frozen=True)
class Runtime:
    """How graphs are run: CPU threads (None: one a core), and whether memory goes back as soon as it is used."""

    threads: int | None = None
    low_memory: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None and (type(self.threads) is not int or not 1 <= self.threads <= 1024):
            raise SettingError(f"threads={self.threads!r}, wanted a whole number in [1, 1024], or None for one a core")


@dataclass(frozen=True)
class Facts:
    """The training graph's description of itself.

    Attributes:
        parameters: shape and start of each parameter, in order.
        trained: names of the parameters that a step changes.
        augments: names of the augmentation inputs: affine, cutout, colour.
        activation_bytes: predicted peak of activations per image of a batch; holds with low_memory, while the
            default arena takes up to about twice as much.
    """

    parameters: Mapping[str, ParameterSpec]
    trained: tuple[str, ...]
    augments: tuple[str, ...]
    activation_bytes: int


class Sessions:
    """Opens the graphs of a bundle. Raises BundleError when onnxruntime cannot load one."""

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        self._bundle, self._runtime = bundle, runtime
        if runtime.low_memory:
            _map_large_blocks()

    @cached_property
    def train(self) -> "onnxruntime.InferenceSession":
        """One optimizer step."""
        return self._open(TRAIN_STEP)

    @cached_property
    def predict(self) -> "onnxruntime.InferenceSession":
        """Images -> logits."""
        return self._open(PREDICT)

    @cached_property
    def facts(self) -> Facts:
        """Read from the training graph's metadata."""
        stored = self.train.get_modelmeta().custom_metadata_map.get("edgedd", "")
        try:
            values = json.loads(stored)
            specs = {n: ParameterSpec(**{**s, "shape": tuple(s["shape"])}) for n, s in values["parameters"].items()}
            trained, peak = tuple(values["trained"]), int(values["activation_bytes"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            path = self._bundle.file(TRAIN_STEP)
            raise BundleError(f"{path} does not describe its parameters ({error}): export the bundle again") from error
        augments = (i.name.removeprefix("augment.") for i in self.train.get_inputs() if i.name.startswith("augment."))
        return Facts(specs, trained, tuple(augments), peak)

    def _open(self, name: str) -> "onnxruntime.InferenceSession":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._runtime.threads or 0
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Layouts rewritten for constant weights (the last level) only cost time here, where weights are inputs.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.enable_cpu_mem_arena = options.enable_mem_pattern = not self._runtime.low_memory
        path = self._bundle.file(name)
        try:
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            reason = str(error).splitlines()[0]
            version = onnxruntime.__version__
            raise BundleError(
                f"onnxruntime {version} cannot load {path} ({reason}): export the bundle again"
            ) from error


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
