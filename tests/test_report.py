"""The page: complete in itself, true to what it shows, and text wherever files bring markup."""

import base64
import io
import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from device_bundle import blobs
from PIL import Image
from tiny_sets import random_set

from edgedd.device import Student
from edgedd.errors import SettingError
from edgedd.exporting import export
from edgedd.parameterization import DCT, Formation, LowRank, Parameterization, Pixels, SharedBasis
from edgedd.report import charts, page_sections, pictures
from edgedd.report.learning import Learning
from edgedd.report.page import write_report
from edgedd.report.preview import pixels
from edgedd.report.results import read_results
from edgedd.synthetic_set import SyntheticSet

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}\u202e</style>")


class Page(HTMLParser):
    """Tags, attributes and text of a page; a browser would see the same."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "img", "path", "line", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += f" {data}"

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images, labels = blobs(7, seed=5)
    path = tmp_path_factory.mktemp("data") / "blobs.npz"
    names = np.array(["circle", "cross", "bar"])
    np.savez(
        path,
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=mislabelled(labels),
        classes=names,
    )
    return path


def mislabelled(labels: np.ndarray) -> np.ndarray:
    """Every third one is wrong, so that no accuracy is 100 %."""
    return np.where(np.arange(len(labels)) % 3 == 0, (labels + 1) % 3, labels)


def unpacked(picture: pictures.Picture) -> np.ndarray:
    kind, _, content = picture.source.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_the_page_is_complete_in_itself_and_says_what_was_measured(folder: Path, data: Path, tmp_path: Path) -> None:
    size = write_report(folder, tmp_path / "r.html", data=str(data), seed=3, command="edgedd report bundle")
    page = Page(tmp_path / "r.html")
    assert size == (tmp_path / "r.html").stat().st_size < 100_000
    assert "script" not in page.tags and "link" not in page.tags and not page.open
    fetched = [value for name, value in page.attributes if name in ("src", "href", "srcset", "data", "action")]
    assert fetched and all(value.startswith("data:image/png;base64,") for value in fetched)
    assert "url(" not in (tmp_path / "r.html").read_text() and "@import" not in (tmp_path / "r.html").read_text()
    student = Student.load(folder)
    student.fit(3)
    images, labels = blobs(7, seed=5)
    accuracy = student.evaluate(images, mislabelled(labels))
    assert 0.1 < accuracy < 0.9 and f"test accuracy on blobs.npz {100 * accuracy:.1f} %" in page.words
    for told in ("circle", "raspberry-pi-zero-2w", "This page: edgedd report bundle", "convnet2-w8", "student_lr"):
        assert told in page.words


def test_what_files_bring_is_text_and_never_markup(synthetic: SyntheticSet, data: Path, tmp_path: Path) -> None:
    provenance = {"method": HOSTILE[0], "command": HOSTILE[1] * 20, HOSTILE[0]: [HOSTILE[2]]}
    replace(synthetic, classes=HOSTILE, provenance=provenance).save(tmp_path / "s.safetensors")
    row = {"student": HOSTILE[0], "what": HOSTILE[1], "accuracy": 0.5, "spread": 0.1, "bytes": 300}
    (tmp_path / "rows.json").write_text(json.dumps([row, row | {"bytes": 900}]))
    results = [tmp_path / "rows.json"]
    write_report(
        tmp_path / "s.safetensors",
        tmp_path / "r.html",
        data=str(data),
        results=results,
        student="convnet1-w4",
        command=HOSTILE[0],
    )
    page = Page(tmp_path / "r.html")
    assert not page.tags & {"script", "b", "iframe", "object", "a"} and not page.open
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all(value.startswith("data:") for name, value in page.attributes if name == "src")
    for name in HOSTILE[:2]:
        assert name in page.words
    assert "{{ 7 * 7 }}\\u202e</style>" in page.words and "\u202e" not in (tmp_path / "r.html").read_text()


def test_strips_hold_the_decoded_images(synthetic: SyntheticSet) -> None:
    strips = pictures.by_class(synthetic)
    assert [strip.caption for strip in strips] == list(synthetic.classes)
    for k, strip in enumerate(strips):
        found = unpacked(strip)
        assert found.shape == (8, 5 * 8 + 4) == (strip.height, strip.width)
        for i in range(5):
            wanted = 255 * pixels(synthetic, np.array([5 * k + i]))[0]
            np.testing.assert_allclose(found[:, 9 * i : 9 * i + 8], wanted, atol=0.51)


def test_pictures_stay_small_whatever_the_set() -> None:
    """Noise is what PNG packs least: 1,000 images of 100 classes, at most a third of a megabyte."""
    strips = pictures.by_class(random_set(Pixels((3, 32, 32), 8), 100, 10, seed=0))
    assert len(strips) == 100 and sum(len(strip.source) for strip in strips) < 450_000


FORMS = [
    LowRank((3, 8, 9), 3, 2, 4),
    SharedBasis((3, 8, 10), 3, 2, 2),
    Formation((1, 8, 8), 2, 4),
    Pixels((1, 8, 8)),
    DCT((3, 8, 8), 4, 8),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.kind)
def test_factors_of_every_form_are_drawn(form: Parameterization) -> None:
    drawn = pictures.of_factors(random_set(form, 3, 4, seed=0))
    assert drawn and all(unpacked(picture).std() > 1 for picture in drawn)


def test_mappers_show_what_a_place_of_the_core_draws() -> None:
    """The square of place (i, j) is the image of a core that is 1 there, over its largest value."""
    synthetic = random_set(LowRank((1, 8, 8), 2, 1, 16), 2, 2, seed=0)
    found = unpacked(pictures.of_factors(synthetic)[1])
    left, right = synthetic.factors["left"][0], synthetic.factors["right"][0]
    core = np.zeros((2, 2), np.float32)
    core[1, 0] = 1
    drawn = left @ core @ right
    np.testing.assert_allclose(found[9:17, :8], 128 + 127 * drawn / np.abs(drawn).max(), atol=0.51)


def test_places_of_a_chart_are_those_of_its_values() -> None:
    chart = charts.line_chart("t", [(0, 0.0), (50, 0.5), (100, 1.0)], "x", "y", fraction=True)
    numbers = [tuple(map(float, place.split())) for place in re.findall(r"[ML]([\d.]+ [\d.]+)", chart.line)]
    assert numbers == [(44, 210), (256, 111), (468, 12)]
    assert [text for _, text in chart.x_ticks] == ["0", "20", "40", "60", "80", "100"]
    sizes = charts.bytes_chart("t", [(1000, 0.5, 0.1, "a", "ours"), (4000, 0.5, 0.0, "b", "theirs")])
    first, second = sizes.marks
    assert first.x - 44 == pytest.approx(468 - second.x, abs=0.11) and first.y == second.y
    assert (first.spread, second.spread) == (pytest.approx(198 * 10 / 23.2, abs=0.06), 0)
    flat = charts.line_chart("t", [(float(k), 2.0) for k in range(1000)], "x", "y")
    assert flat.line.count("L") < charts.MOST_POINTS


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has no list of rows"),
        ('{"rows": 3}', "has no list of rows"),
        ('[{"accuracy": 2}]', r"a row without an accuracy in \[0, 1\]"),
        ('[{"accuracy": NaN}]', "a row without an accuracy"),
        ('[{"accuracy": 0.5}, 3]', "a row without an accuracy"),
        (" " * (2**20 + 1), "more than 1048576 bytes"),
        (None, "is missing"),
    ],
)
def test_other_results_are_refused(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "r.json").write_text(content)
    with pytest.raises(SettingError, match=message):
        read_results(tmp_path / "r.json")


def test_results_of_evaluate_and_of_try_are_read(tmp_path: Path) -> None:
    tried = {"student": "mlp", "accuracy": 0.4, "seconds": 2.5, "peak_bytes": 9, "steps": 3}
    (tmp_path / "t.json").write_text(json.dumps({"rows": [tried, {"student": "x", "error": "too large"}]}))
    row = {"name": "mlp", "student": "mlp", "accuracy": 0.4, "spread": 0.0, "seconds": 2.5, "peak_bytes": 9}
    assert read_results(tmp_path / "t.json") == [row | {"short": "mlp", "bytes": None, "of_set": True}]
    ours = {"student": "mlp", "accuracy": 0.4, "bytes": 100, "trained_on": "synthetic set"}
    theirs = ours | {"trained_on": "jpeg (q 20), kmeans, soft labels", "storage": "jpeg"}
    (tmp_path / "e.json").write_text(json.dumps([ours, theirs]))
    told = [(row["short"], row["of_set"]) for row in read_results(tmp_path / "e.json")]
    assert told == [("synthetic set", True), ("jpeg", False)]


def test_names_in_a_chart_do_not_lie_upon_each_other() -> None:
    found = charts.bytes_chart("t", [(1000.0, 0.5 + k / 1000, 0.0, str(k), "ours") for k in range(9)])
    places = sorted(mark.name_y for mark in found.marks)
    assert all(b - a >= charts.LINE - 1e-9 for a, b in itertools.pairwise(places))
    assert places[0] > 0 and places[-1] <= charts.HEIGHT - charts.BOTTOM


@pytest.mark.parametrize("num_classes", [3, 20])
def test_confusion_is_told_by_the_true_class(num_classes: int) -> None:
    """Ten images a class, all right but class 1, of which three are taken for class 2 and one for class 0."""
    confusion = 10 * np.eye(num_classes, dtype=int)
    confusion[1, :3] = 1, 6, 3
    synthetic = random_set(Pixels((1, 8, 8), 8), num_classes, 1, seed=0)
    learned = Learning("mlp", 0, 1, 1.0, np.zeros(1), [], 0, confusion)
    found = page_sections.classes(synthetic, learned)
    assert found is not None and learned.accuracy == (10 * num_classes - 4) / (10 * num_classes)
    assert found["bars"][-1] == ("class 1", "60.0 %", 60.0)
    assert found["pairs"] == [("class 1", "class 2", "30.0 %"), ("class 1", "class 0", "10.0 %")]
    if num_classes == 3:
        assert found["cells"][1] == [(10, 0.1), (60, 0.6), (30, 0.3)] and found["picture"] is None
    else:
        shown = unpacked(found["picture"])
        assert not found["cells"] and shown[12, 12 * 2] == round(255 * (1 - 0.3**0.5)) < shown[12 * 2, 12] == 255


def test_the_command_without_training(folder: Path, command: Command, tmp_path: Path) -> None:
    images, labels = blobs(2, seed=5)
    of_two = {"train_images": images, "train_labels": labels % 2, "test_images": images, "test_labels": labels % 2}
    np.savez(tmp_path / "two.npz", **of_two)
    ran = command("report", folder, "-o", tmp_path / "r.html", "--no-train")
    assert ran.status == 0 and ran.out.endswith("bytes\n")
    words = Page(tmp_path / "r.html").words
    assert "Memory of training" in words and "Learning curves" not in words and "Class by class" not in words
    other = command("report", folder, "-o", tmp_path / "r.html", "--data", tmp_path / "two.npz")
    assert other.status == 2 and "has other images or classes than" in other.err


def test_a_board_that_is_too_small_is_said_and_not_an_error(synthetic: SyntheticSet, tmp_path: Path) -> None:
    export(synthetic, tmp_path / "b", student="convnet2-w512")
    write_report(tmp_path / "b", tmp_path / "r.html", train=False, target="raspberry-pi-zero-2w")
    assert "On raspberry-pi-zero-2w it does not fit: training takes at least" in Page(tmp_path / "r.html").words
