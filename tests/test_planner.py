"""The file's size is known before anything is distilled, to the byte, and the budget is used up."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_sets import random_set

import edgedd
from edgedd.errors import BudgetError, SettingError
from edgedd.parameterization import DCT, PARAMETERIZATIONS, Formation, LowRank, Parameterization, Pixels, SharedBasis
from edgedd.planning import planner
from edgedd.storage.quantize import BITS

CLASSES = ("cat", "dog", "été")
PROVENANCE: dict[str, Any] = {"method": "dm", "seed": 0, "command": "edgedd distill"}
FORM = LowRank((1, 9, 8), 3, 1, 4)


@st.composite
def forms(draw: st.DrawFn) -> Parameterization:
    shape = (draw(st.sampled_from([1, 3])), draw(st.integers(8, 20)), draw(st.integers(8, 20)))
    bits = draw(st.sampled_from(BITS))
    kind = draw(st.sampled_from(sorted(PARAMETERIZATIONS)))
    if kind == "pixels":
        return Pixels(shape, bits)
    if kind == "formation":
        return Formation(shape, draw(st.integers(2, min(shape[1:]) // 4)), bits)
    if kind == "shared_basis":
        half = shape[1] % 2 == shape[2] % 2 == 0 and draw(st.booleans())
        return SharedBasis(shape, draw(st.integers(1, 8)), draw(st.integers(1, 3)), bits, half)
    if kind == "dct":
        return DCT(shape, draw(st.integers(1, min(shape[1:]))), bits)
    return LowRank(shape, draw(st.integers(1, min(shape[1:]))), draw(st.integers(1, 3)), bits)


@settings(max_examples=40, deadline=None)
@given(form=forms(), num_classes=st.integers(2, 12), ipc=st.integers(2, 6), seed=st.integers(0, 99))
def test_predicted_bytes_are_the_bytes_on_disk(
    tmp_path_factory: pytest.TempPathFactory, form: Parameterization, num_classes: int, ipc: int, seed: int
) -> None:
    ipc = form.per_stored * (ipc + -(-form.least_count // num_classes))
    synthetic = random_set(form, num_classes, ipc, seed)
    path = tmp_path_factory.getbasetemp() / "planned.safetensors"
    synthetic.save(path)
    predicted = planner.file_bytes(form, num_classes * ipc, synthetic.classes, synthetic.provenance, synthetic.recipe)
    assert predicted == path.stat().st_size == len(path.read_bytes())


@pytest.mark.parametrize("kind", sorted(PARAMETERIZATIONS))
@pytest.mark.parametrize("bits", BITS)
def test_every_kind_and_width_is_predicted(tmp_path: Path, kind: str, bits: int) -> None:
    form = planner.parameterization_for((3, 9, 11), kind, None, bits)
    synthetic = random_set(form, 3, 12, seed=1)
    synthetic.save(tmp_path / "set.st")
    size = planner.file_bytes(form, 36, synthetic.classes, synthetic.provenance, synthetic.recipe)
    assert size == (tmp_path / "set.st").stat().st_size


@settings(max_examples=15, deadline=None)
@given(form=forms().filter(lambda form: not planner.stores_compact(form)), extra=st.integers(0, 6000))
def test_the_most_images_that_fit(form: Parameterization, extra: int) -> None:
    least = form.per_stored * -(-form.least_count // (form.per_stored * len(CLASSES)))
    budget = planner.file_bytes(form, least * len(CLASSES), CLASSES, PROVENANCE) + extra
    plan = planner.storage(form, CLASSES, PROVENANCE, budget_bytes=budget)
    assert plan.predicted_bytes == planner.file_bytes(form, plan.ipc * 3, CLASSES, PROVENANCE) <= budget
    assert plan.ipc % form.per_stored == 0
    assert planner.file_bytes(form, (plan.ipc + form.per_stored) * 3, CLASSES, PROVENANCE) > budget


def test_images_per_class_instead_of_bytes() -> None:
    plan = planner.storage(FORM, CLASSES, PROVENANCE, ipc=7)
    assert (plan.ipc, plan.parameterization) == (7, FORM)
    assert plan == planner.storage(FORM, CLASSES, PROVENANCE, ipc=7, budget_bytes=plan.predicted_bytes)
    with pytest.raises(BudgetError, match=rf"ipc 7 takes {plan.predicted_bytes} bytes, more than the budget of 99"):
        planner.storage(FORM, CLASSES, PROVENANCE, ipc=7, budget_bytes=99)


@pytest.mark.parametrize(
    "form", [FORM, LowRank((3, 16, 16), 8, 9, 16), Formation((1, 16, 8)), Pixels((1, 8, 8))], ids=str
)
def test_too_small_a_budget_names_what_is_enough(form: Parameterization) -> None:
    with pytest.raises(BudgetError) as refusal:
        planner.storage(form, CLASSES, PROVENANCE, budget_bytes=500)
    found = re.search(r"500 bytes .* as (\w+) at (\d+) bits, which takes (\d+); .* is (\d+), as", str(refusal.value))
    assert found
    assert (found[1], int(found[2])) == (form.kind, form.bits)
    enough, least = (int(text) - planner.COMMAND_SLACK for text in found.groups()[2:])
    fewest = {"formation": 4, "low_rank": -(-form.least_count // 3), "pixels": 1, "shared_basis": 4}[form.kind]
    assert planner.storage(form, CLASSES, PROVENANCE, budget_bytes=enough).ipc == fewest
    with pytest.raises(BudgetError):
        planner.storage(form, CLASSES, PROVENANCE, budget_bytes=enough - 1)
    assert least == planner.file_bytes(LowRank(form.shape, 1, 1, 2), len(CLASSES), CLASSES, PROVENANCE)


def test_a_large_budget_is_planned_without_building_files_far_beyond_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, real = [], planner.file_bytes

    def recorded(*arguments: Any) -> int:
        sizes.append(real(*arguments))
        return sizes[-1]

    monkeypatch.setattr(planner, "file_bytes", recorded)
    budget = 1_000_000
    plan = planner.storage(Pixels((3, 64, 64), 8), CLASSES, PROVENANCE, budget_bytes=budget)
    assert plan.ipc == 27  # 3 x 12,288 bytes an image a class
    assert max(sizes) <= 2 * budget


def test_more_than_a_file_may_have_is_refused() -> None:
    with pytest.raises(BudgetError, match="more than a file may have"):
        planner.storage(FORM, CLASSES, PROVENANCE, budget_bytes=2**40)


def test_the_smallest_set_that_a_refusal_names_can_be_made() -> None:
    options: dict[str, Any] = {"method": "random", "labels": "hard", "recipe": edgedd.Recipe(steps=1)}
    with pytest.raises(BudgetError) as refusal:
        edgedd.distill("digits", bytes=500, **options)
    least = int(str(refusal.value).split(" is ")[1].split(",")[0])
    synthetic = edgedd.distill("digits", bytes=least, rank=1, bits=2, **options)
    assert synthetic.ipc >= 1
    assert synthetic.nbytes <= least


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "neither bytes nor ipc is given"),
        ({"ipc": 0}, "ipc=0, wanted 1 to 10000"),
        ({"ipc": 10_001}, "ipc=10001, wanted 1 to 10000"),
    ],
)
def test_no_size_or_an_impossible_one(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        planner.storage(FORM, CLASSES, PROVENANCE, **arguments)


def test_what_is_not_said_is_chosen() -> None:
    assert planner.parameterization_for((3, 32, 32), None, None, None) == LowRank((3, 32, 32), 8, 1, 4)
    assert planner.parameterization_for((1, 28, 28), "low_rank", None, None) == LowRank((1, 28, 28), 14, 1, 4)
    assert planner.parameterization_for((1, 8, 8), None, 5, 2, 3) == LowRank((1, 8, 8), 5, 3, 2)
    assert planner.parameterization_for((3, 32, 32), "pixels", None, None) == Pixels((3, 32, 32), 8)
    assert planner.parameterization_for((3, 32, 32), "formation", None, None) == Formation((3, 32, 32), 2, 8)
    assert planner.parameterization_for((1, 28, 28), "formation", None, 4, formation=3) == Formation((1, 28, 28), 3, 4)
    assert planner.parameterization_for((3, 32, 32), "shared_basis", None, None) == SharedBasis((3, 32, 32), 16, 1, 4)
    small = planner.parameterization_for((1, 8, 8), "shared_basis", None, 8, 2, half=True)
    assert small == SharedBasis((1, 8, 8), 4, 2, 8, half=True)


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("pixels", {"rank": 4}, "pixels takes no rank: leave it out or choose low_rank, shared_basis"),
        ("formation", {"subspaces": 2}, "formation takes no subspaces: leave it out or choose low_rank, shared_basis"),
        (None, {"formation": 2}, "low_rank takes no formation: leave it out or choose formation"),
        ("pixels", {"rank": 4, "formation": 2}, "takes no rank and no formation: leave it out or choose another"),
        ("svd", {}, "'svd', wanted low_rank, pixels, formation, shared_basis"),
    ],
)
def test_what_does_not_go_together_is_refused(kind: str | None, given: dict[str, int], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        planner.parameterization_for((3, 32, 32), kind, **{"rank": None, "bits": None, **given})


@pytest.mark.parametrize(
    ("form", "ipc", "words"),
    [
        (Formation((1, 8, 8), 2), 3, "ipc=3, wanted a multiple of 4: formation stores so many as one"),
        (SharedBasis((1, 8, 8), 5, 2), 3, "9 images for 2 x 5 basis pictures, wanted at least as many"),
        (LowRank((1, 8, 8), 2, 7), 2, "6 images for 7 subspaces"),
    ],
)
def test_images_that_cannot_be_stored_are_refused(form: Parameterization, ipc: int, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        planner.storage(form, CLASSES, PROVENANCE, ipc=ipc)


@pytest.mark.parametrize(("shape", "budget"), [((3, 32, 32), 30_720), ((1, 28, 28), 7_840)])
def test_a_compact_set_is_planned_at_its_budget(shape: tuple[int, int, int], budget: int) -> None:
    form, classes = planner.parameterization_for(shape, "dct", None, None), tuple("0123456789")
    planned = planner.storage(form, classes, {}, budget_bytes=budget)
    assert planned.predicted_bytes == budget and planned.ipc == planner.compact_images(budget, form, 10)
    assert 2.2 < planner.compact_images(4 * budget, form, 10) / planned.ipc < 3
    assert planner.storage(form, classes, {}, budget_bytes=budget, ipc=7).ipc == 7
    plain = planner.storage(form, classes, {}, ipc=7)
    assert plain.predicted_bytes == planner.file_bytes(form, 70, classes, {})
    assert planner.storage(replace(form, bits=4), classes, {}, budget_bytes=2 * plain.predicted_bytes).ipc > 7
    with pytest.raises(BudgetError, match="180 bytes are too few for 10 classes in a compact file, wanted at least"):
        planner.storage(form, classes, {}, budget_bytes=180)
