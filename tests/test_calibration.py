"""Calibration measures what it says, writes a profile that takes the shipped one's place, and times graphs of today."""

import gzip
from pathlib import Path
from typing import Any

import pytest

import edgedd
from edgedd.device import calibration
from edgedd.device.calibration import FORM, NUM_CLASSES, RECIPE, STUDENTS, calibrate
from edgedd.errors import SettingError, TargetError
from edgedd.exporting.export import student_network
from edgedd.exporting.training_graph import training_graph
from edgedd.planning.placement import pace_of
from edgedd.planning.target import load_target

CALIBRATED = {"core_product_gflops", "core_move_gbytes", "node_microseconds", "parallel_gain"}
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its memory from /proc")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "POINT_SECONDS", 0.0)
    monkeypatch.setattr(calibration, "LEAST_STEPS", 1)


@pytest.mark.parametrize("student", STUDENTS)
def test_the_shipped_graphs_are_those_made_today(student: str) -> None:
    """When this fails: python benchmarks/calibration_graphs.py."""
    made = training_graph(student_network(student, FORM.shape, NUM_CLASSES), FORM, RECIPE)
    path = Path(calibration.__file__).parent / "graphs" / f"{student}.onnx.gz"
    assert gzip.decompress(path.read_bytes()) == made.SerializeToString(deterministic=True)


@needs_proc
@pytest.mark.usefixtures("quick")
def test_a_calibrated_board_is_planned_by_what_was_measured(own: Path) -> None:
    before = load_target("raspberry-pi-zero-2w")
    path, measured = calibrate(target="raspberry-pi-zero-2w")
    assert path == own / "raspberry-pi-zero-2w.toml"
    after = load_target("raspberry-pi-zero-2w")
    assert after.sources == measured.sources and after.cores == measured.cores
    for name in CALIBRATED | {"effective_gflops", "runtime_floor_bytes"}:
        assert after.sources[name].kind == "measured"
        assert getattr(after, name) == pytest.approx(getattr(measured, name), rel=1e-3)
    assert (after.process_ram_bytes, after.storage_bytes) == (before.process_ram_bytes, before.storage_bytes)
    assert 40e6 < after.runtime_floor_bytes < 90e6
    assert 1 <= after.parallel_gain <= after.cores
    pace = pace_of(after)
    plan = edgedd.plan(image_shape=(1, 8, 8), num_classes=3, target=after.name, student="convnet1-w8", bytes=4000)
    assert pace.product_gflops == after.core_product_gflops and 0 < plan.seconds < 1000


@pytest.mark.usefixtures("quick", "own")
@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"target": "raspberry-pi-9"}, TargetError, "unknown target"),
        ({"output": "nowhere/../"}, SettingError, "cannot write|is a folder|not a file"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(given: dict[str, Any], kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        calibrate(**given)


def test_a_profile_with_half_of_the_rates_is_refused(own: Path) -> None:
    text = (Path(__file__).parent.parent / "targets" / "raspberry-pi-zero-2w.toml").read_text()
    rate = '\n[figures.core_product_gflops]\nvalue = 3.0\nkind = "measured"\nsource = "by hand"\n'
    (own / "half.toml").write_text(text + rate)
    with pytest.raises(TargetError, match="figures lacks core_move_gbytes"):
        load_target("half")
    (own / "half.toml").write_text(text + rate.replace("3.0", "-3.0").replace("core_product_gflops", "cores2"))
    with pytest.raises(TargetError, match="unknown key 'cores2'"):
        load_target("half")
