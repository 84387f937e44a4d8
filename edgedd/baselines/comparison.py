"""A synthetic set beside real images in no more bytes: the same students, recipe search, augmentations and seeds."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from edgedd.baselines.real_set import RealSet
from edgedd.baselines.search import BaselineSearch, Wanted, start
from edgedd.errors import SettingError
from edgedd.evaluation import evaluate
from edgedd.labelled_images import LabelledImages
from edgedd.ranking import rank
from edgedd.student_trainings import Trainings
from edgedd.synthetic_set import SyntheticSet

OnStep = Callable[[str, int, int, float | None], None]


def compare(
    synthetic: SyntheticSet,
    data: LabelledImages,
    students: Sequence[str] | None = None,
    *,
    baselines: bool = True,
    ranking: bool = False,
    on_step: OnStep | None = None,
    **trainings: Any,
) -> list[dict[str, Any]]:
    """The rows of `evaluate` for the set, then for the best of each kind of store within the set's bytes.

    Each has two keys more: `trained_on` and `ipc`; those of real images `storage`, `setting`, `labels` and `selection`
    too. `ranking` adds DD-Ranking's scores to the set's rows (see `edgedd.ranking`). `on_step(stage, done, all, loss)`
    counts the short trainings of the search, then the trainings.

    Raises:
        SettingError, DataError, ExportError: one line each.
    """
    how = Trainings(**trainings)
    if ranking and how.recipe != "set":
        raise SettingError("--ranking trains by the set's own recipe: leave --recipe out")
    said = on_step or (lambda stage, done, parts, loss: None)
    rows = evaluate(synthetic, data, students, on_part=partial(_told, said, "evaluate"), **trainings)
    for row in rows:
        row |= {"trained_on": "synthetic set", "ipc": synthetic.ipc}
    search = BaselineSearch(data, how.seed, said)
    if ranking:
        names = [row["student"] for row in rows]
        ranked = rank(synthetic, data, names, search, seeds=how.seeds, seed=how.seed, on_step=on_step)
        for row, about in zip(rows, ranked, strict=True):
            row["ranking"] = {key: value for key, value in about.items() if key != "student"}
    if baselines:
        wanted = Wanted(synthetic.nbytes, recipe=start(synthetic.recipe), search_recipe=how.recipe == "set")
        for name, made in search.run(wanted):
            rows += baseline_rows(name, made, data, students, partial(_told, said, name), **trainings)
    return rows


def _told(said: OnStep, stage: str, done: int, parts: int) -> None:
    said(stage, done, parts, None)


def baseline_rows(
    name: str,
    made: RealSet,
    data: LabelledImages,
    students: Sequence[str] | None,
    on_part: Callable[[int, int], None] | None = None,
    **trainings: Any,
) -> list[dict[str, Any]]:
    """The rows of `evaluate` for one set of real images, decoded from its file; `bytes` are the file's."""
    content = made.to_bytes()
    read = RealSet.from_bytes(content)
    rows = evaluate(read.synthetic(), data, students, on_part=on_part, **trainings)
    about = {"storage": name, "setting": str(read.store), "labels": read.label_kind, "selection": read.selection}
    said = f"{name} ({read.store}), {read.selection}, {read.label_kind} labels"
    for row in rows:
        row |= {"bytes": len(content), "trained_on": said, "ipc": read.ipc, **about}
        row["training_recipe"] = read.recipe.as_dict()
    return rows
