"""A host's answer: read strictly, bounded, and never an exception, whatever it is."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest
from answers import answer, bare, key_of, text
from hypothesis import given, settings
from hypothesis import strategies as st

from privnet.deploy.preflight import OLDEST
from privnet.deploy.state import DISKS, HostState, Unknown, parse_snapshot
from privnet.diagnostics import visible

CAPTURED = Path(__file__).parent / "captured"


def state(sections: dict[str, list[str]]) -> HostState:
    found = parse_snapshot(text(sections))
    assert isinstance(found, HostState), found
    return found


def test_what_is_planned_is_read(planned: Any) -> None:
    plan = planned(shop=["h1", "h2"], blog=["h1", "h3"]).hosts["h1"]
    found = state(answer(plan))
    assert found.root and found.systemd and found.kernel_wireguard
    assert found.public_key == found.config_key == key_of("h1")
    assert found.mesh is not None and set(found.mesh.peers) == {key_of("h2"), key_of("h3")}
    assert found.guard is not None and found.guard.intact and found.guard.heard
    assert found.guard.speakers == set(plan.guard.speakers)
    assert found.guard.bindings == set(plan.guard.bindings)
    assert {name for name in found.links if name.startswith("pnx")} == {o.network.vxlan for o in plan.overlays}
    assert all(names.serves for names in found.names.values())


def test_a_real_hosts_answer() -> None:
    """`lab-1` of `inventory/lab`, as it answered over SSH after its second run."""
    found = parse_snapshot((CAPTURED / "lab-1.txt").read_text().splitlines())
    assert isinstance(found, HostState), found
    assert found.root and found.systemd and found.guard is not None and found.guard.intact and found.guard.heard
    assert found.enabled["wg-quick@privnet.service"] == "enabled"
    assert found.mesh is not None and len(found.mesh.peers) == 2
    assert found.addresses["privnet"] == {"100.64.0.1/16"}
    assert found.own_routes == {"privnet": {"100.64.0.0/16 proto kernel scope link src 100.64.0.1 mtu lock 1440"}}
    assert set(found.fdb) == set(found.neighbours) == {"pnx4096", "pnx4097"}
    assert all(link.is_port() for name, link in found.links.items() if name in found.fdb)
    guard = found.units["privnet-guard.service"]
    assert (guard.active, guard.sub) == ("active", "running")
    assert len(found.namespaces) == 5 and None not in found.namespaces.values()
    assert found.flooded == {} and found.masked == frozenset() and not found.odd_names
    # What is judged before anything is changed.
    assert re.fullmatch("[0-9a-f]{32}", found.machine)
    assert found.clock > 1_700_000_000 and int(found.systemd_version) >= 252
    assert {path: disk.free > 0 and disk.files > 0 for path, disk in found.disks.items()} == dict.fromkeys(DISKS, True)
    assert found.listening == {4789, 51820}
    assert ("default", "eth0") in found.routes and ("192.0.2.0/24", "eth0") in found.routes
    assert set(found.packages) >= set(OLDEST)
    assert found.applied is not None and found.armed is None and found.generation.endswith(" done")


def test_a_program_that_failed_makes_all_unknown(planned: Any) -> None:
    sections = answer(planned(shop=["h1", "h2"]).hosts["h1"])
    sections["failed"] = ["find 1", "awk 127", "find 1"]
    assert parse_snapshot(text(sections)) == Unknown(
        "it cannot say what there is: `awk` (status 127), `find` (status 1) failed there, and is needed to look. See "
        "why, as root on the host (`type PROGRAM`, `df /`), put it right, then run again"
    )
    # Who is not root is told that; nothing works for them.
    sections["system"][0] = "user 1000"
    assert not state(sections).root


def test_a_bare_machine_is_no_trouble() -> None:
    found = state(bare())
    assert found.public_key is None and found.mesh is None and found.guard is None
    assert found.packages == {"iproute2": "6.1.0-3"}, "a package that is only spoken of is not there"


@pytest.mark.parametrize("letters, there", [("ii", True), ("hi", True), ("rc", False), ("un", False), ("iU", False)])
def test_a_held_package_is_there(letters: str, there: bool) -> None:
    assert ("nftables" in state(bare() | {"packages": [f"{letters}  nftables 1.0"]}).packages) is there


# --- hostile answers --------------------------------------------------------------------------------------


def _with(section: str, *lines: str) -> list[str]:
    return text(bare() | {section: [*lines]})


DEEP = "[" * 100_000
HOSTILE = {
    "nothing": [],
    "not a snapshot": ["hello"],
    "binary": ["\x00\xff\udc80" * 1000],
    "a part is missing": text({k: v for k, v in bare().items() if k != "mesh"}),
    "the end is missing": text({k: v for k, v in bare().items() if k != "end"}),
    "an unknown part": text(bare() | {"more": ["x"]}),
    "a part twice": text(bare()) + text(bare()),
    "another order": text(dict(reversed(bare().items()))),
    "broken JSON": _with("links", '[{"ifname":'),
    "JSON of another kind": _with("links", '["pnb1"]'),
    "a link without a name": _with("links", '[{"ifindex": 1}]'),
    "a number that is none": _with("links", '[{"ifname": "x", "ifindex": "x", "flags": [], "mtu": 1}]'),
    "a number without end": _with("links", '[{"ifname": "x", "ifindex": 1e999, "flags": [], "mtu": 1}]'),
    "a number of a million digits": _with("links", f'[{{"ifname": "x", "ifindex": {"9" * 10**6}, "flags": []}}]'),
    "JSON without end": _with("links", DEEP),
    "settings that are no settings": _with(
        "links", '[{"ifname": "x", "ifindex": 1, "flags": [], "mtu": 1, "linkinfo": {"info_data": 7}}]'
    ),
    "a file above": _with("files", "f 644 0:0 /etc/privnet/../shadow\t"),
    "a file by a relative name": _with("files", "f 644 0:0 etc/passwd\t"),
    "a file of no kind": _with("files", "what is this"),
    "a peer that is no key": _with(
        "mesh", f"interface {key_of('h1')} 51820 off", "peer $(reboot) 1.2.3.4:5 1.2.3.4/32 off no"
    ),
    "a peer with too little": _with("mesh", f"interface {key_of('h1')} 51820 off", "peer"),
    "a port that is none": _with("mesh", f"interface {key_of('h1')} port off"),
    "a guard of nothing": _with("guard", '{"nftables": 5}'),
    "a namespace of nothing": _with("namespaces", "pn-1\t[5]"),
    "an address alone": _with("addresses", "privnet"),
    "a line without end": _with("fdb", "x" * 10_001),
    "a device with a name of no device": _with("links", '[{"ifname": "a b", "ifindex": 1, "flags": [], "mtu": 1}]'),
    "a unit with a name of no unit": _with("units", "Id=a b", "LoadState=loaded", "ActiveState=x", "SubState=x"),
    "a number in quotes": _with("links", '[{"ifname": "x", "ifindex": "1", "flags": [], "mtu": 1}]'),
}


TOLD = ("user", "machine", "time", "release", "os", "disk /etc", "disk /run", "disk /var/lib")


@pytest.mark.parametrize("what", TOLD)
def test_a_host_that_does_not_tell_of_itself_is_unknown(what: str) -> None:
    """Nothing would be wrong with its clock, its disks and its versions: they would not be looked at."""
    sections = bare()
    sections["system"] = [line for line in sections["system"] if not line.startswith(f"{what} ")]
    assert parse_snapshot(text(sections)) == Unknown(f"its answer is not complete: {what.removeprefix('disk ')}")


def test_a_clock_that_is_none_is_unknown() -> None:
    sections = bare()
    sections["system"] = ["time" if line.startswith("time ") else line for line in sections["system"]]
    assert isinstance(parse_snapshot(text(sections)), Unknown)


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_snapshot_is_unknown(what: str) -> None:
    found = parse_snapshot(HOSTILE[what])
    assert isinstance(found, Unknown)
    assert visible(found.why) == found.why and len(found.why) < 300


NINES = "9" * 400
IMPOSSIBLE = {
    f"time {NINES}": "time",
    "time 253402300800": "time",
    "time -1": "time",
    "time 1_0": "time",
    "time \u0663": "time",
    f"release {'9' * 5000}": "version of systemd",
    "release 25 2": None,
    "os debian": "release",
    "os debian 12 13": "release",
    f"os debian {'1' * 41}": "release",
    "machine x": "machine-id",
    "listens 65536": "UDP port",
    "listens *": "UDP port",
    f"disk /etc {NINES} 4096 1": "number of free blocks",
    f"disk /run 1 {NINES} 1": "size of blocks",
    f"disk /run 1 1 {NINES}": "number of free files",
    "disk /home 1 1 1": "directory of a file system",
    "route $(reboot) eth0": "destination of a route",
    "route 10.0.0.0/8 sixteen-letters-": "device of a route",
    "route 10.0.0.0/8 tun0 $(reboot)": "table of routes",
}


@pytest.mark.parametrize("line", IMPOSSIBLE, ids=lambda line: ascii(line[:24]))
def test_what_cannot_be_is_said_and_not_believed(line: str) -> None:
    sections = bare()
    sections["system"] = [*sections["system"], line]
    found, what = parse_snapshot(text(sections)), IMPOSSIBLE[line]
    if what is None:  # not a line that is looked at
        assert isinstance(found, HostState)
        return
    assert isinstance(found, Unknown)
    assert found.why.startswith(f'it says a {what} that cannot be: "')
    assert visible(found.why) == found.why and len(found.why) < 120


def test_the_longest_that_can_be_is_read() -> None:
    sections = bare()
    sections["system"] += ["time 253402300799", "release 252.22-1~deb12u1", "listens 65535", "route blackhole eth0"]
    sections["system"] += [f"disk /etc {2**64 - 1} 4096 {2**64 - 1}", f"machine {'f' * 32}"]
    sections["packages"] = [f"ii  nftables {'1.' * 39}1"]
    found = state(sections)
    assert (found.clock, found.systemd_version, found.machine) == (253402300799, "252.22-1~deb12u1", "f" * 32)
    assert found.listening == {65535} and found.disks["/etc"].files == 2**64 - 1
    assert len(found.packages["nftables"]) == 79
    too_long = parse_snapshot(text(sections | {"packages": [f"ii  nftables {'9' * 5000}"]}))
    assert too_long == Unknown('it says a version of a package that cannot be: "' + "9" * 40 + '…"')


def test_routes_and_rules_of_other_programs_are_read() -> None:
    sections = bare()
    sections["system"] += ["route default eth0", "route 100.64.7.9 tun0 52", "route 100.64.0.0/10 throw 52"]
    chain = ("chain INPUT {", "type filter hook input priority 0;", "}")
    sections["firewall"] = ["bridged yes", "table ip filter {", *chain, "}"]
    found = state(sections)
    assert found.routes == (("default", "eth0"),)
    assert found.earlier == (("100.64.7.9", "tun0", "52"), ("100.64.0.0/10", "throw", "52"))
    assert found.firewall.bridged
    assert [(table.family, table.name) for table in found.firewall.tables] == [("ip", "filter")]
    assert not state(bare() | {"firewall": ["bridged no"]}).firewall.bridged


def test_ten_megabytes_of_anything_are_read_in_a_moment() -> None:
    lines = text(bare())
    place = lines.index("##privnet fdb") + 1
    rubbish = "\x1b]0;owned\x07" * 10
    begun = time.process_time()
    found = parse_snapshot([*lines[:place], *[rubbish] * 100_000, *lines[place:]])
    assert isinstance(found, HostState) and found.fdb == {}
    assert time.process_time() - begun < 5
    assert isinstance(parse_snapshot("x" * 2**20 for _ in range(100)), Unknown)


@pytest.mark.parametrize("key", ["", "x", "A" * 43 + "=\x1b", "A" * 42 + "B=", "A" * 44])
def test_a_wireguard_key_that_is_none_gets_nowhere(key: str) -> None:
    assert state(bare() | {"key": [f"key {key}"]}).public_key is None


@pytest.mark.parametrize(
    "element",
    [
        {"concat": ["100.64.0.2", 4096, 0x02700AF000FF, 0x0AF00001]},
        {"concat": ["100.64.0.2", 0x100000, 0x0AF00001, 0x0AF00002]},
        {"concat": ["100.64.0.2", 0x100001, 0x0AF00001, 0x0AF00001]},
        {"concat": ["100.64.0.2", 0x100000, -1, -1]},
        {"concat": ["100.64.0.2; reboot", 0x100000, 0x0AF00001, 0x0AF00001]},
        {"concat": ["100.64.0.2", 4096]},
        {"elem": {"val": {"concat": ["100.64.0.2", 0x100000, 0x0AF00001, 0x0AF00001]}, "comment": "x"}},
    ],
)
def test_an_element_that_privnet_would_not_write_makes_the_guard_not_intact(planned: Any, element: Any) -> None:
    sections = answer(planned(shop=["h1", "h2"]).hosts["h1"])
    assert state(sections).guard.intact  # type: ignore[union-attr]
    sections["guard"][4] = json.dumps({"nftables": [{"set": {"name": "speakers", "elem": [element]}}]})
    guard = state(sections).guard
    assert guard is not None and not guard.intact and guard.speakers == frozenset()


def test_an_answer_cut_anywhere_is_unknown(planned: Any) -> None:
    whole = "\n".join(text(answer(planned(shop=["h1", "h2"]).hosts["h1"])))
    for cut in range(0, len(whole) - len("##privnet end"), 211):
        assert isinstance(parse_snapshot(whole[:cut].splitlines()), Unknown), cut


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(), junk=st.text(max_size=30), times=st.integers(1, 8))
def test_an_answer_spoilt_anywhere_is_never_an_exception(planned: Any, seed: int, junk: str, times: int) -> None:
    chance = random.Random(seed)
    lines = text(answer(planned(shop=["h1", "h2"]).hosts["h1"]))
    for _ in range(times):
        place = chance.randrange(len(lines))
        line = lines[place]
        cut = chance.randrange(len(line) + 1)
        lines[place] = line[:cut] + junk + line[cut + chance.randrange(4) :]
    assert isinstance(parse_snapshot(lines), HostState | Unknown)
