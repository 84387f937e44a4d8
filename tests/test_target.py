"""Every shipped target loads; every malformed one is refused in one line."""

from pathlib import Path

import pytest

from edgedd.errors import TargetError
from edgedd.target import KINDS, load_target, targets

FOLDER = Path(__file__).parent.parent / "targets"


def test_the_folder_is_what_is_listed() -> None:
    assert targets() == tuple(sorted(path.stem for path in FOLDER.glob("*.toml"))) and targets()


@pytest.mark.parametrize("name", targets())
def test_every_target_loads_and_states_its_sources(name: str) -> None:
    target = load_target(name)
    assert target == load_target(FOLDER / f"{name}.toml") and target.name == name
    figures = {"process_ram_bytes", "storage_bytes", "cores", "effective_gflops", "runtime_floor_bytes"}
    assert set(target.sources) == figures
    assert all(source.kind in KINDS and source.text for source in target.sources.values())


def test_the_zero_2_w_has_the_figures_of_the_survey() -> None:
    target = load_target("raspberry-pi-zero-2w")
    assert (target.process_ram_bytes, target.runtime_floor_bytes, target.cores) == (160_000_000, 44_000_000, 4)
    assert target.train and target.isa == "aarch64" and target.onnxruntime_ceiling == ""


VALID = (FOLDER / "raspberry-pi-zero-2w.toml").read_text()
MISTAKES = {
    "unknown key": ("train = true", "train = true\nspeed = 3", "unknown key 'speed'"),
    "missing key": ("train = true", "", "the profile lacks train"),
    "unknown figure": ("[figures.cores]", "[figures.core]", "figures has the unknown key 'core'"),
    "missing kind": ('kind = "published"', "", "figures.cores lacks kind"),
    "negative": ("value = 4\n", "value = -4\n", "figures.cores value=-4, wanted a whole number above 0"),
    "zero": ("value = 2.0", "value = 0", "figures.effective_gflops value=0, wanted a number above 0"),
    "infinite": ("value = 2.0", "value = inf", "value=inf"),
    "huge": ("value = 4\n", f"value = 1{'0' * 400}\n", "wanted a whole number"),
    "fraction": ("value = 4\n", "value = 4.5\n", "value=4.5, wanted a whole number"),
    "true": ("value = 4\n", "value = true\n", "value=True"),
    "kind": ('kind = "published"', 'kind = "guessed"', "kind='guessed', wanted one of measured, published, estimated"),
    "isa": ('isa = "aarch64"', 'isa = "z80"', "isa='z80', wanted one of aarch64"),
    "ceiling": ('ceiling = ""', 'ceiling = "new"', "onnxruntime_ceiling='new'"),
    "train": ("train = true", 'train = "yes"', "train='yes', wanted true or false"),
    "floor": ("value = 160_000_000", "value = 40_000_000", "leaves nothing of process_ram_bytes"),
    "twice": ("train = true", "train = true\ntrain = true", "is not TOML"),
    "no TOML": ("train = true", "{", "is not TOML"),
    "large": ("train = true", "#" * 70_000, "larger than 65536 bytes"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_malformed_profile_is_refused(case: str, tmp_path: Path) -> None:
    old, new, wanted = MISTAKES[case]
    path = tmp_path / "board.toml"
    path.write_text(VALID.replace(old, new, 1))
    assert path.read_text() != VALID
    with pytest.raises(TargetError) as caught:
        load_target(path)
    assert wanted in str(caught.value) and str(caught.value).startswith(str(path))


def test_an_unknown_name_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        TargetError, match=r"unknown target 'pi-zero-2w', wanted one of: .*did you mean raspberry-pi-zero-2w\?"
    ):
        load_target("pi-zero-2w")
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(TargetError, match="cannot read"):
            load_target(path)
    (tmp_path / "My Board.toml").write_text(VALID)
    with pytest.raises(TargetError, match="its name is 'My Board'"):
        load_target(tmp_path / "My Board.toml")
