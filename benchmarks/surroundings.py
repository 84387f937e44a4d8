"""What a result must say about where it was made."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "onnxruntime", "safetensors", "torch", "tensorly", "scikit-learn")
RESULTS_ASIDE = ":(exclude,top)benchmarks/results"  # rows that a run has written say nothing of the code


def surroundings(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, versions and commit, and the GPU where one computes; `dirty`: changed files besides results."""
    return _gpu(device) | {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", ":/", RESULTS_ASIDE)),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return wanted[0] if wanted else platform.machine()


def _gpu(device: str) -> dict[str, str]:
    if device != "cuda":
        return {}
    import torch

    return {"gpu": torch.cuda.get_device_name()}


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()
