"""Tables of docs/methods.md: what each method gains."""

import statistics
from typing import Any

from stored import read, read_all


def ablations() -> str:
    """A line a data set and pair of methods."""
    lines = [
        "| data | without | with | iterations | seeds | accuracy without | accuracy with | gain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    results = {name: read(f"ablations_{name}") for name in ("cifar10", "fashion-mnist")}
    for name, row in [(name, row) for name, result in results.items() for row in result["summary"]]:
        before, after = row["pair"].split("-")[:2]
        after = f"{after} on {before}" if after == "iid" else after
        figures = [f"{100 * row[key]:.1f} ± {100 * row[f'{key}_spread']:.1f} %" for key in ("before", "after")]
        gain = f"{round(100 * row['gain'], 1) + 0.0:+.1f} ± {100 * row['gain_spread']:.1f}"
        counts = f"{row['iterations']:,} | {row['seeds']}"
        lines.append(f"| {name} | {before} | {after} | {counts} | {' | '.join(figures)} | {gain} |")
    result = results["cifar10"]
    commands = dict.fromkeys(f"`{row['command']}`" for each in results.values() for row in each["rows"])
    note = (
        f"Mean and sample deviation, gains in pairs; {result['ipc']} images a class, networks of width "
        f"{result['width']}, student {result['student']} for {result['student_steps']} steps; {', '.join(commands)}."
    )
    return "\n".join([*lines, "", note])


def published_cells() -> str:
    """A line a method and number of images a class: ours beside the paper's."""
    rows = read("published_cells_cifar10")["rows"]
    lines = [
        "| method | images a class | iterations | test accuracy | trainings | published |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = "iid on " + row["settings"]["base"] if row["method"] == "iid" else row["method"]
        length = f"{row['iterations']:,} of {row['papers_iterations']:,}"
        spread = f"{100 * statistics.stdev(row['accuracies']):.1f}"
        theirs = "not found" if row["published"] is None else f"{row['published']} %"
        counts = f"{100 * row['accuracy']:.1f} ± {spread} % | {len(row['accuracies'])} | {theirs}"
        lines.append(f"| {name} | {row['ipc']} | {length} | {counts} |")
    where = " and ".join(dict.fromkeys(row["gpu"] for row in rows if "gpu" in row))
    about = (
        "CIFAR-10, one set each, mean and sample deviation over trainings of convnet3-w128 by the papers' evaluation; "
        "pixels (idm: tiles in pixels), hard labels, the papers' SGD; a tenth of the training images is held out"
    )
    made_by = "each row's command is in `benchmarks/results/published_cells_cifar10.json`"
    return "\n".join([*lines, "", f"{about}. Distilled on one {where}; {made_by}."])


def trajectories() -> str:
    """Accuracy at equal bytes, a line a data set, budget and method, the best first."""
    lines = ["| data | bytes | method | test accuracy | trainings | seconds |", "|---|---|---|---|---|---|"]
    results = read_all("trajectory_methods_")
    for result in results:
        name = result["command"].split()[2]
        for row in result["summary"]:
            same = [r for r in result["rows"] if all(r[key] == row[key] for key in ("budget", "contender", "seconds"))]
            seconds = round(statistics.median(r["process_seconds"] for r in same))
            figures = f"{_percent(row)} | {row['seeds']} | {seconds}"
            lines.append(f"| {name} | {row['budget']:,} | {row['contender']} | {figures} |")
    commands = " and ".join(f"`{result['command']}`" for result in results)
    first = results[0]
    about = (
        "Mean and sample deviation over seeds; seconds of one core that a set took, without the experts; mtt moves "
        "pixels with hard labels, the others low-rank images with soft ones; networks of width "
        f"{first['width']}, student {first['student']}."
    )
    return "\n".join([*lines, "", f"{about} {commands}."])


def _percent(row: dict[str, Any]) -> str:
    spread = "" if row["spread"] is None else f" ± {100 * row['spread']:.1f}"
    return f"{100 * row['accuracy']:.1f}{spread} %"
