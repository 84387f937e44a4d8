"""The Linux machine that this runs on, as a target: what /proc and its control group say, and a short measurement."""

import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from edgedd.errors import TargetError
from edgedd.planning.machine import CGROUPS, PROC, available_bytes, memory_groups, text_of, usable_cores
from edgedd.planning.memory_model import RUNTIME_BYTES
from edgedd.planning.target import ISAS, THIS_MACHINE, Source, Target

TRAINING_SHARE = 0.35
STORAGE_BYTES = 500_000
MEASURED_SECONDS = 0.3
_ISA_NAMES = {"amd64": "x86_64", "arm64": "aarch64", "armv8l": "armv7l"}


def this_machine() -> Target:
    """Figures of the running machine; takes about half a second.

    Raises:
        TargetError: a processor that no profile names, or no Linux.
    """
    isa, (ram, ram_text), cores = _isa(), _process_ram(), usable_cores()
    size, rate = matrix_product_gflops()
    share = f"{100 * TRAINING_SHARE:.0f} % (what training reaches of a matrix product on x86-64)"
    fits = ram > RUNTIME_BYTES
    return Target(
        name=THIS_MACHINE,
        title=_title(),
        train=fits,
        why_not_train="" if fits else "Python with numpy and onnxruntime alone needs more than the memory that is left",
        process_ram_bytes=ram,
        storage_bytes=STORAGE_BYTES,
        cores=cores,
        isa=isa,
        onnxruntime_ceiling="",
        effective_gflops=TRAINING_SHARE * rate,
        runtime_floor_bytes=RUNTIME_BYTES,
        sources={
            "process_ram_bytes": Source("estimated", ram_text),
            "storage_bytes": Source("estimated", "upper end of the sizes edgedd distils to: what is sent counts"),
            "cores": Source("measured", "cores that this process may use (sched_getaffinity)"),
            "effective_gflops": Source(
                "estimated", f"{share} of {rate:.3g} GFLOP/s, numpy's float32 product of {size} x {size}, measured now"
            ),
            "runtime_floor_bytes": Source(
                "estimated",
                "68 MB measured on x86-64 (edgedd.device, numpy, onnxruntime 1.31.1 and a tiny session), taken over",
            ),
        },
    )


def matrix_product_gflops(seconds: float = MEASURED_SECONDS) -> tuple[int, float]:
    """Side of the square float32 matrices, and median GFLOP/s of their products within about `seconds`.

    The side grows until one product takes 5 ms, so that a slow board is not kept waiting.
    """
    side = 128
    _product_seconds(side)
    while side < 1024 and _product_seconds(side) < 0.005:
        side *= 2
    times = [_product_seconds(side)]
    while sum(times) < seconds:
        times.append(_product_seconds(side))
    return side, 2 * side**3 / statistics.median(times) / 1e9


def _product_seconds(side: int) -> float:
    matrix = np.full((side, side), 0.5, np.float32)
    out = np.zeros_like(matrix)
    begun = time.perf_counter()
    np.matmul(matrix, matrix, out=out)
    return max(time.perf_counter() - begun, 1e-6)


def _process_ram(proc: Path = PROC, groups: Path = CGROUPS) -> tuple[int, str]:
    """Bytes that one process may use, and where they come from."""
    available = available_bytes(proc)
    if available is None:
        raise TargetError(
            f"{proc / 'meminfo'} does not tell MemAvailable, wanted Linux; write a profile (.toml) instead"
        )
    half = available // 2
    limit = _group_limit(proc, groups)
    if limit is not None and limit < half:
        return limit, "memory limit of the control group that this process is in"
    return half, "half of the memory that was available (MemAvailable in /proc/meminfo), read now"


def _group_limit(proc: Path, groups: Path) -> int | None:
    """Smallest memory limit, in bytes, of this process's control group and of those around it (v2 and v1)."""
    limits = [text_of(group.folder / group.limit).strip() for group in memory_groups(proc, groups)]
    return min((int(limit) for limit in limits if limit.isdigit()), default=None)


def _isa() -> str:
    machine = platform.machine().lower()
    isa = _ISA_NAMES.get(machine, machine)
    if isa == "aarch64" and sys.maxsize < 2**32:
        isa = "armv7l"
    if isa not in ISAS:
        raise TargetError(
            f"this machine is {machine!r}, wanted one of {', '.join(ISAS)}; write a profile (.toml) instead"
        )
    return isa


def _title() -> str:
    try:
        model = Path("/proc/device-tree/model").read_text(errors="replace").rstrip("\0")
    except OSError:
        model = ""
    return f"this machine ({model})" if model and model.isprintable() else "this machine"
