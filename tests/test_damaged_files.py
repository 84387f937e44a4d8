"""Whatever happens to a file: it loads, or one line names it; no other exception, and little memory."""

import hashlib
import json
import resource
import shutil
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import READERS, SPECS, VALUES, checkpoint_of, damage, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_hostile_set_files import framed
from tiny_data import arrays, saved

from edgedd.bundles.files import ARCHIVE, MANIFEST, MAX_MANIFEST, PREDICT, TRAIN_STEP
from edgedd.bundles.verification import verify
from edgedd.distillation.expert_files import ExpertFolder, ExpertSettings
from edgedd.errors import LONGEST_MESSAGE, EdgeddError
from edgedd.exporting import export
from edgedd.storage.compact_file import DICTIONARY, MAGIC
from edgedd.storage.set_file import MAX_HEADER
from edgedd.synthetic_set import SyntheticSet
from edgedd.weights import save_weights

BOARD = Path(__file__).parent.parent / "targets" / "raspberry-pi-zero-2w.toml"
MOST = 5 * 2**20  # what hostile text takes besides four times the file: of JSON, TOML or a zip's list
MOST_RESIDENT = 32 * 2**20
SEEDS = st.integers(0, 2**32 - 1)
QUICK = settings(
    max_examples=25,
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
    found["compact"] = folder / "compact.safetensors"
    synthetic.packed().save(found["compact"])
    for kind in ("bundle", "archive"):
        export(synthetic, found[kind], student="convnet1-w4", target="raspberry-pi-zero-2w")
    found |= {"target": BOARD, "data": saved(folder), "packed data": folder / "packed.npz", "images": folder / "images"}
    found |= {"weights": folder / "weights", "checkpoint": folder / "set.checkpoint", "experts": folder / "experts"}
    np.savez_compressed(found["packed data"], **arrays())
    _write_images(found["images"])
    save_weights(found["weights"], {name: np.ones(spec.shape, np.float32) for name, spec in SPECS.items()})
    checkpoint_of(found["checkpoint"]).save({"iteration": 3, "factors": {"core": torch.ones(20)}, "method": [1, "a"]})
    experts = ExpertFolder.create(found["experts"], ExpertSettings("0" * 16, "convnet1-w4", 30, 2))
    for number, count in ((0, 3), (1, 3), (2, 2)):
        experts.keep(number, [torch.full((30,), float(epoch)) for epoch in range(count)])
    for kind, path in found.items():
        READERS[kind](path)  # what is imported then is not counted later
    return found


def _write_images(folder: Path) -> None:
    """Pictures in folders of their classes, in several formats."""
    Image.init()  # Pillow looks at all its formats for a file that it does not know
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3)).astype(np.uint8)
    for number, ending in enumerate(("png", "jpg", "bmp", "gif", "png", "tiff")):
        path = folder / f"class {number % 2}" / f"{number}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).save(path)


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
def test_damage_is_one_line_two_thousand_times(kind: str, wholes: dict[str, Path], tmp_path: Path) -> None:
    """Resident memory says what tracemalloc does not see: what libraries take that are not Python's."""
    copy, before = tmp_path / wholes[kind].name, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loaded = [read(kind, damage(kind, wholes[kind], copy, seed)) for seed in range(10**6, 10**6 + 2000)]
    print(f"{kind}: {sum(loaded)} of {len(loaded)} load")
    assert sum(loaded) < 1200 and (sum(loaded) or kind == "checkpoint")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before <= MOST_RESIDENT // 1024


def bombs() -> dict[str, str]:
    """JSON as long as it may be, that becomes many objects or wide text."""
    room = MAX_HEADER - 4096
    return {
        "objects": "[" + "{}," * (room // 3) + "0]",
        "many in few": "[" + '{"a":{"a":[{}]}},' * 8000 + "0]",
        "pairs within": "[" + '{"a":1,"b":2,"c":3},' * 2000 + "0]",
        "texts": "[" + '"ab",' * (room // 5) + "0]",
        "numbers": "[" + "300," * (room // 4) + "0]",
        "pairs": "{" + ",".join(f'"{n}":{{}}' for n in range(room // 12)) + "}",
        "nested": "[" * room,
        "wide": json.dumps("\U0001f600" + "a" * (room - 20), ensure_ascii=False),
    }


@pytest.mark.parametrize("case", bombs())
def test_json_that_grows(case: str, wholes: dict[str, Path], tmp_path: Path) -> None:
    """Headers and manifests are read whole, up to 256 KiB: what is made of them is bounded by count."""
    assert MAX_HEADER == MAX_MANIFEST == 2**18
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
        assert taken <= 4 * len(content) + MOST, f"{taken} bytes to read {len(content)}"


def test_values_are_of_every_json_type() -> None:
    assert {type(value) for value in VALUES} == {type(None), bool, int, float, str, list, dict}


def listing(count: int) -> bytes:
    """A zip of many entries without a byte: each takes many times its place in the list as an object."""
    names = [f"{number:x}".encode() for number in range(count)]
    entries = [struct.pack("<4s6H3L5H2L", b"PK\1\2", *[0] * 9, len(name), *[0] * 6) + name for name in names]
    size = sum(map(len, entries))
    return b"".join(entries) + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count % 65536, count % 65536, size, 0, 0)


def array(shape: tuple[int, ...], dtype: str, data: bytes = b"") -> bytes:
    """An .npy file that says so."""
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + data


def with_array(name: str, content: bytes) -> Callable[[Path], bytes]:
    """The whole .npz with one array replaced or added."""

    def make(whole: Path) -> bytes:
        out = BytesIO()
        with zipfile.ZipFile(whole) as stored, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
            for each in {*stored.namelist(), f"{name}.npy"}:
                packed.writestr(each, content if each == f"{name}.npy" else stored.read(each))
        return out.getvalue()

    return make


def tensors(count: int) -> bytes:
    """Many tensors of nothing."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return framed(json.dumps({f"{number:x}": entry for number in range(count)}, separators=(",", ":")))


def deflated(front: bytes) -> bytes:
    """A compact set with that in front."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    return MAGIC + squeezer.compress(front) + squeezer.flush()


HOSTILE: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "a zip's list": ("data", lambda _: listing(60_000)),
    "names of nothing": ("data", with_array("classes", array((10**9,), "<U0"))),
    "more than is there": ("data", with_array("train_images", array((10**6, 32, 32, 3), "|u1", bytes(100)))),
    "sides below zero": ("data", with_array("train_images", array((-(10**6), -(10**6), 3), "|u1", bytes(100)))),
    "a billion images of nothing": ("data", with_array("train_images", array((10**9, 0, 0), "|u1"))),
    "objects": ("data", with_array("train_labels", array((12,), "|O", b"cos\nsystem\n(S'true'\ntR."))),
    "metadata that inflates": (
        "compact",
        lambda _: deflated(json.dumps("\U0001f600" + "a" * 10**6).encode() + bytes(9)),
    ),
    "wide metadata": (
        "compact",
        lambda _: deflated(b'["' + "\U0001f600".encode() + b"a" * (2**18 - 9) + b'"]' + bytes(9)),
    ),
    "tensors of nothing": ("weights", lambda _: tensors(3000)),
    "a header as long as may be": ("weights", lambda _: framed("[" * 4096)),
    "dots": ("target", lambda _: b"title" + b".a" * 8000 + b" = 1\n"),
    "dots in a value": ("target", lambda path: path.read_bytes() + b"note" + b".a" * 5000 + b" = 1\n"),
    "dots as many as may be": ("target", lambda _: b"title" + b".a" * 512 + b" = 1\n"),
    "tables": ("target", lambda _: b"title = [" + b"{}," * 5000 + b"]\n"),
    "brackets": ("target", lambda _: b"title = " + b"[" * 8000),
    "a checkpoint of torch alone": ("checkpoint", lambda path: path.read_bytes()[52:]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_would_grow_is_refused_in_one_line(case: str, wholes: dict[str, Path], tmp_path: Path) -> None:
    kind, make = HOSTILE[case]
    path = tmp_path / wholes[kind].name
    content = make(wholes[kind])
    path.write_bytes(content)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    with pytest.raises(EdgeddError, match=path.name) as caught:
        READERS[kind](path)
    taken = tracemalloc.get_traced_memory()[1] - before
    assert taken <= 4 * len(content) + MOST, f"{taken} bytes to read {len(content)}"
    assert str(caught.value).isprintable() and len(str(caught.value)) <= LONGEST_MESSAGE


@pytest.mark.parametrize("name", [TRAIN_STEP, PREDICT])
def test_a_graph_that_the_manifest_vouches_for(
    name: str, wholes: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """onnxruntime refuses it, edgedd says so in one line, and neither prints."""
    shutil.copytree(wholes["bundle"], tmp_path / "bundle")
    path, manifest = tmp_path / "bundle" / name, tmp_path / "bundle" / MANIFEST
    content, values = path.read_bytes(), json.loads(manifest.read_text())
    middle = content.index(b"Conv")
    for altered in (content[:middle], content[:middle] + b"\xc2onv" + content[middle + 4 :], b""):
        path.write_bytes(altered)
        values["files"][name] = {"bytes": len(altered), "sha256": hashlib.sha256(altered).hexdigest()}
        manifest.write_text(json.dumps(values))
        with pytest.raises(EdgeddError, match=name):
            verify(tmp_path / "bundle")
    assert capfd.readouterr() == ("", "")


def test_a_picture_that_asks_for_a_gigabyte(wholes: dict[str, Path], tmp_path: Path) -> None:
    """Python sets aside what an open file is asked for, before it is seen how much there is."""
    shutil.copytree(wholes["images"], tmp_path / "images")
    path = tmp_path / "images" / "class 0" / "0.png"
    content = path.read_bytes()
    place = content.index(b"IDAT") - 4
    path.write_bytes(content[:place] + (2**30).to_bytes(4, "big") + content[place + 4 :])
    read("images", tmp_path / "images")
