"""Memory of the whole device process while it trains, and what importing costs.

    python benchmarks/device_memory.py [--repeats 3]

ConvNet-3 on 3x32x32, batch 16, one thread; each figure is the peak resident memory of a process of its own, the largest
of the repeats. Writes benchmarks/results/device_memory.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from device_step import HERE, bundle
from surroundings import surroundings

RESULTS = HERE / "results" / "device_memory.json"
PEAK = """
import re
print("peak", re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
EDGEDD = """
import sys, numpy as np
from edgedd.device import Student
student = Student.load(sys.argv[1], threads=1, low_memory=sys.argv[2] == "low")
generator = np.random.default_rng(0)
images = generator.standard_normal((16, 3, 32, 32)).astype(np.float32)
labels = generator.dirichlet(np.ones(10), 16).astype(np.float32)
for _ in range(5):
    student.step(images, labels, 0.01)
"""
TORCH = """
import sys
sys.path.insert(0, sys.argv[3])
from step_contenders import torch_step
step = torch_step({"threads": 1, "batch": 16, "width": int(sys.argv[1]), "norm": True})
for _ in range(5):
    step()
"""
IMPORT = """
import time
begun = time.perf_counter()
import edgedd.device
print("seconds", time.perf_counter() - begun)
"""


def run(program: str, *arguments: str) -> dict[str, float]:
    """What a fresh process prints, as numbers by name; the peak is in kB."""
    command = [sys.executable, "-c", program + PEAK, *arguments]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines)}


def peak_mb(repeats: int, program: str, *arguments: str) -> float:
    """Largest peak in MB (10^6 bytes)."""
    return round(max(run(program, *arguments)["peak"] for _ in range(repeats)) * 1024 / 1e6, 1)


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for width in (32, 64, 128):
            path = bundle(Path(name), f"w{width}", student=f"convnet3-w{width}")
            row = {"student": f"convnet3-w{width}", "batch": 16, "threads": 1}
            row |= {f"{mode}_mb": peak_mb(repeats, EDGEDD, path, mode) for mode in ("default", "low")}
            rows.append(row | {"torch_mb": peak_mb(repeats, TORCH, str(width), "", str(HERE))})
            print(rows[-1], flush=True)
    imports = [run(IMPORT) for _ in range(9)]
    importing = {
        "seconds": round(statistics.median(found["seconds"] for found in imports), 3),
        "mb": round(max(found["peak"] for found in imports) * 1024 / 1e6, 1),
        "repeats": len(imports),
    }
    print("import edgedd.device", importing)
    command = f"python benchmarks/device_memory.py --repeats {repeats}"
    results = {"rows": rows, "import": importing, "repeats": repeats, "command": command, **surroundings()}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
