"""`this-machine`: its figures are sane, its control group is heeded, other machines are refused."""

import re
from pathlib import Path

import pytest

from edgedd.errors import TargetError
from edgedd.planning import this_machine
from edgedd.planning.target import KINDS, load_target

pytestmark = pytest.mark.usefixtures("own")


def test_this_machine_is_sane() -> None:
    target = load_target("this-machine")
    total = int(re.findall(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[0]) * 1024
    assert 0 < target.process_ram_bytes < total
    assert 0 < target.effective_gflops < 10_000
    assert target.cores >= 1
    assert target.name == "this-machine"
    assert target.train == (not target.why_not_train)
    assert target.sources.keys() == load_target("raspberry-pi-zero-2w").sources.keys()
    assert {source.kind for source in target.sources.values()} <= set(KINDS)


def test_a_profile_of_ones_own_wins(own: Path) -> None:
    profile = Path(__file__).parent.parent / "targets" / "raspberry-pi-zero-2w.toml"
    (own / "this-machine.toml").write_bytes(profile.read_bytes())
    assert load_target("this-machine").title == "Raspberry Pi Zero 2 W"


HALF = 500_000 * 1024
LIMITS = {
    "no control groups": ("", {}, HALF),
    "v2": ("0::/a/b", {"a/b/memory.max": "1000", "a/memory.max": "max"}, 1000),
    "v2, the group around it": ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "2000"}, 2000),
    "v2, seen from inside a container": ("0::/", {"memory.max": "3000"}, 3000),
    "v2, no limit": ("0::/a", {"a/memory.max": "max"}, HALF),
    "v2, more than there is": ("0::/a", {"a/memory.max": str(HALF * 9)}, HALF),
    "v1": ("4:cpu,memory:/x\n0::/", {"memory/x/memory.limit_in_bytes": "4000"}, 4000),
    "v1, no limit": ("4:memory:/x", {"memory/x/memory.limit_in_bytes": "9223372036854771712"}, HALF),
    "v1, a path of the host": ("4:memory:/docker/1", {"memory/memory.limit_in_bytes": "5000"}, 5000),
    "another controller": ("3:cpu:/x", {"memory/x/memory.limit_in_bytes": "6000"}, HALF),
}


@pytest.mark.parametrize("case", LIMITS)
def test_this_machine_keeps_to_its_control_group(case: str, tmp_path: Path) -> None:
    text, files, wanted = LIMITS[case]
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 4000000 kB\nMemAvailable:    1000000 kB\n")
    (proc / "self/cgroup").write_text(text + "\n")
    for name, content in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(content + "\n")
    found, source = this_machine._process_ram(proc, groups)
    assert found == wanted
    assert ("control group" in source) == (wanted != HALF)


@pytest.mark.parametrize(
    ("machine", "pointer", "isa"),
    [
        ("aarch64", 2**63, "aarch64"),
        ("aarch64", 2**31, "armv7l"),
        ("AMD64", 2**63, "x86_64"),
        ("armv8l", 2**31, "armv7l"),
    ],
)
def test_this_machine_names_its_instruction_set(
    machine: str, pointer: int, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("sys.maxsize", pointer - 1)
    assert this_machine._isa() == isa


def test_a_machine_that_no_profile_names_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="does not tell MemAvailable, wanted Linux"):
        this_machine._process_ram(tmp_path)
    monkeypatch.setattr("platform.machine", lambda: "s390x")
    with pytest.raises(TargetError, match="this machine is 's390x', wanted one of aarch64"):
        load_target("this-machine")
