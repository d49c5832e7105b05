"""A packet that is lost follows from what it comes by on either host, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from privnet.audit import ways
from privnet.audit.checks import guard
from privnet.audit.finding import NOTHING, Deviation, Finding, about, fold_across
from privnet.audit.rules import Table, bridge_chains, inet_chains
from privnet.audit.session import HOST
from privnet.compiler import compile_fleet
from privnet.plan.host import Plan
from privnet.plan.overlay import Overlay

SHOP = "pn-ad0fd6a1-d05e-40ea-bf63-c4f8a75a9d8c"
PLACE = ("lab-3", "reach")


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Three hosts with two networks each."""
    return compile_fleet(Path(__file__).parents[2] / "golden" / "lab" / "in").plan


def overlay_of(plan: Plan, host: str, network: str = SHOP) -> Overlay:
    return next(overlay for overlay in plan.hosts[host].overlays if overlay.network.id == network)


def lost(plan: Plan, source: tuple[str, str], target: tuple[str, str], full: bool = False) -> Deviation:
    stands_on = ways.of_packet(plan, source, target, full=full)
    (found,) = about("", [Deviation(f"{source[1]} → {target[1]}", "an answer", "no answer")], *stands_on)
    return found


def folded(what: Deviation, cause: Deviation, on: str) -> Finding:
    return fold_across({PLACE: Finding("", (what,))}, {on: [Finding("", (cause,))]})[PLACE]


def gone(subject: str, thing: str = "") -> Deviation:
    (found,) = about(thing, [Deviation(subject, "there", NOTHING)])
    return found


def test_what_both_hosts_lose_follows_from_one_of_them_and_says_which(plan: Plan) -> None:
    here, far = (overlay_of(plan, host) for host in ("lab-1", "lab-3"))
    one, other = ("lab-1", here.ports[1].netns), ("lab-3", far.ports[1].netns)
    cause = gone(f"FDB of {here.network.vxlan}: {far.ports[1].mac}")
    for pair in ((one, other), (other, one)):
        finding = folded(lost(plan, *pair), cause, "lab-1")
        ((_, why),) = finding.follows
        assert (why, why.host, finding.deviations) == (cause, "lab-1", ())


CAUSES: dict[str, Callable[[Overlay, Overlay], Deviation]] = {
    "the way to another container": lambda here, far: gone(f"FDB of {here.network.vxlan}: {far.ports[0].mac}"),
    "an entry too many": lambda here, far: Deviation(f"FDB of {here.network.vxlan}: 00:00:00:00:00:00", NOTHING, "x"),
    "a peer too many": lambda here, far: Deviation("peer", NOTHING, "stray"),
    "the tunnel to a third host": lambda here, far: gone("peer lab-2"),
    "the packet's size": lambda here, far: gone(f"{here.network.vxlan}: MTU"),
    "another container's port": lambda here, far: gone(f"{here.ports[0].name}: bridge"),
    "a port that learns": lambda here, far: gone(f"{here.ports[1].name}: learning", f"state of {here.ports[1].name}"),
    "a file": lambda here, far: gone(f"/etc/privnet/overlay/{here.network.vni}.fdb (sha256)", "file x"),
    "a unit that starts no more": lambda here, far: gone("privnet-guard.service at boot"),
    "the barrier behind the mesh": lambda here, far: gone("barrier behind the mesh"),
}


@pytest.mark.parametrize("what", CAUSES)
def test_what_does_not_explain_it_hides_nothing(plan: Plan, what: str) -> None:
    here, far = (overlay_of(plan, host) for host in ("lab-1", "lab-3"))
    loss = lost(plan, ("lab-1", here.ports[1].netns), ("lab-3", far.ports[1].netns))
    assert folded(loss, CAUSES[what](here, far), "lab-1") == Finding("", (loss,))


def test_the_same_on_a_host_that_is_not_concerned_or_in_another_network_explains_nothing(plan: Plan) -> None:
    here, far = (overlay_of(plan, host) for host in ("lab-1", "lab-3"))
    loss = lost(plan, ("lab-1", here.ports[1].netns), ("lab-3", far.ports[1].netns))
    device = f"device {here.network.vxlan}"
    assert folded(loss, gone(device, device), "lab-2").deviations == (loss,)
    other = next(overlay for overlay in plan.hosts["lab-1"].overlays if overlay.network.id != SHOP)
    device = f"device {other.network.vxlan}"
    assert folded(loss, gone(device, device), "lab-1").deviations == (loss,)
    # And between containers of one host nothing that lies between hosts.
    near = lost(plan, *(("lab-2", port.netns) for port in overlay_of(plan, "lab-2").ports[1:3]))
    device = f"device {here.network.vxlan}"
    assert folded(near, gone(device, device), "lab-2").deviations == (near,)


def test_the_size_of_packets_explains_the_loss_of_large_ones(plan: Plan) -> None:
    here, far = (overlay_of(plan, host) for host in ("lab-1", "lab-3"))
    loss = lost(plan, ("lab-1", here.ports[1].netns), ("lab-3", far.ports[1].netns), full=True)
    assert folded(loss, gone(f"{here.network.vxlan}: MTU"), "lab-1").deviations == ()


def test_a_rule_of_the_guard_that_is_gone_explains_what_it_did(plan: Plan) -> None:
    """One that lets through explains a loss, one that drops explains what comes through, and neither the other."""
    one = plan.hosts["lab-1"].guard
    here, far = (overlay_of(plan, host) for host in ("lab-1", "lab-3"))
    loss = lost(plan, ("lab-1", here.ports[1].netns), ("lab-3", far.ports[1].netns))
    stands_on = ways.of_crossing(plan, ("lab-1", HOST), ("lab-1", here.ports[1].netns))
    (crossing,) = about("", [Deviation("host lab-1 → a container", "no way", "an answer")], *stands_on)

    def without(family: str, chain: str, end: str) -> Deviation:
        chains = inet_chains(one.vxlan_port, one.mesh, one.port) if family == "inet" else bridge_chains()
        lines = {name: tuple(rule[0] for rule in rules) for name, rules in chains.items()}
        lines[chain] = tuple(line for line in lines[chain] if not line.endswith(end))
        (missing, *_) = guard._rules(family, chains, Table(lines))
        return missing

    accepts, drops = without("inet", "ingress", "@speakers accept"), without("bridge", "output", 'to private network"')
    assert folded(loss, accepts, "lab-1").deviations == ()
    assert folded(loss, drops, "lab-1").deviations == (loss,)
    assert folded(crossing, drops, "lab-1").deviations == ()
    assert folded(crossing, accepts, "lab-1").deviations == (crossing,)


def test_what_follows_already_leads_to_its_cause(plan: Plan) -> None:
    here, far = (overlay_of(plan, host) for host in ("lab-1", "lab-3"))
    loss = lost(plan, ("lab-1", here.ports[1].netns), ("lab-3", far.ports[1].netns))
    unit = gone("wg-quick@privnet.service", "unit wg-quick@privnet.service")
    device = gone("interface", "device privnet")
    told = {"lab-3": [Finding("", (unit,)), Finding("", (), ((device, unit),))]}
    ((_, why),) = fold_across({PLACE: Finding("", (loss,))}, told)[PLACE].follows
    assert (why, why.host) == (unit, "lab-3")
