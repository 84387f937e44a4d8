"""Where and how fast the server computes: device, precision, compilation, allocator."""

import ctypes
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from edgedd.distillation.ranks import ALONE, Ranks
from edgedd.errors import BudgetError, SettingError

Function = TypeVar("Function", bound=Callable[..., Any])
# Of a whole run: below that, compiling takes longer than it saves. A GPU does a hundred times as much in that time.
COMPILE_ABOVE_FLOPS = {"cpu": 4e12, "cuda": 1e14}
# Of what reads more than four tensors (a norm's masked gradient) the compiler would write a float32 copy between loops.
# A step of training took 0.92 times as long without it (ConvNets of 32 and 128 channels, AMX), 0.97 of resnet8.
KEPT_LESS: dict[str, Any] = {"realize_reads_threshold": 16, "realize_opcount_threshold": 100}
log = logging.getLogger("edgedd")


@dataclass(frozen=True)
class Compute:
    """A device, the precision of network passes, and whether functions are compiled.

    `bfloat16`: convolutions and products of network passes; weights, norms, losses and kernel solves stay float32.
    `ranks`: the processes that share the run.
    """

    device: torch.device
    bfloat16: bool
    compiled: bool
    ranks: Ranks = ALONE

    @classmethod
    def choose(cls, device: str = "cpu", compiled: bool = True) -> "Compute":
        """The fastest sound setting of a device: bfloat16 where the processor multiplies it in hardware.

        AMX gains from it always, avx512_bf16 alone (Zen 4) once compiled: there passes of a width-64 ConvNet took 1.6
        to 1.8 times as long in float32, and a whole FRePo run of width 32 1.5 times, its loss and accuracy the same.

        Without a C++ compiler the CPU runs eagerly, and says so in one line. Raises SettingError for a device that is
        not there.
        """
        check_device(device)
        if device == "cuda" and not torch.cuda.is_available():
            raise SettingError("device cuda is not there (torch.cuda.is_available() is false): use --device cpu")
        if device == "cpu":
            _keep_freed_memory()
            if compiled and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
                log.warning("no C++ compiler found: running eagerly, about half as fast; install g++ to compile")
                compiled = False
        return cls(torch.device(device), device == "cuda" or multiplies_bfloat16(compiled), compiled)

    @classmethod
    def for_work(cls, device: str, flops: float) -> "Compute":
        """`choose`, compiled where a run of so many operations gains by it."""
        return cls.choose(device, compiled=flops > COMPILE_ABOVE_FLOPS.get(device, 0.0))

    def compile(self, function: Function, training: bool = False) -> Function:
        """`function` compiled for fixed shapes, or as it is; `training`: for gradients in or along the parameters.

        There the compiler is to compute again what it would write to memory between its loops on a processor.
        """
        if not self.compiled:
            return function
        options = KEPT_LESS if training and self.device.type == "cpu" else None
        torch._dynamo.config.cache_size_limit = 64
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it looks for CUDA on every machine
        return torch.compile(function, dynamic=False, options=options)  # type: ignore[return-value]

    def autocast(self) -> torch.autocast:
        """The context in which network passes run."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)

    def tensor(self, values: np.ndarray) -> torch.Tensor:
        """A copy of an array on the device."""
        return torch.from_numpy(np.array(values)).to(self.device)


def check_device(device: str) -> None:
    """Raises SettingError for a name that is none."""
    if device not in COMPILE_ABOVE_FLOPS:
        raise SettingError(f"device {device!r}, wanted {' or '.join(COMPILE_ABOVE_FLOPS)}")


@contextmanager
def within_memory() -> Iterator[None]:
    """A GPU whose memory is full is said in one line. Raises BudgetError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BudgetError(
            "the GPU's memory is full: end what else runs there (nvidia-smi lists it), choose narrower networks "
            "(--width), or --device cpu"
        ) from error


def multiplies_bfloat16(compiled: bool) -> bool:
    """Whether this processor does so in hardware, faster than float32, in passes that are compiled or not."""
    supported = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(supported.get(name) for name in ("amx_bf16", "amx_tile", *(["avx512_bf16"] if compiled else [])))


def _keep_freed_memory() -> None:
    """Let glibc reuse freed activations instead of returning them: page faults cost half of each step otherwise."""
    if not sys.platform.startswith("linux"):
        return
    mmap_max, trim_threshold, top_pad = -4, -1, -2
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**28)
