"""README's tables of the device runtime, from device_step.json, device_memory.json and one_epoch.json."""

from typing import Any

from stored import read


def speed() -> str:
    """A line a network: milliseconds, and how many times longer the others take."""
    result = read("device_step")
    names = ("network, batch", "edgedd", "torch eager", "torch.compile", "onnxruntime-training 1.19.2")
    lines = [f"| {' | '.join(names)} |", "|---|---|---|---|---|"]
    for row in result["speed"]:
        others = " | ".join(_times(row[kind]) for kind in ("torch", "torch-compile"))
        lines.append(f"| {row['student']}, {row['batch']} | {row['edgedd']['ms']:.0f} ms | {others} | |")
    for row in result["onnxruntime_training_1_19_2"]:
        ours, others = f"{row['edgedd']['ms']:.0f} ms", f"{_times(row['torch'])} | | {_times(row['ort-training'])}"
        lines.append(f"| {row['student']}, {row['batch']} | {ours} | {others} |")
    shares = ", ".join(f"{100 * row['share_of_floor']:.0f} % ({row['student']})" for row in result["speed"])
    threads = result["speed"][0]["threads"]
    note = (
        f"One training step on 3x32x32, {threads} threads: median, and the median ratio of paired rounds with its "
        "quartiles. Without normalisation the pools take maxima. Share of the floor (operations over the rate of "
        f"2048x2048 matrix products): {shares}. {_where(result)}"
    )
    return "\n".join([*lines, "", note])


def _times(row: dict[str, Any]) -> str:
    return f"{row['ratio']:.2f} x ({row['quartiles'][0]:.2f}-{row['quartiles'][1]:.2f})"


def memory() -> str:
    """A line a network: peak resident megabytes of the whole process."""
    result = read("device_memory")
    lines = ["| network | edgedd | edgedd, low memory | torch |", "|---|---|---|---|"]
    for row in result["rows"]:
        cells = " | ".join(f"{row[key]:.0f} MB" for key in ("default_mb", "low_mb", "torch_mb"))
        lines.append(f"| {row['student']} | {cells} |")
    importing = result["import"]
    note = (
        f"Peak resident memory while training: 3x32x32, batch 16, one thread, largest of {result['repeats']} runs. "
        f"`import edgedd.device`: {importing['mb']:.1f} MB, {importing['seconds']:.2f} s. {_where(result)}"
    )
    return "\n".join([*lines, "", note])


def epoch() -> str:
    """A line a kind of network: test accuracy after one epoch, by the engine and by torch."""
    result = read("one_epoch")
    lines = ["| network | edgedd | torch | difference |", "|---|---|---|---|"]
    for row in result["rows"]:
        means = [100 * sum(row[by]) / len(row[by]) for by in ("edgedd", "torch")]
        lines.append(f"| {row['student']} | {means[0]:.2f} % | {means[1]:.2f} % | {row['difference_points']:+.2f} |")
    count = len(result["rows"][0]["edgedd"])
    seeds = "one seed" if count == 1 else f"mean of {count} seeds"
    note = f"{result['data']}, one epoch of real images, the same start and batches, {seeds}. {_where(result)}"
    return "\n".join([*lines, "", note])


def _where(result: dict[str, Any]) -> str:
    return f"{result['cores']} cores of {result['processor']}; `{result['command']}`."
