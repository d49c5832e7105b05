"""A run and the audit see the same: each drift of `drifts` is reported by both, and repaired or refused by a run.

Both are asked by their own programs, and judge by their own code. Drifts that have nothing to do with each other are
on the hosts at the same time; that both mean the same one is seen by what they say of it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any

import drifts
import pytest
from drifts import Drift
from runs import deploy, plan_of
from test_live_plan import privnet

from privnet.audit import actual as audited
from privnet.audit.actual import Actual, parse_dump
from privnet.audit.checks import STATE_CHECKS
from privnet.deploy import changes
from privnet.deploy import state as deployed
from privnet.deploy.preflight import obstacles
from privnet.deploy.state import HostState, parse_snapshot
from privnet.lab import Lab
from privnet.plan.host import HostPlan

HOSTS = ("lab-1", "lab-2", "lab-3")
# A run asks peers with packets of full size. A host whose port a drift has moved answers that the other one is closed.
# wireguard-go pads by the MTU that it had before for a moment, so the last bytes of a datagram are a fragment.
UNDERLAY = "icmp or (udp and ip[6:2] & 0x1fff != 0)"


@pytest.fixture(scope="module")
def lab(shared_fleet: Callable[[str], Lab]) -> Lab:
    return shared_fleet("lab")


@dataclass(frozen=True)
class Look:
    """A host as both see it: steps of a run, why there can be none, deviations of the audit."""

    state: HostState
    actual: Actual
    steps: tuple[str, ...]
    refused: tuple[str, ...]
    told: tuple[str, ...]


def looks(lab: Lab) -> dict[str, Look]:
    plans = plan_of(lab).hosts
    with ThreadPoolExecutor(len(HOSTS)) as pool:
        return dict(zip(HOSTS, pool.map(lambda host: _look(lab, host, plans[host]), HOSTS), strict=True))


def _look(lab: Lab, host: str, plan: HostPlan) -> Look:
    snapshot, dump = (
        lab.exec(host, ["sh", "-c", before + (resources.files(f"privnet.{package}") / name).read_text()]).stdout
        for package, name, before in (("deploy", "snapshot.sh", ""), ("audit", "dump.sh", "MARK=mark\n"))
    )
    state, actual = parse_snapshot(snapshot.splitlines()), parse_dump(dump.encode(), "mark")
    assert isinstance(state, HostState), state
    waves = [changes.prepare(state), *(wave(plan, state) for wave in (changes.add, changes.switch, changes.retire))]
    told = [deviation for check in STATE_CHECKS.values() for deviation in check(plan, actual).deviations]
    steps = tuple(line for wave in waves for line in wave.lines())
    return Look(state, actual, steps, tuple(obstacles(plan, state, time.time())), tuple(map(str, told)))


# --- which drifts are on which host together -----------------------------------------------------------

Round = dict[str, list[Drift]]
"""Drifts by host."""


def spread(*places: tuple[str, Sequence[Drift]]) -> Iterator[Round]:
    """Each drift once, on one of the places that it can be at: the first on the first, and so on.

    :param places: hosts, and the same drifts on each in the words of that place
    """
    for number in count(0, len(places)):
        found: Round = {}
        for offset, (host, some) in enumerate(places):
            if number + offset < len(some):
                found.setdefault(host, []).append(some[number + offset])
        if not found:
            return
        yield found


def together(*kinds: Iterator[Round]) -> Iterator[Round]:
    """Rounds of several kinds that do not disturb each other, at the same time."""
    for some in iter(lambda: [found for kind in kinds if (found := next(kind, None))], []):
        yield {host: [drift for one in some for drift in one.get(host, ())] for host in HOSTS}


def rounds(plans: Mapping[str, HostPlan]) -> dict[str, list[Round]]:
    overlays = [(host, overlay) for host in HOSTS for overlay in plans[host].overlays]
    ports = [(host, port) for host, overlay in overlays for port in overlay.ports[1:]]
    hosts = [(host, [*drifts.of_host(plans[host])]) for host in HOSTS]
    return {
        "devices": [*together(
            spread(*((host, [*drifts.of_port(port)]) for host, port in ports)),
            spread(*((host, [*drifts.of_mesh(plans[host])]) for host in HOSTS)),
        )],
        "overlays": [*spread(*((host, [*drifts.of_overlay(plans[host], overlay)]) for host, overlay in overlays))],
        "guard and host": [*spread(*((host, [*drifts.of_guard(plans[host])]) for host in HOSTS)), *spread(*hosts)],
        "files": [
            {host: [*drifts.of_files(plans[host], way)] for host, way in zip(HOSTS, ways, strict=False)}
            for ways in (tuple(drifts.WAYS)[:3], tuple(drifts.WAYS)[3:])
        ],
        "units": [{
            host: [*drifts.of_units(plans[host], way)]
            for host, way in zip(HOSTS, ("stopped", "disabled", "disabled in silence"), strict=True)
        }],
    }  # fmt: skip


KINDS = ("devices", "overlays", "guard and host", "files", "units")


@pytest.fixture(scope="module")
def seen() -> set[str]:
    """Fields of what both know of a host that some drift has changed."""
    return set()


@pytest.mark.parametrize("kind", KINDS)
def test_both_tell_each_drift_and_a_run_repairs_it(lab: Lab, seen: set[str], kind: str, subtests: Any) -> None:
    before = looks(lab)
    assert_as_planned(before)
    for number, some in enumerate(rounds(plan_of(lab).hosts)[kind]):
        for host, ones in some.items():
            for drift in ones:
                lab.exec(host, ["sh", "-c", drift.command], check=False)
        after = looks(lab)
        for host, ones in some.items():
            seen |= {
                *differences(before[host].state, after[host].state),
                *differences(before[host].actual, after[host].actual),
            }
            for drift in ones:
                with subtests.test(f"{host}: {drift.name}"):
                    assert_told(drift, after[host])
        run = deploy(lab, check=False)
        changed = {host for hosts in run.changed.values() for host in hosts}
        refused = [(host, drift) for host, ones in some.items() for drift in ones if drift.refused]
        for host, drift in refused:
            with subtests.test(f"{host}: {drift.name}: refused"):
                assert run.code == 1 and host not in changed and re.search(drift.refused, run.output), run.output
        for host, ones in some.items():
            for drift in ones:
                if drift.undo:
                    lab.exec(host, drift.undo)
        if refused:
            run = deploy(lab, check=False)
        before = looks(lab)
        with subtests.test(f"{kind}, round {number}: repaired"):
            assert run.code == 0, run.output
            assert_as_planned(before)
        if run.code or any(look.steps or look.refused or look.told for look in before.values()):
            deploy(lab, check=False)
            before = looks(lab)


def assert_told(drift: Drift, look: Look) -> None:
    told = [line for line in look.told if line.startswith(drift.told)]
    steps = [line for line in look.steps if re.search(drift.step, line)]
    assert told if drift.told else drift.why, ("the audit says nothing of it", drift.command, look.told)
    refused = [line for line in look.refused if drift.refused and re.search(drift.refused, line)]
    assert bool(refused) == bool(drift.refused), ("a run would not refuse the host", drift.command, look.refused)
    if drift.step:
        assert steps, ("a run would do nothing for it", drift.command, look.steps)
    else:
        assert drift.why and drift.undo, "a silence has its reason"


def assert_as_planned(found: Mapping[str, Look]) -> None:
    seen = {host: (look.steps, look.refused, look.told) for host, look in found.items()}
    assert seen == dict.fromkeys(found, ((), (), ()))


def differences(one: object, other: object) -> Iterator[str]:
    """``Class.field`` of each field in which two values differ, as deep as both are there."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in one.keys() & other.keys():
            yield from differences(one[key], other[key])
    elif is_dataclass(one) and type(one) is type(other):
        for part in fields(one):
            before, after = getattr(one, part.name), getattr(other, part.name)
            if before != after:
                yield f"{type(one).__module__.removeprefix('privnet.')}.{type(one).__name__}.{part.name}"
                yield from differences(before, after)


COMPARED = {
    "deploy.state": (
        deployed.FileState, deployed.PeerState, deployed.MeshState, deployed.Link, deployed.GuardState, deployed.Inside,
        deployed.UnitState, deployed.NamesState, deployed.Answering,
    ),
    "audit.actual": (audited.File, audited.Unit, audited.Peer, audited.WireGuard, audited.Link, audited.Namespace),
}  # fmt: skip
NO_DRIFT = {
    "deploy.state.PeerState.public_key": "a peer with another key is another peer",
    "deploy.state.Link.name": "a device with another name is another device",
    "deploy.state.Link.upon": "what stands on a device of ours is foreign: tests/lab of ports",
    "audit.actual.Link.upon": "the same",
    "deploy.state.Answering.servers": "these networks have no dns.upstream: tests/lab/test_outside.py",
    "deploy.state.Inside.outer": "both ends of a pair are made at once: without its partner it is gone",
}


def test_every_field_of_what_both_know_was_changed(seen: set[str]) -> None:
    """Of those that one of them compares; the tests above have done it."""
    known = {
        f"{name}.{one.__name__}.{part.name}" for name, ones in COMPARED.items() for one in ones for part in fields(one)
    }
    assert known - seen == NO_DRIFT.keys()


@pytest.mark.proves("P14", "audit")
def test_what_is_asked_here_is_what_a_plan_and_the_audit_say(lab: Lab, tmp_path: Path) -> None:
    """The real commands, and the twin: of hosts with drifts and of one without."""
    plans = plan_of(lab).hosts
    some = {
        "lab-1": [*drifts.of_mesh(plans["lab-1"])][:2],
        "lab-2": [*drifts.of_port(plans["lab-2"].overlays[0].ports[1])][:2],
    }
    for host, ones in some.items():
        for drift in ones:
            lab.exec(host, drift.command)
    found = looks(lab)
    live = json.loads(privnet(lab, "plan", "--live", "--format", "json"))["live"]
    steps = {host: tuple(line for stage in one["changes"] for line in stage["lines"]) for host, one in live.items()}
    assert steps == {host: look.steps for host, look in found.items()}
    privnet(lab, "audit", "--quick", "--json", str(tmp_path / "audit.json"), code=1)
    audited = json.loads((tmp_path / "audit.json").read_text())["hosts"]
    told = {
        host: {f"{one['subject']}: expected {one['expected']}" for check in STATE_CHECKS
               for kind in ("deviations", "follows") for one in checks[check].get(kind, ())}
        for host, checks in audited.items()
    }  # fmt: skip
    assert told == {host: {line.rpartition(", actual ")[0] for line in look.told} for host, look in found.items()}
    assert not steps["lab-3"] and not told["lab-3"] and steps["lab-1"] and told["lab-2"]
    deploy(lab)
    assert_as_planned(looks(lab))
    assert "3 of 3 hosts answered, 0 of them would be changed" in privnet(lab, "plan", "--live")
    assert "as planned" in privnet(lab, "audit", "--quick")
