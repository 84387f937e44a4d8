"""Where and how fast the server computes: device, precision, compilation, allocator."""

import ctypes
import logging
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from edgedd.distillation.ranks import ALONE, Ranks
from edgedd.errors import SettingError

Function = TypeVar("Function", bound=Callable[..., Any])
log = logging.getLogger("edgedd")


@dataclass(frozen=True)
class Compute:
    """A device, the precision of network passes, and whether functions are compiled.

    `features_in_bfloat16`: so are passes that only compare features (edgedd.distillation.matching), which bear it.
    `ranks`: the processes that share the run.
    """

    device: torch.device
    bfloat16: bool
    compiled: bool
    features_in_bfloat16: bool = False
    ranks: Ranks = ALONE

    @classmethod
    def choose(cls, device: str = "cpu", compiled: bool = True) -> "Compute":
        """The fastest sound setting of a device: bfloat16 where the processor multiplies it in hardware.

        Without a C++ compiler the CPU runs eagerly, and says so in one line. Raises SettingError for a device that is
        not there.
        """
        if device not in ("cpu", "cuda"):
            raise SettingError(f"device {device!r}, wanted cpu or cuda")
        if device == "cuda" and not torch.cuda.is_available():
            raise SettingError("device cuda is not there (torch.cuda.is_available() is false): use --device cpu")
        if device == "cpu":
            _keep_freed_memory()
            if compiled and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
                log.warning("no C++ compiler found: running eagerly, about half as fast; install g++ to compile")
                compiled = False
        bfloat16 = device == "cuda" or _multiplies_bfloat16()
        features_in_bfloat16 = bfloat16 or (compiled and bool(_capabilities().get("avx512_bf16")))
        return cls(torch.device(device), bfloat16, compiled, features_in_bfloat16)

    def compile(self, function: Function) -> Function:
        """`function` compiled for fixed shapes, or as it is."""
        if not self.compiled:
            return function
        torch._dynamo.config.cache_size_limit = 64
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it looks for CUDA on every machine
        return torch.compile(function, dynamic=False)  # type: ignore[return-value]

    def autocast(self, features: bool = False) -> torch.autocast:
        """The context in which network passes run; `features`: of passes that only compare features."""
        enabled = self.bfloat16 or (features and self.features_in_bfloat16)
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def tensor(self, values: np.ndarray) -> torch.Tensor:
        """A copy of an array on the device."""
        return torch.from_numpy(np.array(values)).to(self.device)


def _multiplies_bfloat16() -> bool:
    supported = _capabilities()
    return bool(supported.get("amx_bf16") or supported.get("amx_tile"))  # avx512_bf16 alone is slower than fp32


def _capabilities() -> Mapping[str, Any]:
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


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
