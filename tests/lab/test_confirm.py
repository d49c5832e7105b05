"""A change is confirmed when each peer that answered before it answers again: SSH goes by another way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel import difference, dump, until_rested
from runs import assert_reachable, deploy, edit, replace_once
from test_live_plan import privnet

from privnet.lab import Lab

SECONDS = 30


@pytest.fixture(scope="module")
def lab(fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]) -> Lab:
    inventory = inventory_copy("lab")
    replace_once(inventory / "fleet.yaml", "policy:\n", f"policy:\n  rollback: {SECONDS}s\n")
    lab = fleet(inventory)
    deploy(lab)
    return lab


@pytest.fixture(autouse=True)
def back_to_the_start(lab: Lab) -> Iterator[None]:
    """What a test declares, the next one does not find."""
    before = {path: path.read_text() for path in lab.inventory.rglob("*.yaml") if "lock" not in path.name}
    assert_reachable(lab)
    yield
    for path, text in before.items():
        path.write_text(text)
    deploy(lab, allow=True)
    assert_reachable(lab)


def declare(lab: Lab, old: str, new: str) -> None:
    replace_once(lab.inventory / "fleet.yaml", old, new)


def run(lab: Lab, *arguments: str, code: int = 0) -> str:
    """What `privnet deploy -y` says when it ends with ``code``."""
    return privnet(lab, "deploy", "-y", *arguments, code=code)


LAB_2 = "lab-2: {address: 192.0.2.12, "
NOWHERE = LAB_2 + 'endpoint: "192.0.2.23:51820", '
ELSEWHERE = LAB_2 + 'endpoint: "192.0.2.22:51820", '
CUT_OFF = (
    "FAILED: the change would cut off peers that answered before it, so it is not confirmed: "
    "lab-2 (192.0.2.23:51820) does not answer lab-1, lab-3 over the mesh. Look at `endpoint`, `address` and ports"
)


def test_an_endpoint_that_leads_nowhere_is_not_confirmed(lab: Lab) -> None:
    before = dump(lab)
    declare(lab, LAB_2, NOWHERE)
    said = run(lab, code=1)
    assert CUT_OFF in said
    assert "lab-1, lab-3  pending: it is as it was before" in said
    until_rested(lab, within=SECONDS + 20)
    assert_reachable(lab)
    assert difference(before, dump(lab)) == ""


def test_an_endpoint_that_leads_there_is_confirmed(lab: Lab) -> None:
    """The twin."""
    lab.exec("lab-2", "ip address replace 192.0.2.22/24 dev eth0")
    declare(lab, LAB_2, ELSEWHERE)
    assert "DONE: 3 hosts as planned" in run(lab)
    assert "192.0.2.22:51820" in lab.exec("lab-1", "wg show privnet endpoints").stdout
    assert_reachable(lab)


def test_who_asks_for_ssh_alone_gets_what_is_declared(lab: Lab) -> None:
    """The twin that shows what the first test is spared."""
    declare(lab, LAB_2, NOWHERE)
    declare(lab, "policy:\n", "policy:\n  confirm: ssh\n")
    assert "DONE: 3 hosts as planned" in run(lab)
    with pytest.raises(AssertionError):
        assert_reachable(lab)


def test_a_peer_that_was_dead_before_holds_up_nobody(lab: Lab) -> None:
    """Its firewall drops what WireGuard sends, so it answers a run and no peer."""
    drop = "table inet deaf { chain out { type filter hook output priority 0; udp sport 51820 drop; }; }"
    lab.exec("lab-3", ["nft", "-f", "-"], input=drop)
    try:
        lab.exec("lab-2", "ip address replace 192.0.2.22/24 dev eth0")
        declare(lab, LAB_2, ELSEWHERE)
        said = run(lab, code=1)
        assert "would cut off" not in said and "lab-1  changed and confirmed" in said
    finally:
        lab.exec("lab-3", "nft delete table inet deaf")


def test_packets_that_are_too_large_for_the_underlay_are_not_confirmed(lab: Lab) -> None:
    """Small ones still pass, so all seems well."""
    before = dump(lab)
    for number in (1, 2, 3):
        declare(lab, f"192.0.2.1{number}, ", f"192.0.2.1{number}, mtu: 1600, ")
    # As a switch with the usual MTU between hosts that have a larger one.
    for host in lab.hosts:
        lab.exec(host, "ip link set dev eth0 mtu 1600")
        lab.exec(host, ["nft", "-f", "-"], input=SWITCH)
    try:
        said = run(lab, code=1)
        assert "does not answer" in said and "large packets over the mesh. Look at `mtu` in fleet.yaml" in said
        until_rested(lab, within=SECONDS + 20)
        assert_reachable(lab)
    finally:
        for host in lab.hosts:
            lab.exec(host, "nft delete table netdev switch; ip link set dev eth0 mtu 1500")
    assert difference(before, dump(lab)) == ""


SWITCH = """table netdev switch {
	chain in {
		type filter hook ingress device eth0 priority 0;
		meta length > 1500 drop
	}
}
"""


def test_a_change_of_containers_asks_no_peer(lab: Lab) -> None:
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-3, lab-1]")
    done = deploy(lab)
    assert "see that peers answer" not in done.changed
    # The twin: one of tunnels does.
    lab.exec("lab-2", "ip address replace 192.0.2.22/24 dev eth0")
    declare(lab, LAB_2, ELSEWHERE)
    assert deploy(lab).changed["see that peers answer"] == ["lab-1", "lab-3"]
