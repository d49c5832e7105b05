"""What a program that fails on a host did not say is unknown, to a run and to the audit; it is never "as planned"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from importlib import resources

import pytest
from runs import SHOP, STOREFRONT, deploy, inside, replace_once
from test_live_plan import privnet

from privnet.audit.actual import Actual, parse_dump
from privnet.audit.finding import Unanswered
from privnet.deploy.state import HostState, Unknown, parse_snapshot
from privnet.lab import Lab

# A name outside, asked of a server that is not there.
UNDERLAY = "host 192.0.2.252"

HOST = "lab-1"
BROKEN = "/run/broken"
BREAK = f"""
rm -rf {BROKEN}; mkdir {BROKEN}
printf '#!/bin/sh\\n%s\\n' "$2" > {BROKEN}/$1; chmod 755 {BROKEN}/$1
"""
WAYS = {"ends with 1": "exit 1", "is missing": "exit 127"}
ASKED = {
    "snapshot": {
        "awk", "bridge", "cat", "date", "dpkg-query", "find", "flock", "head", "id", "ip", "nft", "nsenter", "sed",
        "sha256sum", "sort", "ss", "stat", "systemctl", "tr", "wg",
    },
    "dump": {
        "awk", "bridge", "cut", "date", "find", "head", "id", "ip", "nft", "nsenter", "sed", "sha256sum", "ss", "stat",
        "systemctl", "tr", "wg",
    },
}  # fmt: skip
"""Programs whose failure must be told, so that a test which breaks nothing is noticed."""


@pytest.fixture(scope="module")
def lab(shared_fleet) -> Lab:
    return shared_fleet("lab")


def snapshot(lab: Lab, before: str = "") -> HostState | Unknown:
    """What a run gets to know of the host; ``before`` comes first in the search for programs."""
    said = lab.exec(HOST, ["sh", "-c", _program("deploy", "snapshot.sh", before)], check=False).stdout
    found = parse_snapshot(said.splitlines())
    return replace(found, clock=0, disks={}, links=_still(found.links)) if isinstance(found, HostState) else found


def dump(lab: Lab, before: str = "") -> Actual | Unanswered:
    """The same for the audit."""
    program = f"MARK=mark\n{_program('audit', 'dump.sh', before)}"
    said = lab.exec(HOST, ["sh", "-c", program], check=False).stdout
    try:
        found = parse_dump(said.encode(), "mark")
    except Unanswered as error:
        return error
    # What others of the host's link say to it comes and goes.
    ours = tuple(neighbour for neighbour in found.neighbours if neighbour.device != "eth0")
    return replace(found, clock=0, neighbours=ours, links=_still(found.links))


def _program(package: str, name: str, before: str) -> str:
    text = (resources.files(f"privnet.{package}") / name).read_text()
    assert text.count(" PATH=/usr/sbin:") == 1
    return text.replace(" PATH=/usr/sbin:", f" PATH={before}:/usr/sbin:") if before else text


def _still(links: dict) -> dict:
    """Without the timers of bridges and their ports."""
    return {
        name: replace(link, data=_without_timers(link.data), port=_without_timers(link.port))
        for name, link in links.items()
    }


def _without_timers(data: dict) -> dict:
    return {key: value for key, value in data.items() if not key.endswith(("_timer", "topology_change_detected"))}


LOOKS: dict[str, tuple[str, str, Callable[..., object]]] = {
    "snapshot": ("deploy", "snapshot.sh", snapshot),
    "dump": ("audit", "dump.sh", dump),
}


def programs(lab: Lab, package: str, name: str) -> list[str]:
    """Every word of a program by which the host finds another program, but for the shell itself."""
    words = sorted(set(re.findall("[a-z][a-z0-9-]+", _program(package, name, ""))) - {"sh"})
    which = 'for word; do for d in /usr/sbin /usr/bin; do [ ! -x $d/"$word" ] || echo "$word"; done; done'
    return sorted(set(lab.exec(HOST, ["sh", "-c", which, "which", *words]).stdout.split()))


@pytest.fixture
def broken(lab: Lab) -> Iterator[Callable[[str], None]]:
    """``broken(PROGRAM)`` puts one that fails in its place, for everybody on the host, until the test ends."""
    places: list[str] = []

    def put(program: str) -> None:
        lab.exec(HOST, ["sh", "-euc", f"{BREAK} mount --bind {BROKEN}/$1 /usr/bin/$1", "break", program, "exit 1"])
        places.append(f"/usr/bin/{program}")

    yield put
    for place in places:
        lab.exec(HOST, ["umount", place])


@pytest.mark.parametrize("program", ["mawk", "find"])
def test_a_plan_and_the_audit_name_it(lab: Lab, broken: Callable[[str], None], program: str) -> None:
    broken(program)
    name = {"mawk": "awk"}.get(program, program)
    said = privnet(lab, "plan", "--live")
    assert "2 of 3 hosts answered, 0 of them would be changed" in said
    assert f"{HOST}  would fail: it cannot say what there is: `{name}` (status 1)" in said
    said = privnet(lab, "audit", "--quick", code=1)
    assert f"the host: expected an answer, actual it cannot say what there is: `{name}` (status 1)" in said


TMP = {
    "full": "mount -t tmpfs -o size=4k,nr_inodes=3 none /tmp; touch /tmp/a /tmp/b; ! touch /tmp/c 2> /dev/null",
    "read-only": "mount -t tmpfs -o ro none /tmp",
    "elsewhere": "echo 'export TMPDIR=/srv/gone' >> /root/.bashrc",
}


@pytest.mark.parametrize("how", TMP)
def test_a_look_needs_no_directory_to_write_into(lab: Lab, how: str) -> None:
    lab.exec(HOST, ["sh", "-euc", TMP[how]])
    try:
        assert "3 of 3 hosts answered, 0 of them would be changed" in privnet(lab, "plan", "--live")
        assert "as planned" in privnet(lab, "audit", "--quick")
    finally:
        lab.exec(HOST, "sed -i '/srv.gone/d' /root/.bashrc" if how == "elsewhere" else "umount /tmp")


@pytest.fixture(scope="module")
def forwarding(lab: Lab) -> Lab:
    """The same hosts, with a forwarder that runs on the first one: somebody has asked it."""
    replace_once(lab.inventory / "fleet.yaml", "lab: true\n", "lab: true\ndns: {upstream: [192.0.2.252]}\n")
    deploy(lab)
    inside(lab, f"1.web.{STOREFRONT}", "dig", "+tries=1", "+time=1", "www.example.org", check=False)
    state, actual = snapshot(lab), dump(lab)
    assert isinstance(state, HostState) and state.answering[SHOP].servers == ("192.0.2.252#53",)
    assert isinstance(actual, Actual) and actual.servers == {SHOP: "192.0.2.252#53"}
    return lab


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("look", LOOKS)
def test_what_a_program_that_fails_did_not_say_is_unknown(forwarding: Lab, look: str, way: str, subtests) -> None:
    package, name, ask = LOOKS[look]
    whole, told = ask(forwarding), set()
    assert isinstance(whole, HostState | Actual), whole
    for program in programs(forwarding, package, name):
        with subtests.test(program):
            forwarding.exec(HOST, ["sh", "-euc", BREAK, "break", program, WAYS[way]])
            found = ask(forwarding, BROKEN)
            if isinstance(found, Unknown | Unanswered):
                assert f"`{program}` (status " in f"{getattr(found, 'why', found)}", found
                told.add(program)
            elif isinstance(found, HostState) and found.busy:
                told.add(program)  # who cannot wait for a program that is at work there counts as busy
            else:
                differs = {one.name: (getattr(whole, one.name), getattr(found, one.name)) for one in fields(found)}
                differs = {name: pair for name, pair in differs.items() if pair[0] != pair[1]}
                assert differs == {}, "it counts as an answer, and is another one"
    assert told == ASKED[look]
