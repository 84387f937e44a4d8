"""Tables that stand only in docs/: the plan against measurements, memories that grow, the service at work."""

from stored import read, read_all


def plan() -> str:
    """Prediction against measurement: memory over all points, memory caps over the boards."""
    memory, boards = read("planner_memory"), read("plan_check")["cap"]
    done = sum(row["outcome"] == "completed" for row in boards)
    refused = sum(row["over"]["outcome"] == "refused" for row in boards)
    low, high = memory["smallest_ratio"], memory["largest_ratio"]
    return "\n".join(
        [
            "| what | result |",
            "|---|---|",
            f"| predicted over measured peak memory, {len(memory['rows'])} trainings | {low:.2f} to {high:.2f} |",
            f"| plans that completed under a hard cap of their board's budget | {done} of {len(boards)} |",
            f"| trainings larger than the budget, refused before memory was taken | {refused} of {len(boards)} |",
            "",
            f"On {memory['cores']} cores of {memory['processor']}, not on the boards; `{memory['command']}` and "
            "`python benchmarks/plan_check.py`.",
        ]
    )


def service() -> str:
    """The service of examples/edge_app at work."""
    result = read("edge_service")
    work, compared = result["work"], result["compared"]

    def times(row: dict[str, float]) -> str:
        return f"{row['median']:.1f} / {row['p99']:.1f} ms"

    lines = [
        "| what | result |",
        "|---|---|",
        f"| requests, retrainings | {work['requests']:,}, {work['trainings']} |",
        f"| resident memory of the service after warm-up | {work['warm_mb']:.1f} MB |",
        f"| largest after that | {work['largest_mb']:.1f} MB |",
        f"| growth | {100 * work['growth']:.1f} % |",
        f"| peak of the process that learns | {work['learner_peak_mb']:.0f} MB |",
    ]
    if work["group_peak_mb"] is not None:
        lines.append(f"| both together, of a cap of {result['limit_mb']} MB | {work['group_peak_mb']:.0f} MB |")
    lines += [
        f"| answer on the socket, median and 99th percentile, idle | {times(work['idle_ms'])} |",
        f"| the same while it learns | {times(work['beside_learner_ms'])} |",
        f"| classification alone | {times(compared['alone_ms'])} |",
        f"| beside learning in a process of its own, as it is done | {times(compared['process_ms'])} |",
        f"| beside learning on a thread instead | {times(compared['thread_ms'])} |",
        f"| memory that the thread leaves taken | {compared['thread_keeps_mb']:.0f} MB |",
    ]
    note = (
        f"{result['student']} on 3x32x32, one core of {result['processor']} that other work shared: compare latencies "
        "with one another."
    )
    return "\n".join([*lines, "", f"{note} `{result['command']}`."])


def continual() -> str:
    """A line a data set and kind of memory, after the last of its steps."""
    lines = [
        "| data | memory | bytes | images a class | all classes after the last step | forgetting |",
        "|---|---|---|---|---|---|",
    ]
    results = read_all("continual_")
    for result in results:
        for row in result["summary"]:
            name = "**synthetic set**" if row["memory"] == "distilled" else f"real images: {row['memory']}"
            cells = [result["data"]["name"], name.replace("as distilled", "stored alike"), f"{row['bytes']:,}"]
            shares = [f"{100 * row[key]:.1f} ± {100 * row[f'{key}_spread']:.1f} %" for key in ("final", "forgetting")]
            lines.append(f"| {' | '.join([*cells, str(row['images']), *shares])} |")
    seeds, student = results[0]["summary"][0]["seeds"], results[0]["student"]
    commands = " and ".join(f"`{result['command']}`" for result in results)
    about = f"{seeds} orders of the classes, mean and sample deviation; a fresh {student} after each step. {commands}."
    return "\n".join([*lines, "", about])


def prototyping() -> str:
    """Rank correlations, a line a data set and synthetic set."""
    lines = [
        "| data | bytes of the set | images a class | steps | networks | rank correlation | least without any one |",
        "|---|---|---|---|---|---|---|",
    ]
    commands = []
    for result in read_all("prototyping_"):
        for found in sorted(result["summary"], key=lambda found: result["sets"][found["set"]]["bytes"]):
            about = result["sets"][found["set"]]
            figures = (about["steps"], found["students"], found["spearman"], found["spearman_least_without_one"])
            cells = [result["data"], f"{about['bytes']:,}", str(about["ipc"]), *map(str, figures)]
            lines.append(f"| {' | '.join(cells)} |")
            commands.append(f"`{about['command']}`")
    return "\n".join([*lines, "", f"One training of each network on each. {', '.join(commands)}."])
