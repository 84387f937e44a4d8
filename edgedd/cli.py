"""The `edgedd` command: parse, call one library function, print. Data on stdout, messages on stderr."""

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from edgedd.commands import boards, bundles, experts, in_steps, pack, rehearse, report, trying, tune
from edgedd.errors import EdgeddError, MissingExtra, SettingError, printable

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Distil labelled images into kilobytes; train from them on a device with stock onnxruntime.",
)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
INTERRUPTED = 130  # the status of shells for a process that Ctrl-C ended
UsageError: Any = typer.BadParameter.__base__  # of click, or of the copy of it inside newer typers
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Seed = Annotated[int, typer.Option(help="the same seed gives the same file", min=0)]
Data = Annotated[str, typer.Option("--data", help="built-in name, .npz file, or folder of class folders")]
METHODS = (
    "auto, snapshots, frepo, dm, idm, iid, dc, dsa, dcc, dsac, mtt, datm, lss, contrastive, random, herding, kmeans"
)
STUDENTS = "convnet<depth>-w<width>[-bn|-gn|-ln|-none], resnet8, mobilenet-tiny, mlp, alexnet, vgg11, resnet18-in"
SetFile = Annotated[Path, typer.Argument(metavar="SET", help="a synthetic set (.safetensors)")]


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="where the files go")] = Path("demo"), as_json: Json = False
) -> None:
    """The whole way on scikit-learn's digits, without network: distil, export, train in onnxruntime, compare."""
    from edgedd.commands.output import print_demo
    from edgedd.commands.progress import ProgressReport
    from edgedd.demonstration import demo as run

    with ProgressReport() as progress:
        result = run(folder, on_step=progress.report)
    print_demo(result, as_json)


@app.command()
def distill(
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="the synthetic set to write")],
    method: Annotated[str, typer.Option(help=METHODS)] = "auto",
    target: Annotated[str | None, typer.Option(help="a board: what is not said comes from its plan")] = None,
    bytes_: Annotated[int | None, typer.Option("--bytes", help="size of the file at most")] = None,
    ipc: Annotated[int | None, typer.Option(help="images per class, instead of bytes")] = None,
    parameterization: Annotated[
        str | None, typer.Option(help="low_rank, dct, pixels, formation or shared_basis")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="rank r of low_rank, dct or shared_basis")] = None,
    subspaces: Annotated[int | None, typer.Option(help="subspaces of low_rank or shared_basis")] = None,
    formation: Annotated[int | None, typer.Option(help="tiles a side of a stored image of formation")] = None,
    half: Annotated[bool, typer.Option("--half", help="shared_basis at half the resolution")] = False,
    bits: Annotated[int | None, typer.Option(help="16, 8, 4 or 2 a coefficient or pixel")] = None,
    compact: Annotated[bool, typer.Option("--compact", help="store it entropy-coded; dct always is")] = False,
    labels: Annotated[str, typer.Option(help="auto, hard, teacher or learned")] = "auto",
    iterations: Annotated[int | None, typer.Option(help="outer steps")] = None,
    minutes: Annotated[float | None, typer.Option(help="time allowed, instead of iterations")] = None,
    experts: Annotated[Path | None, typer.Option(help="folder of `edgedd experts`, for mtt, datm and lss")] = None,
    contrastive: Annotated[float | None, typer.Option(help="weight of a contrastive term (dm, dc.., mtt..)")] = None,
    width: Annotated[int | None, typer.Option(help="channels of the networks that distil (the method's own)")] = None,
    recipe: Annotated[Path | None, typer.Option(help="a set whose training recipe is taken, without a search")] = None,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="continue from the checkpoint beside the output")] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="of the method")] = None,
    as_json: Json = False,
) -> None:
    """Condense labelled images into a synthetic set of a stated number of bytes."""
    from edgedd.commands.output import print_inspection, spoken_command
    from edgedd.commands.progress import ProgressReport
    from edgedd.distillation.options import Options
    from edgedd.distillation.ranks import speaks
    from edgedd.distillation.run import distill as run
    from edgedd.synthetic_set import SyntheticSet

    given = locals()
    options = {name: given[name] for name in Options.names() if given.get(name) is not None}
    options |= {"recipe": SyntheticSet.load(recipe).recipe} if recipe else {}
    options |= {"bytes": bytes_, "settings": _pairs(settings), "command": spoken_command(sys.argv)}
    with ProgressReport() as progress:
        run(data, on_step=lambda step: progress.report(*step), **options)
    if speaks():
        print_inspection(output, as_json)


def _pairs(settings: list[str] | None) -> dict[str, str]:
    pairs = [text.partition("=") for text in settings or []]
    for name, separator, value in pairs:
        if not (name and separator and value):
            raise SettingError(f"--set {name}{separator}{value}: wanted NAME=VALUE, such as --set lr=0.02")
    return {name: value for name, _, value in pairs}


@app.command()
def inspect(path: SetFile, as_json: Json = False) -> None:
    """What is in a synthetic set: bytes by part, form, recipe, provenance."""
    from edgedd.commands.output import print_inspection

    print_inspection(path, as_json)


@app.command()
def preview(
    path: SetFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="the PNG to write")],
    columns: Annotated[int, typer.Option(help="images a class at most", min=1, max=20)] = 12,
) -> None:
    """Draw the decoded images, one row a class."""
    from edgedd.report.preview import preview as draw
    from edgedd.synthetic_set import SyntheticSet

    draw(SyntheticSet.load(path), output, columns)
    print(printable(str(output)))


@app.command()
def evaluate(
    path: Annotated[Path, typer.Argument(metavar="SET|BUNDLE", help="a synthetic set, or a bundle with --weights")],
    data: Data,
    students: Annotated[list[str] | None, typer.Option(help=f"names with commas: {STUDENTS}")] = None,
    seeds: Annotated[int, typer.Option(help="trainings per student")] = 3,
    seed: Seed = 0,
    recipe: Annotated[str, typer.Option(help="set (its own); as papers: vico, vico-digits, vico-plain")] = "set",
    epochs: Annotated[int | None, typer.Option(help="instead of the recipe's")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda; on cuda torch trains")] = "cpu",
    torch: Annotated[bool, typer.Option("--torch", help="torch trains on cpu too, in bfloat16 where fast")] = False,
    weights: Annotated[Path | None, typer.Option(help="weights that `edgedd train` wrote, for a bundle")] = None,
    continual: in_steps.Steps = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="also real images in as many bytes")] = False,
    ranking: Annotated[bool, typer.Option("--ranking", help="also the gaps and scores of DD-Ranking")] = False,
    as_json: Json = False,
) -> None:
    """Test accuracy: of students trained from a set by its recipe or as papers do, or of a bundle's trained weights."""
    if continual is not None:
        return in_steps.evaluate(path, data, continual, students, seeds=seeds, seed=seed, as_json=as_json)
    from edgedd.commands.output import print_evaluation
    from edgedd.commands.progress import ProgressReport
    from edgedd.evaluation import evaluate_path

    options: dict[str, Any] = {"seeds": seeds, "seed": seed, "weights": weights}
    options |= {"recipe": recipe, "epochs": epochs, "device": device, "torch": torch}
    options |= {"baselines": baselines, "ranking": ranking}
    with ProgressReport() as progress:
        rows = evaluate_path(path, data, students, on_step=progress.report, **options)
    print_evaluation(rows, as_json)


@app.command()
def export(
    path: SetFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="the bundle to write: folder, or NAME.edgedd.zip")],
    student: Annotated[str | None, typer.Option(help=f"one, or several with commas: {STUDENTS}")] = None,
    model: Annotated[Path | None, typer.Option(help="your own network (.onnx with its weights), instead")] = None,
    target: Annotated[str | None, typer.Option(help="a board: see `edgedd targets`")] = None,
    mode: Annotated[str, typer.Option(help="what is trained: full, head, bias or last-<k>")] = "full",
    weights: Annotated[Path | None, typer.Option(help="where training starts: weights of `edgedd train`")] = None,
    quantize: Annotated[bool, typer.Option("--quantize", help="also an int8 graph for prediction")] = False,
    data: Annotated[str | None, typer.Option("--data", help="with --quantize: test images to compare on")] = None,
    zip_: Annotated[bool, typer.Option("--zip", help="one file: .edgedd.zip is added to the name")] = False,
    licence: Annotated[str | None, typer.Option(help="of the bundle, one line for its card")] = None,
    accuracy: Annotated[Path | None, typer.Option(help="for the card: what `edgedd evaluate --json` printed")] = None,
    sign: Annotated[Path | None, typer.Option(help="Ed25519 private key (PEM) that signs the bundle")] = None,
    spare_classes: Annotated[int, typer.Option(help="outputs for classes that the device learns", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Turn a set and a network into a bundle that trains on a device."""
    from edgedd.bundles.card import read_accuracies
    from edgedd.commands.output import print_bundle
    from edgedd.evaluation import export_and_compare
    from edgedd.synthetic_set import SyntheticSet

    output = bundles.archive_name(output) if zip_ else output
    wanted: dict[str, Any] = {"student": student, "model": model, "mode": mode, "weights": weights, "target": target}
    wanted |= {"spare_classes": spare_classes}
    wanted |= {"licence": licence, "sign": sign, "accuracies": read_accuracies(accuracy) if accuracy else ()}
    result = export_and_compare(SyntheticSet.load(path), output, quantize=quantize, data=data, **wanted)
    print_bundle(*result, output, as_json)


@app.command()
def train(
    bundle: bundles.BundlePath,
    output: Annotated[Path, typer.Option("-o", "--output", help="the weights to write (.safetensors)")],
    seed: Seed = 0,
    data: Annotated[str | None, typer.Option("--data", help="test images to report accuracy on")] = None,
    threads: Annotated[int | None, typer.Option(help="processor threads", min=1)] = None,
    micro_batch: Annotated[int | None, typer.Option(help="images computed at once", min=1)] = None,
    low_memory: Annotated[bool, typer.Option("--low-memory", help="less memory, slower")] = False,
    student: bundles.StudentName = None,
    require_signature: bundles.PublicKey = None,
    new_data: rehearse.NewDataPath = None,
    weights: rehearse.StartWeights = None,
    rehearsal: rehearse.StateFile = None,
    ratio: rehearse.Ratio = None,
    buffer_bytes: rehearse.BufferBytes = None,
    as_json: Json = False,
) -> None:
    """Train the bundle's student from its synthetic set, by its recipe; or on new images, rehearsing on the set."""
    from edgedd.commands.progress import ProgressReport

    with ProgressReport() as progress:
        how: dict[str, Any] = {"threads": threads, "micro_batch": micro_batch, "low_memory": low_memory}
        how |= {"require_signature": require_signature, "student": student}
        how |= {"seed": seed, "data": data, "on_step": progress.report}
        new = {"path": new_data, "weights": weights, "state": rehearsal, "ratio": ratio, "buffer_bytes": buffer_bytes}
        row = rehearse.train(bundle, output, new, **how)
    rehearse.print_row(row, as_json)


@app.command()
def predict(
    bundle: bundles.BundlePath,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="pictures, or .npy of uint8 images")],
    weights: Annotated[Path | None, typer.Option(help="weights that `edgedd train` wrote")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="by the bundle's quantised graph and weights")] = False,
    student: bundles.StudentName = None,
    as_json: Json = False,
) -> None:
    """Classify pictures with trained weights, or with those that the bundle brings."""
    from edgedd.commands.output import print_predictions
    from edgedd.prediction import predict_files

    print_predictions(predict_files(bundle, images, weights, int8=int8, student=student), as_json)


@app.command()
def targets(name: Annotated[str | None, typer.Argument(help="one board")] = None, as_json: Json = False) -> None:
    """Boards and their budgets."""
    from edgedd.commands.output import print_targets
    from edgedd.planning.target import load_target
    from edgedd.planning.target import targets as known

    print_targets([load_target(each) for each in ([name] if name else known())], as_json)


app.command()(boards.plan)
app.command()(boards.calibrate)
app.command()(experts.experts)
app.command()(pack.pack)
app.command()(tune.tune)
app.command()(report.report)
app.command("try")(trying.try_)
app.command()(bundles.verify)
app.command()(bundles.install)
app.command()(bundles.rollback)


def main() -> None:
    """The console script: a user's mistake is one line on stderr and exit status 2."""
    try:
        status = app(sys.argv[1:] or ["--help"], prog_name="edgedd", standalone_mode=False)
        sys.stdout.flush()
    except EdgeddError as error:
        _refuse(str(error))
    except UsageError as error:
        _refuse(f"{error.format_message().rstrip('.')}; see {error.ctx.command_path if error.ctx else 'edgedd'} --help")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "edgedd"):
            raise
        _refuse(str(MissingExtra(package, "this command", "distill")))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else what is left to print fails once more at exit
        where = f" {error.filename}" if error.filename else ""
        _refuse(f"cannot write{where}: {error.strerror}; make room and run it again")
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    if status == INTERRUPTED:
        _refuse("interrupted", INTERRUPTED)
    raise SystemExit(status)


def _refuse(message: str, status: int = 2) -> NoReturn:
    print(f"edgedd: {' '.join(printable(message).split())}", file=sys.stderr)
    raise SystemExit(status) from None
