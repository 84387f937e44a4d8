"""Real images, end to end: distil, export, train in onnxruntime, read the test split once.

    python benchmarks/real_images.py NAME DATA.npz --bytes N [--minutes M] [--seeds 3] [--method auto]

Distils DATA to N bytes, makes `random` (random real images, teacher labels) in the same parameterization, bits, bytes
and with the same recipe, then trains the student `--seeds` times on each, by the device runtime from the file alone.
Settings and recipe are chosen on the validation split; the test split is read once a student.
Writes benchmarks/results/real_images_NAME.json. With --keep DIR the sets stay there, and a second call takes them up.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from surroundings import surroundings

import edgedd
from edgedd.commands.progress import ProgressReport

RESULTS = Path(__file__).parent / "results"


def distilled(data: Any, arguments: argparse.Namespace, out: Path, **options: Any) -> tuple[Any, float]:
    """A set within the bytes, and the seconds it took from call to file; a set already in `out` is taken as it is."""
    path = out / f"{arguments.name}-{options['method']}.safetensors"
    timing = path.with_suffix(".seconds")
    if path.exists() and timing.exists():
        return edgedd.SyntheticSet.load(path), float(timing.read_text())
    begun = time.perf_counter()
    with ProgressReport() as progress:
        synthetic = edgedd.distill(
            data,
            bytes=arguments.bytes,
            seed=arguments.seed,
            command=f"edgedd distill --data {Path(arguments.data).name} --method {options['method']} "
            f"--bytes {arguments.bytes} --seed {arguments.seed}",
            output=path,
            on_step=lambda step: progress.report(*step),
            **options,
        )
    seconds = time.perf_counter() - begun
    timing.write_text(f"{seconds:.1f}")
    return synthetic, seconds


def row(synthetic: Any, data: Any, arguments: argparse.Namespace, method: str, seconds: float) -> dict[str, Any]:
    """One line of the table."""
    result = edgedd.evaluate(synthetic, data, [arguments.student], seeds=arguments.seeds)[0]
    print(method, [round(100 * a, 2) for a in result["accuracies"]], flush=True)
    form = synthetic.parameterization.as_dict()
    extra = {"ipc": synthetic.ipc, "parameterization": form, "distil_seconds": round(seconds, 1)}
    return {"method": method, **extra, "iterations": synthetic.provenance["iterations"], **result}


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("data")
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", default="auto")
    parser.add_argument("--student", default="convnet3-w64")
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    data = edgedd.load_data(arguments.data)
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.keep or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        length = {"minutes": arguments.minutes, "iterations": arguments.iterations}
        synthetic, seconds = distilled(data, arguments, out, method=arguments.method, **length)
        same = {"recipe": synthetic.recipe, "parameterization": synthetic.parameterization.kind}
        baseline, baseline_seconds = distilled(data, arguments, out, method="random", **same)
    ours = row(synthetic, data, arguments, arguments.method, seconds)
    rows = [row(baseline, data, arguments, "random", baseline_seconds), ours]
    command = f"python benchmarks/real_images.py {arguments.name} {Path(arguments.data).name} --bytes {arguments.bytes}"
    if not arguments.minutes:
        length["iterations"] = synthetic.provenance["iterations"]
    command += "".join(f" --{k} {v:g}" for k, v in length.items() if v is not None)
    command += "" if arguments.method == "auto" else f" --method {arguments.method}"
    result = {
        "data": {"name": arguments.name, "fingerprint": data.fingerprint, "test_images": len(data.test_images)},
        "budget_bytes": arguments.bytes,
        "recipe": synthetic.recipe.as_dict(),
        "rows": rows,
        "command": f"{command} --seeds {arguments.seeds} --student {arguments.student}",
        **surroundings(),
    }
    path = RESULTS / f"real_images_{arguments.name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
