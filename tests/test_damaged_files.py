"""Whatever happens to a file: it loads, or one line names it; no other exception, and little memory."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from damage import READERS, VALUES, damage, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_hostile_set_files import framed
from tiny_data import saved

from edgedd.bundle import ARCHIVE, MANIFEST
from edgedd.errors import EdgeddError
from edgedd.exporting import export
from edgedd.synthetic_set import SyntheticSet

BOARD = Path(__file__).parent.parent / "targets" / "raspberry-pi-zero-2w.toml"
MOST_OF_JSON = 20 * 2**20  # of a mebibyte of text with one character that takes four bytes for each, copied
SEEDS = st.integers(0, 2**32 - 1)
QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def wholes(synthetic: SyntheticSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each kind, with a copy beside it that is damaged again and again."""
    folder = tmp_path_factory.mktemp("whole")
    found = {"set": folder / "whole.safetensors", "bundle": folder / "whole", "archive": folder / f"whole{ARCHIVE}"}
    synthetic.save(found["set"])
    for kind in ("bundle", "archive"):
        export(synthetic, found[kind], student="convnet1-w4", target="raspberry-pi-zero-2w")
    saved(folder)
    found |= {"target": BOARD, "data": folder / "data.npz"}
    for kind, path in found.items():
        READERS[kind](path)  # what is imported then is not counted later
    return found


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("kind", READERS)
def test_a_whole_file_loads(kind: str, wholes: dict[str, Path]) -> None:
    assert read(kind, wholes[kind])
    assert read(kind, wholes[kind])


@pytest.mark.parametrize("kind", READERS)
def test_damage_is_one_line(kind: str, wholes: dict[str, Path], tmp_path: Path) -> None:
    @QUICK
    @given(seed=SEEDS)
    def check(seed: int) -> None:
        read(kind, damage(kind, wholes[kind], tmp_path / wholes[kind].name, seed))

    check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_damage_is_one_line_four_thousand_times(kind: str, wholes: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / wholes[kind].name
    loaded = [read(kind, damage(kind, wholes[kind], copy, seed)) for seed in range(10**6, 10**6 + 4000)]
    assert 0 < sum(loaded) < 2000


def bombs() -> dict[str, str]:
    """JSON of a mebibyte that becomes many objects."""
    room = 2**20 - 4096
    return {
        "objects": "[" + "{}," * (room // 3) + "0]",
        "texts": "[" + '"ab",' * (room // 5) + "0]",
        "numbers": "[" + "300," * (room // 4) + "0]",
        "pairs": "{" + ",".join(f'"{n}":{{}}' for n in range(room // 12)) + "}",
        "nested": "[" * room,
        "wide": json.dumps("\U0001f600" + "a" * (room - 20), ensure_ascii=False),
    }


@pytest.mark.parametrize("case", bombs())
def test_json_that_grows(case: str, wholes: dict[str, Path], tmp_path: Path) -> None:
    """Headers and manifests are read whole, up to a mebibyte: what is made of them is bounded by count."""
    text = bombs()[case]
    files = {tmp_path / "a.safetensors": framed(text)}
    files[tmp_path / "b.safetensors"] = framed(json.dumps({"__metadata__": {"edgedd": text}}, ensure_ascii=False))
    manifest = tmp_path / "bundle" / MANIFEST
    manifest.parent.mkdir()
    files[manifest] = text.encode()
    for path, content in files.items():
        path.write_bytes(content)
        kind, place = ("bundle", manifest.parent) if path == manifest else ("set", path)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with pytest.raises(EdgeddError, match=path.name):
            READERS[kind](place)
        taken = tracemalloc.get_traced_memory()[1] - before
        assert taken <= MOST_OF_JSON, f"{taken} bytes to read {len(content)}"


def test_values_are_of_every_json_type() -> None:
    assert {type(value) for value in VALUES} == {type(None), bool, int, float, str, list, dict}
