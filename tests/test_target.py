"""Every shipped target loads and says where its figures come from; every malformed one is refused in one line."""

import math
import re
from pathlib import Path

import pytest

from edgedd.errors import TargetError
from edgedd.planning.target import KINDS, Target, load_target, targets

FOLDER = Path(__file__).parent.parent / "targets"
SHIPPED = tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))
SHARE_OF_MATRIX_PRODUCT = 0.35


pytestmark = pytest.mark.usefixtures("own")


def shipped() -> list[Target]:
    return [load_target(FOLDER / f"{name}.toml") for name in SHIPPED]


def test_the_folder_is_what_is_listed() -> None:
    assert targets() == SHIPPED
    assert len(SHIPPED) >= 14


@pytest.mark.parametrize("name", SHIPPED)
def test_every_target_loads_and_states_its_sources(name: str) -> None:
    target = load_target(name)
    assert target == load_target(FOLDER / f"{name}.toml")
    assert target.name == name
    figures = {"process_ram_bytes", "storage_bytes", "cores", "effective_gflops", "runtime_floor_bytes"}
    assert set(target.sources) == figures
    for source in target.sources.values():
        assert source.kind in KINDS
        assert 20 <= len(source.text) <= 200, source.text
    assert len(target.note) <= 200
    assert target.train == (not target.why_not_train)
    assert (target.runtime_floor_bytes < target.process_ram_bytes) == target.train


def test_what_is_a_boards_own_is_not_copied_from_another() -> None:
    for what in ("process_ram_bytes", "effective_gflops"):
        texts = [target.sources[what].text for target in shipped()]
        assert len(set(texts)) == len(texts), what
    for values in (
        [target.title for target in shipped()],
        [target.effective_gflops for target in shipped()],
    ):
        assert len(set(values)) == len(values), values


@pytest.mark.parametrize("name", SHIPPED)
def test_every_rate_is_what_its_source_computes(name: str) -> None:
    target = load_target(name)
    text = target.sources["effective_gflops"].text
    assert text.startswith(f"{100 * SHARE_OF_MATRIX_PRODUCT:.0f} % ")
    if linpack := re.search(r"of 2 x ([\d.]+) GFLOP/s, Linpack", text):
        product = 2 * float(linpack[1])
    else:
        found = re.search(r" of (\d+) % \(.*\) of the float32 peak, (\d+) cores? x (\d+) FLOP x ([\d.]+) GHz", text)
        assert found is not None, text
        assert int(found[2]) == target.cores
        product = math.prod(map(float, found.groups())) / 100
    assert target.effective_gflops == pytest.approx(SHARE_OF_MATRIX_PRODUCT * product, rel=0.06)


VALID = (FOLDER / "raspberry-pi-zero-2w.toml").read_text()
NO_TRAINING = 'train = false\nwhy_not_train = "too small"'
MISTAKES = {
    "unknown key": ("train = true", "train = true\nspeed = 3", "unknown key 'speed'"),
    "missing key": ("train = true", "", "the profile lacks train"),
    "unknown figure": ("[figures.cores]", "[figures.core]", "figures has the unknown key 'core'"),
    "missing kind": ('kind = "published"', "", "figures.cores lacks kind"),
    "negative": ("value = 4\n", "value = -4\n", "figures.cores value=-4, wanted a whole number above 0"),
    "zero": ("value = 3.4", "value = 0", "figures.effective_gflops value=0, wanted a number above 0"),
    "infinite": ("value = 3.4", "value = inf", "value=inf"),
    "huge": ("value = 4\n", f"value = 1{'0' * 400}\n", "wanted a whole number"),
    "fraction": ("value = 4\n", "value = 4.5\n", "value=4.5, wanted a whole number"),
    "true": ("value = 4\n", "value = true\n", "value=True"),
    "kind": ('kind = "published"', 'kind = "guessed"', "kind='guessed', wanted one of measured, published, estimated"),
    "source": ('source = "four', 'source = """\nfour\n"""#', "source='four\\n', wanted one line of text"),
    "title": ('title = "Raspberry Pi Zero 2 W"', 'title = " "', "title=' ', wanted one line of text"),
    "note": ("train = true", 'train = true\nnote = "a\\nb"', "note='a\\nb', wanted one line of text"),
    "isa": ('isa = "aarch64"', 'isa = "z80"', "isa='z80', wanted one of aarch64"),
    "isa type": ('isa = "aarch64"', "isa = [1]", "isa=[1], wanted one of aarch64"),
    "ceiling": ('ceiling = ""', 'ceiling = "new"', "onnxruntime_ceiling='new'"),
    "ceiling type": ('ceiling = ""', "ceiling = 1.23", "onnxruntime_ceiling=1.23, wanted like"),
    "train": ("train = true", 'train = "yes"', "train='yes', wanted true or false"),
    "no reason": ("train = true", "train = false", "the profile lacks why_not_train, wanted the reason"),
    "needless reason": ("train = true", 'train = true\nwhy_not_train = "?"', "why_not_train beside train = true"),
    "floor": ("value = 160_000_000", "value = 40_000_000", "leaves nothing of process_ram_bytes"),
    "twice": ("train = true", "train = true\ntrain = true", "is not TOML"),
    "no TOML": ("train = true", "{", "is not TOML"),
    "large": ("train = true", "#" * 70_000, "larger than 16384 bytes"),
    "name": ("", "", "its name is 'My Board'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_malformed_profile_is_refused(case: str, tmp_path: Path) -> None:
    old, new, wanted = MISTAKES[case]
    assert old in VALID
    path = tmp_path / ("My Board.toml" if case == "name" else "board.toml")
    path.write_text(VALID.replace(old, new, 1))
    with pytest.raises(TargetError) as caught:
        load_target(path)
    assert wanted in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_an_optional_line_is_read(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(VALID.replace("train = true", f'{NO_TRAINING}\nnote = "a note"', 1))
    target = load_target(path)
    assert (target.train, target.why_not_train, target.note) == (False, "too small", "a note")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pi-zero-2w", r"unknown target 'pi-zero-2w', wanted one of: .*did you mean raspberry-pi-zero-2w\?"),
        ("this-machin", r"did you mean this-machine\?"),
        ("none.toml", "cannot read none.toml: No such file"),
        ("./", "cannot read"),
    ],
)
def test_what_is_not_there_is_refused(name: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        load_target(name)


def test_a_profile_of_ones_own_wins(own: Path) -> None:
    (own / "raspberry-pi-zero-2w.toml").write_text(VALID.replace("value = 3.4", "value = 1.75"))
    (own / "workbench.toml").write_text(VALID)
    assert load_target("raspberry-pi-zero-2w").effective_gflops == 1.75
    assert load_target("workbench").name == "workbench"
    assert targets() == tuple(sorted({*SHIPPED, "workbench"}))


@pytest.mark.parametrize("value", ["", "relative/config"])
def test_without_a_usable_config_folder_it_lies_in_the_home_folder(
    value: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own / "workbench.toml").write_text(VALID)
    (tmp_path / "config").rename(tmp_path / ".config")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", value)
    assert load_target("workbench").cores == 4
