"""Accuracy per byte: synthetic sets beside the best that real images do in no more bytes.

    python benchmarks/accuracy_per_byte.py NAME DATA.npz --bytes N... [--set FILE...] [--seeds 5] [--student NAME]
        [--epochs N] [--device cuda | --torch]
    python benchmarks/accuracy_per_byte.py NAME --picture OUT.png

For each budget and each way to store real images (uint8, 4-bit, 2-bit, down-scaled, JPEG, WebP) the setting, the labels
(hard or the early-stopped teacher's), the choice of images (random, herding, k-means) and the training recipe are
chosen by short trainings on the validation split, as a synthetic set's recipe is; bytes are those of a file that the
students' images are decoded from. A set's budget is its own bytes. The test split is read once a student. With
--device cuda torch trains the sets' students instead of onnxruntime; with --torch it does so on this processor, in
bfloat16 where that is fast. With --epochs the sets' students train for so many instead of their recipe's.
Writes benchmarks/results/accuracy_per_byte_NAME.json after every row; rows that are there are kept, so that a run that
was cut goes on. With --picture the sets of each student and real images are drawn over bytes, the best of those of
nearly equal bytes, with published points (benchmarks/published.json); students that are no ConvNet have a table of
their own in docs/methods.md.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from accuracy_tables import STORES, best, of_convnets, steps_asked_for
from surroundings import surroundings

import edgedd
from edgedd.atomic import write_bytes
from edgedd.baselines.comparison import baseline_rows
from edgedd.baselines.search import BaselineSearch, Wanted
from edgedd.commands.progress import ProgressReport
from edgedd.evaluation import evaluate
from edgedd.report.accuracy import draw
from edgedd.student_trainings import Trainings, facts

HERE = Path(__file__).parent


class Results:
    """The rows of a data set, written after each one."""

    def __init__(self, name: str, folder: Path) -> None:
        self.path = folder / f"accuracy_per_byte_{name}.json"
        stored = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.rows: list[dict[str, Any]] = stored.get("rows", [])
        self.data: dict[str, Any] = stored.get("data", {"name": name})

    def has(self, **key: Any) -> bool:
        """Whether a row with these values is there."""
        return any(all(row.get(name) == value for name, value in key.items()) for row in self.rows)

    def add(self, rows: list[dict[str, Any]], command: str, seconds: float, device: str = "cpu", **about: Any) -> None:
        """Write down rows, each with the command and surroundings that made it."""
        fresh = [_key({**about, **row}) for row in rows]
        self.rows = [row for row in self.rows if _key(row) not in fresh]
        where = {"command": command, "search_and_training_seconds": round(seconds, 1), **surroundings(device)}
        for row in rows:
            self.rows.append({**about, **row, **where})
            print(f"{row['trained_on']}: {row['bytes']} bytes, {row['ipc']} a class, {100 * row['accuracy']:.2f}")
        self.rows.sort(key=lambda row: (row["student"], row["budget_bytes"], row["trained_on"]))
        write_bytes(self.path, json.dumps({"data": self.data, "rows": self.rows}, indent=1).encode() + b"\n")


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    """A set that is made again replaces the one of its name."""
    return row["student"], row.get("file") or row["budget_bytes"], row.get("storage"), steps_asked_for(row)


def sets(arguments: argparse.Namespace, data: Any, results: Results, command: str) -> None:
    """A row for each synthetic set that has none yet."""
    for path in arguments.set:
        synthetic = edgedd.SyntheticSet.load(path)
        how = Trainings(epochs=arguments.epochs, seeds=arguments.seeds, device=arguments.device, torch=arguments.torch)
        key = {"file": path.name, "bytes": synthetic.nbytes, "student": arguments.student}
        if results.has(**key, steps=facts(synthetic, how)["steps"], seeds=list(range(arguments.seeds))):
            continue
        begun = time.perf_counter()
        rows = evaluate(synthetic, data, [arguments.student], **vars(how))
        about = {"trained_on": "synthetic set", "ipc": synthetic.ipc, "file": path.name}
        about |= {
            "parameterization": synthetic.parameterization.as_dict(),
            "method": synthetic.provenance.get("method"),
            "iterations": synthetic.provenance.get("iterations"),
            "distilled_by": synthetic.provenance.get("command"),
        }
        about |= {"training_recipe": synthetic.recipe.as_dict()}
        made = [{**row, **about} for row in rows]
        results.add(made, command, time.perf_counter() - begun, arguments.device, budget_bytes=synthetic.nbytes)


def baselines(arguments: argparse.Namespace, data: Any, results: Results, command: str) -> None:
    """A row for each budget and kind of store that has none yet."""
    search = None
    for budget in arguments.bytes:
        for store in arguments.stores:
            key = {"budget_bytes": budget, "storage": store, "student": arguments.student}
            if results.has(**key, seeds=list(range(arguments.seeds))):
                continue
            begun = time.perf_counter()
            with ProgressReport() as progress:
                search = search or BaselineSearch(data, arguments.seed)
                search.on_step = progress.report
                for name, made in search.run(Wanted(budget, (store,))):
                    rows = baseline_rows(name, made, data, [arguments.student], seeds=arguments.seeds)
                    results.add(rows, command, time.perf_counter() - begun, budget_bytes=budget)


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("data", nargs="?")
    parser.add_argument("--bytes", type=int, nargs="+", default=[])
    parser.add_argument("--set", type=Path, nargs="+", default=[])
    parser.add_argument("--stores", nargs="+", default=STORES, choices=STORES)
    parser.add_argument("--student", default="convnet3-w128")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--device", default="cpu")
    where.add_argument("--torch", action="store_true")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    results = Results(arguments.name, arguments.results)
    if arguments.data:
        data = edgedd.load_data(arguments.data)
        results.data |= {"fingerprint": data.fingerprint, "test_images": len(data.test_images)}
        lists = {"bytes": arguments.bytes, "set": [path.name for path in arguments.set]}
        lists |= {"stores": arguments.stores} if arguments.bytes else {}
        words = [f"--{name} {' '.join(map(str, values))}" for name, values in lists.items() if values]
        command = (
            f"python benchmarks/accuracy_per_byte.py {arguments.name} {Path(arguments.data).name} {' '.join(words)}"
        )
        command += f" --student {arguments.student} --seeds {arguments.seeds} --seed {arguments.seed}"
        command += f" --epochs {arguments.epochs}" if arguments.epochs else ""
        command += f" --device {arguments.device}" if arguments.device != "cpu" else " --torch" * arguments.torch
        sets(arguments, data, results, command)
        baselines(arguments, data, results, command)
    if arguments.picture:
        published = json.loads((HERE / "published.json").read_text()).get(arguments.name, [])
        drawn = best(of_convnets(results.rows), lambda row: row.get("storage"))
        draw(drawn, published, arguments.picture, arguments.name)


if __name__ == "__main__":
    main()
