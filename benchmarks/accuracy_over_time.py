"""What a minute buys: validation accuracy of `auto` over the time it is given.

    python benchmarks/accuracy_over_time.py NAME DATA.npz --bytes N [--minutes 1 5 15 60] [--student convnet3-w32]
    python benchmarks/accuracy_over_time.py NAME DATA.npz --bytes N --minutes M --set FILE [--gpu NAME]
    python benchmarks/accuracy_over_time.py --draw

A row a time: `edgedd distill --method auto --bytes N --minutes M` from scratch, then `--seeds` students trained with
torch by the set's own recipe and tested on the validation part of the training images, which chose that recipe; the
test split is never read. Finished rows stay in benchmarks/results/accuracy_over_time_NAME.json, and a second call goes
on after the last. Rows say how many threads they had. With `--set` the run was made beforehand, by that command and
with as many threads, or on the GPU named. `--draw` makes docs/pictures/accuracy_over_time.png, of the budgets to which
one machine gave more than one time, and edgedd/distillation/forecasts.json, from which `auto` forecasts.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stored import RESULTS
from surroundings import surroundings

import edgedd
from edgedd.commands.progress import ProgressReport
from edgedd.distillation.compute import Compute
from edgedd.distillation.recipe_search import Validation, validate
from edgedd.distillation.training import Trainer
from edgedd.students import student

LABEL: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
FORECASTS = Path(edgedd.__file__).parent / "distillation" / "forecasts.json"
PICTURE = RESULTS.parent.parent / "docs" / "pictures" / "accuracy_over_time.png"


def row(data: Any, arguments: argparse.Namespace, minutes: float) -> dict[str, Any]:
    """One distillation, and the students trained from it."""
    begun = time.perf_counter()
    synthetic = edgedd.SyntheticSet.load(arguments.set) if arguments.set else distilled(data, arguments, minutes)
    about = surroundings()
    seconds = None if arguments.set else round(time.perf_counter() - begun, 1)
    found = accuracies(synthetic, data, arguments)
    print(f"{arguments.bytes} bytes, {minutes:g} minutes: {100 * np.mean(found):.1f} %", flush=True)
    return {
        "budget_bytes": arguments.bytes,
        "minutes": minutes,
        "bytes": synthetic.nbytes,
        "ipc": synthetic.ipc,
        "iterations": synthetic.provenance["iterations"],
        "distil_seconds": seconds,
        "recipe": synthetic.recipe.as_dict(),
        "student": arguments.student,
        "accuracy": float(np.mean(found)),
        "accuracies": found,
        "machine": machine(arguments, about),
        "device": "cuda" if arguments.gpu else "cpu",
        "commit": about["commit"],
    }


def machine(arguments: argparse.Namespace, about: dict[str, Any]) -> str:
    """The GPU, or the processor and its threads."""
    threads = torch.get_num_threads()
    return arguments.gpu or f"{about['processor']}, {threads} thread{'s' * (threads > 1)}"


def distilled(data: Any, arguments: argparse.Namespace, minutes: float) -> Any:
    """A set by `auto` in so many minutes."""
    with ProgressReport() as progress, tempfile.TemporaryDirectory() as folder:
        return edgedd.distill(
            data,
            method="auto",
            bytes=arguments.bytes,
            minutes=minutes,
            seed=arguments.seed,
            command=f"edgedd distill --data {arguments.name} --bytes {arguments.bytes} --minutes {minutes:g}",
            output=Path(folder) / "set.safetensors",
            on_step=lambda step: progress.report(*step),
        )


def accuracies(synthetic: Any, data: Any, arguments: argparse.Namespace) -> list[float]:
    """Of students on the validation part."""
    _, (images, labels) = data.split(seed=arguments.seed)
    trainer = Trainer(student(arguments.student, data.shape, data.num_classes), Compute.choose("cpu"))
    held_out = Validation(images, labels)
    generators = [np.random.default_rng([arguments.seed, 11, k]) for k in range(arguments.seeds)]
    return [round(validate(synthetic, synthetic.recipe, held_out, trainer, g), 4) for g in generators]


def draw() -> None:
    """The picture and the forecasts, from all results there are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    forecasts: dict[str, Any] = {}
    for path in sorted(RESULTS.glob("accuracy_over_time_*.json")):
        result = json.loads(path.read_text())
        shape, rows = result["data"]["shape"], result["rows"]
        image_bytes = result["data"]["classes"] * int(np.prod(shape))
        about = {"data": result["data"]["name"], "image_bytes": image_bytes, "student": rows[0]["student"]}
        for device in sorted({r["device"] for r in rows}):
            theirs = [r for r in rows if r["device"] == device]
            about[device] = [[r["budget_bytes"], r["minutes"], round(r["accuracy"], 4), r["machine"]] for r in theirs]
        for budget, where in sorted({(r["budget_bytes"], r["machine"]) for r in rows}):
            own = [r for r in rows if (r["budget_bytes"], r["machine"]) == (budget, where)]
            if len(own) > 1:
                above = 6 if budget == max(r["budget_bytes"] for r in rows if r["machine"] == where) else -13
                ordered = sorted(own, key=lambda r: r["minutes"])
                curve(axes, f"{about['data']}, {budget:,} bytes, {where}", ordered, above)
        forecasts[str(shape[0])] = about
    axes.margins(y=0.12)
    axes.set_xscale("log")
    axes.set_xticks([1, 5, 15, 60], ["1", "5", "15", "60"])
    axes.set_xlabel("minutes given to edgedd distill")
    axes.set_ylabel("validation accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(PICTURE, dpi=130, metadata={"Software": None})
    FORECASTS.write_text(json.dumps(forecasts, indent=1) + "\n")


def curve(axes: Any, label: str, rows: list[dict[str, Any]], above: int) -> None:
    """Accuracy over minutes, each point with its number so many points above it."""
    points = [(row["minutes"], 100 * row["accuracy"]) for row in rows]
    axes.plot(*zip(*points, strict=True), "o-", label=label)
    for point in points:
        axes.annotate(f"{point[1]:.1f}", point, (0, above), **LABEL)


def main() -> None:
    """Parse; run what is missing; write after every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?")
    parser.add_argument("data", nargs="?")
    parser.add_argument("--bytes", type=int)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5, 15, 60])
    parser.add_argument("--set", type=Path)
    parser.add_argument("--gpu", help="that made the --set, such as 'NVIDIA H200'")
    parser.add_argument("--student", default="convnet3-w32")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", action="store_true")
    arguments = parser.parse_args()
    if arguments.set and len(arguments.minutes) != 1:
        parser.error("--set is one run: say its --minutes")
    if arguments.draw:
        draw()
        return
    data = edgedd.load_data(arguments.data)
    path = RESULTS / f"accuracy_over_time_{arguments.name}.json"
    result = json.loads(path.read_text()) if path.exists() else {"rows": []}
    about = {"name": arguments.name, "fingerprint": data.fingerprint, "shape": list(data.shape)}
    result |= {"data": {**about, "classes": data.num_classes}, **surroundings()}
    here = machine(arguments, result)
    done = {(r["budget_bytes"], r["minutes"]) for r in result["rows"] if r["machine"] == here}
    for minutes in arguments.minutes:
        if (arguments.bytes, minutes) in done:
            continue
        result["rows"].append(row(data, arguments, minutes))
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
