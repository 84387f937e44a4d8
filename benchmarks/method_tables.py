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
