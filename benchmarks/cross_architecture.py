"""What a set that one network made is worth to others: test accuracy by student, and the largest drop.

    edgedd distill --data DATA.npz --method iid --ipc 10 --parameterization pixels --labels hard -o iid.safetensors
    python benchmarks/cross_architecture.py NAME DATA.npz --sets iid.safetensors [--students S...] [--epochs 1000]
        [--device cuda]

Each student is trained from each set by the papers' evaluation (`vico`; they have 1,000 epochs), and the test split is
read once a training. A drop is from the first student, a ConvNet such as the one that distilled. Each finished training
is kept in benchmarks/results/cross_architecture_NAME.json, and a second call goes on with what is missing.
"""

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

from stored import RESULTS
from surroundings import surroundings

import edgedd
from edgedd.atomic import write_bytes

STUDENTS = ("convnet3-w128", "alexnet", "vgg11", "resnet18-in")


def described(file: str, synthetic: edgedd.SyntheticSet) -> dict[str, Any]:
    """Of a set: what made it, and its size."""
    about = {"file": file, "bytes": synthetic.nbytes, "ipc": synthetic.ipc}
    return about | {"form": synthetic.parameterization.as_dict(), "provenance": dict(synthetic.provenance)}


def summary(rows: list[dict[str, Any]], students: list[str]) -> list[dict[str, Any]]:
    """A line a set and length: mean accuracy, spread and trainings of each student, the largest drop from the first."""
    lines = []
    for name, epochs in dict.fromkeys((row["file"], row["epochs"]) for row in rows):
        same = [row for row in rows if (row["file"], row["epochs"]) == (name, epochs)]
        found: dict[str, Any] = {}
        for student in students:
            values = [row["accuracy"] for row in same if row["student"] == student]
            if values:
                spread = round(statistics.stdev(values), 4) if len(values) > 1 else None
                found[student] = {"accuracy": round(statistics.fmean(values), 4), "spread": spread, "n": len(values)}
        means = [found[student]["accuracy"] for student in students if student in found]
        drop = round(means[0] - min(means), 4) if len(means) > 1 else None
        lines.append({"file": name, "epochs": epochs, "students": found, "largest_drop": drop})
    return lines


def parsed() -> argparse.Namespace:
    """The command line, and as `command` what it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("data")
    parser.add_argument("--sets", type=Path, nargs="+", required=True)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    command = f"python benchmarks/cross_architecture.py {arguments.name} {Path(arguments.data).name} --sets "
    command += f"{' '.join(path.name for path in arguments.sets)} --students {' '.join(arguments.students)} "
    arguments.command = command + f"--seeds {arguments.seeds} --epochs {arguments.epochs}"
    arguments.command += f" --device {arguments.device}" if arguments.device != "cpu" else ""
    return arguments


def main() -> None:
    """Train what is missing, write after each training."""
    arguments = parsed()
    data, path = edgedd.load_data(arguments.data), arguments.results / f"cross_architecture_{arguments.name}.json"
    stored = json.loads(path.read_text()) if path.exists() else {"rows": [], "sets": [], "students": []}
    rows: list[dict[str, Any]] = stored["rows"]
    sets = {known["file"]: known for known in stored["sets"]}
    students = list(dict.fromkeys(stored["students"] + arguments.students))
    done = {(row["file"], row["epochs"], row["student"], row["seed"]) for row in rows}
    wanted = itertools.product(arguments.sets, range(arguments.seeds), arguments.students)
    for file, seed, student in [w for w in wanted if (w[0].name, arguments.epochs, w[2], w[1]) not in done]:
        synthetic, begun = edgedd.SyntheticSet.load(file), time.perf_counter()
        sets[file.name] = described(file.name, synthetic)
        how = {"recipe": "vico", "epochs": arguments.epochs}
        found_rows = edgedd.evaluate(synthetic, data, [student], seeds=1, seed=seed, device=arguments.device, **how)
        accuracy = found_rows[0]["accuracy"]
        row = {"file": file.name, "student": student, "seed": seed, "accuracy": accuracy, **how}
        row["command"] = arguments.command
        rows.append(row | {"seconds": round(time.perf_counter() - begun, 1)} | surroundings(arguments.device))
        found = {"summary": summary(rows, students), "students": students, "sets": list(sets.values()), "rows": rows}
        write_bytes(path, json.dumps(found, indent=1).encode() + b"\n")
        print(f"{file.name} {student}: {100 * accuracy:.1f} % in {rows[-1]['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
