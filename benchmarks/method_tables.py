"""Tables of docs/methods.md: what each method gains."""

import statistics
from typing import Any

from ablations import PAIRS
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
        rates = [float(settings.get("lr", 1)) for _, settings in PAIRS[row["pair"]][1:]]
        after += f" at {rates[1] / rates[0]:g} times the rate" if rates[0] != rates[1] else ""
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
    slower = {row["method"]: f"{row['cores']} cores of {row['processor']}" for row in rows if "gpu" not in row}
    where += "".join(f", {method} on {processor}" for method, processor in slower.items())
    about = (
        "CIFAR-10, one set each, mean and sample deviation over trainings of convnet3-w128 by the papers' evaluation; "
        "pixels (idm: tiles in pixels), hard labels, the papers' SGD; a tenth of the training images is held out"
    )
    made_by = "each row's command is in `benchmarks/results/published_cells_cifar10.json`"
    return "\n".join([*lines, "", f"{about}. Distilled on one {where}; {made_by}."])


def cross_architecture() -> str:
    """A line a set: test accuracy of each student, and the largest drop from the first."""
    result = read("cross_architecture_cifar10")
    students, sets = result["students"], {known["file"]: known for known in result["sets"]}
    head = [f"| set | iterations | epochs | {' | '.join(students)} | largest drop |"]
    head.append(f"|---|---|---|{'---|' * len(students)}---|")
    lines = []
    for row in result["summary"]:
        found = row["students"]
        cells = [f"{_percent(found[s])} ({found[s]['n']})" if s in found else "" for s in students]
        about = sets[row["file"]]
        name = f"{about['provenance']['method']}, {about['ipc']} images a class"
        cells = [f"{about['provenance']['iterations']:,}", f"{row['epochs']:,}", *cells]
        drop = "" if row["largest_drop"] is None else f"{100 * row['largest_drop']:.1f}"
        lines.append(f"| {name} | {' | '.join([*cells, drop])} |")
    commands = ", ".join(f"`{command}`" for command in dict.fromkeys(row["command"] for row in result["rows"]))
    note = f"CIFAR-10, mean and sample deviation, in brackets trainings, by the papers' evaluation; {commands}."
    return "\n".join([*head, *lines, "", note])


def matching_speed() -> str:
    """A line a method: an iteration of ours and of a plain loop."""
    distribution, gradient = read("distribution_matching_speed"), read("gradient_matching_speed")
    lines = [
        "| method | seconds an iteration | in a plain loop | times as fast | peak memory | of the plain loop |",
        "|---|---|---|---|---|---|",
    ]
    for row in distribution["speed"]:
        times = f"{row['times_as_fast']:.1f} ({' - '.join(f'{value:.1f}' for value in row['quartiles'])})"
        lines.append(_pace(row["method"], row["edgedd"], row["plain"], times))
    for method in (name for name in ("dc", "dcc") if name in gradient):
        row = gradient[method]
        times = f"{row['iteration_ratio']:.1f} ({' - '.join(f'{value:.1f}' for value in row['iteration_ratios'])})"
        lines.append(_pace(method, row["edgedd"], row["eager"], times))
    commands = " and ".join(f"`{result['command']}`" for result in (distribution, gradient))
    note = (
        "ConvNet-3 of width 128 on 3x32x32, ten classes, 10 synthetic and 256 real images each, 2 threads; medians and "
        f"quartiles of paired rounds (dcc: extremes). {_rounding(distribution['precision'])} {distribution['cores']} "
        f"cores of {distribution['processor']}; {commands}."
    )
    return "\n".join([*lines, "", note])


def _rounding(found: dict[str, float]) -> str:
    loss, another = (f"{100 * found[key]:.2g} %" for key in ("loss_changes_by", "loss_changes_by_another_batch"))
    return (
        f"Ours in bfloat16: beside float32 it changes the loss of dm by {loss}, and its gradient to a cosine of "
        f"{found['gradient_cosine']:.3f}; another batch of real images does by {another} and to "
        f"{found['gradient_cosine_of_another_batch']:.3f}."
    )


def _pace(method: str, ours: dict[str, Any], theirs: dict[str, Any], times: str) -> str:
    seconds = [
        60 / each["iterations_per_minute"] if "iterations_per_minute" in each else each["seconds"]
        for each in (ours, theirs)
    ]
    mib = [f"{each['peak_mib']:,.0f} MiB" for each in (ours, theirs)]
    return f"| {method} | {seconds[0]:.2f} | {seconds[1]:.2f} | {times} | {mib[0]} | {mib[1]} |"


def trajectory_speed() -> str:
    """What an outer iteration and experts take beside plain loops."""
    result = read("trajectory_speed")
    outer, experts = (result["results"][part] for part in ("outer", "experts"))

    def line(what: str, part: dict[str, Any], key: str, form: str, ratio: str) -> str:
        ours, theirs = (format(part[kind][key], form) for kind in ("edgedd", "eager"))
        return f"| {what} | {ours} | {theirs} | {ratio} |"

    over_start, peak = (f"{outer[ratio]:.1f}" for ratio in ("memory_over_start_ratio", "memory_ratio"))
    epochs = _spread(experts["ratios"])
    lines = [
        "| what | edgedd | plain loop | ratio |",
        "|---|---|---|---|",
        line("seconds an outer iteration", outer, "seconds", ".1f", _spread(outer["ratios"])),
        line("MiB that it takes", outer, "peak_over_start_mib", ",.0f", over_start),
        line("MiB of the process", outer, "peak_mib", ",.0f", peak),
        line("network-epochs of experts an hour", experts, "network_epochs_per_hour", ".0f", epochs),
    ]
    about = (
        f"MTT, one image a class, {result['inner_steps']} inner steps of ConvNet-3 of width {result['width']} on "
        f"3x32x32; median and extremes of {result['rounds']} paired rounds. {result['threads']} cores of "
        f"{result['processor']}, {'with' if result['bfloat16'] else 'without'} bfloat16; `{result['command']}`."
    )
    return "\n".join([*lines, "", about])


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"


def trajectories() -> str:
    """Accuracy at equal bytes, a line a data set, budget and method, the best first."""
    lines = ["| data | bytes | method | test accuracy | trainings | seconds |", "|---|---|---|---|---|---|"]
    results = read_all("trajectory_methods_")
    for result in results:
        name = result["data"]
        for row in result["summary"]:
            same = [r for r in result["rows"] if all(r[key] == row[key] for key in ("budget", "contender", "seconds"))]
            seconds = round(statistics.median(r["process_seconds"] for r in same))
            figures = f"{_percent(row)} | {row['seeds']} | {seconds}"
            lines.append(f"| {name} | {row['budget']:,} | {row['contender']} | {figures} |")
    commands = ", ".join(f"`{command}`" for command in dict.fromkeys(r["command"] for s in results for r in s["rows"]))
    first = results[0]
    about = (
        "Mean and sample deviation over seeds; seconds of one core that a set took, without the experts; mtt moves "
        "pixels with hard labels, the others low-rank images with soft ones; networks of width "
        f"{first['width']}, student {first['student']}"
    )
    return "\n".join([*lines, "", f"{about}; {commands}."])


def _percent(row: dict[str, Any]) -> str:
    spread = "" if row["spread"] is None else f" ± {100 * row['spread']:.1f}"
    return f"{100 * row['accuracy']:.1f}{spread} %"
