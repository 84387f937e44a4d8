"""`edgedd report`: one self-contained page about a set or a bundle; no script, no network, whatever is in the files."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgedd
from edgedd.atomic import refuse_unwritable, write_bytes
from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import ARCHIVE
from edgedd.device import Student
from edgedd.errors import MissingExtra, SettingError
from edgedd.labelled_images import LabelledImages, load_data
from edgedd.report import page_sections as sections
from edgedd.report.learning import OnStep, learn
from edgedd.report.results import read_results
from edgedd.synthetic_set import SyntheticSet

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Wanted:
    """What a report is to hold beside the set.

    Attributes:
        data: test images: their accuracy by class, what is confused, the curve of accuracy.
        results: files that `evaluate --json` or `try --json` printed.
        student: which one is trained and planned for; by default the bundle's first, or the one that suits the images.
        target: the board whose memory is shown; by default the bundle's, or this machine.
        train: whether to train once here.
        seed: of that training.
        command: that made the report, to be told in it.
    """

    data: "LabelledImages | str | None" = None
    results: Sequence[str | os.PathLike[str]] = ()
    student: str | None = None
    target: str | None = None
    train: bool = True
    seed: int = 0
    command: str = ""


def write_report(
    run: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    on_step: OnStep | None = None,
    **wanted: Any,
) -> int:
    """Write the page about a set's file or a bundle -> its bytes. Keyword arguments are the fields of `Wanted`.

    Raises:
        FormatError, BundleError, SettingError, DataError, TargetError: one line each.
        MissingExtra: jinja2, Pillow or tensorly is missing; or onnx, for a set that is not in a bundle yet.
    """
    how, run = Wanted(**wanted), Path(run)
    refuse_unwritable(output)
    template = _template()
    rows = [row for path in how.results for row in read_results(path)]
    data = load_data(how.data) if isinstance(how.data, str | os.PathLike) else how.data
    with _opened(run, how) as (synthetic, bundle):
        if data and (data.shape != synthetic.parameterization.shape or data.num_classes != len(synthetic.classes)):
            raise SettingError(f"{data.name} has other images or classes than {run}: give the data that it came from")
        learning = None
        if how.train and bundle is not None:
            learning = learn(Student.load(bundle, student=how.student), data, how.seed, on_step)
        page = template.render(
            title=run.name,
            version=edgedd.__version__,
            command=how.command,
            head=sections.head(synthetic, _size(run), learning, data),
            images=sections.images(synthetic),
            factors=sections.factors(synthetic),
            accuracy=sections.accuracy(rows, synthetic, learning),
            classes=sections.classes(synthetic, learning),
            memory=None if bundle is None else sections.memory(bundle, how.student, how.target),
            learning=sections.curves(learning, data),
            facts=sections.facts(synthetic, Bundle.load(run) if bundle == run else None),
        )
    content: bytes = page.encode()
    write_bytes(output, content)
    return len(content)


def _size(run: Path) -> int:
    """Bytes of the set's file or archive, or of all files of a folder."""
    return sum(file.stat().st_size for file in run.iterdir()) if run.is_dir() else run.stat().st_size


@contextmanager
def _opened(run: Path, how: Wanted) -> Iterator[tuple[SyntheticSet, Path | None]]:
    """The set, and a bundle of it: that which is there, or a temporary one where one is needed and can be made."""
    if run.is_dir() or run.name.endswith(ARCHIVE):
        yield Student.load(run, student=how.student).synthetic, run
        return
    synthetic = SyntheticSet.load(run)
    if not how.train and how.target is None:
        yield synthetic, None
        return
    try:
        from edgedd.exporting import export
    except ModuleNotFoundError as error:
        raise MissingExtra("onnx", "a report with training on a set without bundle", "distill") from error
    with tempfile.TemporaryDirectory() as folder:
        export(synthetic, Path(folder) / "bundle", student=how.student)
        yield synthetic, Path(folder) / "bundle"


def _template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtra("jinja2", "a report", "distill") from error
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html")
