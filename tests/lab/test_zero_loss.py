"""A change interrupts nothing that it does not concern: no packet lost, no stream reset, no question unanswered.

One meter runs through all of it. Its containers stay where they are, and are on every host and in both networks; what
changes around them is each test's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from meter import Flow, Meter, answering_when_there, assert_unharmed, metering
from runs import (
    BILLING,
    PAGES,
    SHOP,
    STOREFRONT,
    WATCHED,
    container_of,
    deploy,
    edit,
    give_application,
    inside,
    take_application,
)

from privnet.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.alone]

HOSTS = ("lab-1", "lab-2", "lab-3")
TTL = 5.0
"""Seconds that an answer of a resolver may be kept: `dns.ttl`, as it is by default."""
PAGES_NAMES = (f"1.web.{PAGES}", f"2.web.{PAGES}", f"1.worker.{PAGES}")

IN_BLOG = Flow(f"1.web.{PAGES}", f"1.worker.{PAGES}", PAGES_NAMES)
"""lab-1 to lab-3, in the network that most changes do not concern."""
BESIDE = Flow(f"2.web.{PAGES}", f"1.worker.{PAGES}", PAGES_NAMES)
"""lab-2 to lab-3: what is done on lab-1 alone does not concern it."""
IN_SHOP = Flow(f"1.web.{STOREFRONT}", f"1.worker.{STOREFRONT}")
"""lab-1 to lab-3, in the network in which things change."""
BACK_IN_SHOP = Flow(f"1.worker.{STOREFRONT}", f"1.web.{STOREFRONT}", (f"1.worker.{STOREFRONT}",))
"""lab-3 to lab-1."""

THIRD = """
project: third
private_network:
  id: pn-33333333-2222-4333-8444-555555555555
  terms: {accepted_by: ops@third.example, accepted_on: 2025-10-02, version: beta-1}
applications:
  ap-33333333-2222-4333-8444-555555555555:
    name: third
    formation:
      web: [lab-1, lab-2, lab-3]
"""


@pytest.fixture(scope="module")
def lab(fleet, inventory_copy) -> Lab:
    """Three hosts, deployed to once."""
    lab = fleet(inventory_copy("lab"))
    deploy(lab)
    return lab


@pytest.fixture(scope="module")
def meter(lab: Lab) -> Iterator[Meter]:
    with metering(lab, IN_BLOG, BESIDE, IN_SHOP, BACK_IN_SHOP) as meter:
        yield meter
        print("\n".join(map(str, meter.counts)))


# --- twins: what the meter sees when there is something to see ---------------------------------------------


def cut(lab: Lab, seconds: float) -> None:
    """Nothing reaches the storefront's worker for so long."""
    port = network_port(lab, f"1.worker.{STOREFRONT}")
    lab.exec("lab-3", f"bridge link set dev {port} state 0; sleep {seconds}; bridge link set dev {port} state 3")


def network_port(lab: Lab, slot: str) -> str:
    """The device of a container's port on its host."""
    container = container_of(lab, slot)
    found = lab.exec(container.host, f"grep -lx 'NETNS={slot}' /etc/privnet/containers/*.conf").stdout.split()
    return found[0].rpartition("/")[2].removesuffix(".conf")


def test_the_meter_sees_a_flow_that_is_cut_for_a_moment(lab: Lab, meter: Meter) -> None:
    with meter.during("cut for 0.3 s") as seen:
        cut(lab, 0.3)
    assert seen[IN_SHOP].lost >= 20 and seen[IN_SHOP].gap >= 0.3
    assert seen[IN_SHOP].resets == 0
    assert_unharmed(seen, IN_BLOG, BESIDE)


def test_the_meter_sees_a_stall_and_a_reset(lab: Lab, meter: Meter) -> None:
    with meter.during("cut for 1.5 s") as stalled:
        cut(lab, 1.5)
    assert stalled[IN_SHOP].stalls == 1 and stalled[IN_SHOP].silence > 1.4 and stalled[IN_SHOP].resets == 0
    with meter.during("a reset") as seen:
        meter.reset(f"1.worker.{STOREFRONT}")
    assert seen[IN_SHOP].resets == 1 and seen[IN_SHOP].lost == 0
    assert_unharmed(seen, IN_BLOG, BESIDE)


def test_the_meter_sees_wrong_and_missing_answers(lab: Lab, meter: Meter) -> None:
    hosts, unit = f"/etc/privnet/names/{SHOP}.hosts", f"privnet-dns@{SHOP}.service"
    address = container_of(lab, f"1.worker.{STOREFRONT}").address
    with meter.during("a wrong name") as seen:
        wrong = f"cp -p {hosts} /root/; sed -i 's/^{address} /10.240.3.3 /' {hosts}; systemctl reload {unit}"
        lab.exec("lab-1", f"{wrong}; sleep 0.5; mv /root/{SHOP}.hosts {hosts}; systemctl reload {unit}")
    assert seen[IN_SHOP].wrong > 0 and seen[IN_SHOP].lost == seen[IN_SHOP].missing == 0
    assert_unharmed(seen, IN_BLOG, BESIDE, BACK_IN_SHOP)
    with meter.during("no resolver") as seen:
        lab.exec("lab-1", f"systemctl stop {unit}; sleep 0.5; systemctl start {unit}")
    assert seen[IN_SHOP].missing > 0 and seen[IN_SHOP].lost == seen[IN_SHOP].wrong == 0
    assert_unharmed(seen, IN_BLOG, BESIDE, BACK_IN_SHOP)


# --- runs -------------------------------------------------------------------------------------------------


def test_a_run_that_changes_nothing(lab: Lab, meter: Meter) -> None:
    with meter.during("a no-op run") as seen:
        assert deploy(lab).changed == {}
    assert_unharmed(seen)


def test_a_container_added_and_removed(lab: Lab, meter: Meter) -> None:
    edit(lab, "shop", "worker: [lab-3]", "worker: [lab-3, lab-1, lab-2]")
    with meter.during("scaled up") as up:
        deploy(lab)
    edit(lab, "shop", "worker: [lab-3, lab-1, lab-2]", "worker: [lab-3]")
    with meter.during("scaled down") as down:
        deploy(lab, allow=True)
    assert_unharmed(up)
    assert_unharmed(down)


def test_a_network_added_and_removed(lab: Lab, meter: Meter) -> None:
    third = lab.inventory / "projects" / "third.yaml"
    third.write_text(THIRD)
    with meter.during("a network added") as added:
        deploy(lab)
    third.unlink()
    with meter.during("a network removed") as removed:
        deploy(lab, allow=True)
    assert_unharmed(added)
    assert_unharmed(removed)


def test_an_application_migrated(lab: Lab, meter: Meter) -> None:
    block = take_application(lab, "shop", BILLING)
    give_application(lab, "blog", block)
    with meter.during("an application migrated") as there:
        deploy(lab, allow=True)
    take_application(lab, "blog", BILLING)
    give_application(lab, "shop", block)
    with meter.during("an application migrated back") as back:
        deploy(lab, allow=True)
    assert_unharmed(there)
    assert_unharmed(back)


def test_a_container_moved(lab: Lab, meter: Meter) -> None:
    """Others notice nothing; its own name never leads to nobody for longer than its TTL."""
    moved = f"2.web.{STOREFRONT}"
    flow = Flow(f"1.web.{STOREFRONT}", moved, (moved,))
    with metering(lab, flow) as own, answering_when_there(lab, "lab-3", moved):
        edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-1, lab-3]")
        with meter.during("a container moved") as seen, own.during("a container moved: itself") as itself:
            deploy(lab)
    assert_unharmed(seen)
    counts = itself[flow]
    print(f"the moved container was away for {counts.gap * 1000:.0f} ms")
    # Its address stays, so its name is right all the time; what it leads to answers again within a TTL.
    assert counts.missing == counts.wrong == 0, counts
    assert counts.gap < TTL, counts
    # The twin: it was another process that answered afterwards.
    assert counts.resets == 1, counts
    ping = ("ping", *WATCHED, "-c", "1", "-W", "2", "-q")
    assert inside(lab, f"1.web.{STOREFRONT}", *ping, container_of(lab, moved).address)
    edit(lab, "shop", "web: [lab-1, lab-3]", "web: [lab-1, lab-2]")
    deploy(lab)


def test_a_host_added_and_removed(lab: Lab, fleet, meter: Meter) -> None:
    """A peer with it: it has a container of a metered network, so all others get it as a peer, and lose it."""
    fleet_yaml = lab.inventory / "fleet.yaml"
    before = fleet_yaml.read_text()
    fleet_yaml.write_text(before + "  lab-4: {address: 192.0.2.14, zone: a}\n")
    fleet(lab.inventory)
    edit(lab, "shop", "worker: [lab-3]", "worker: [lab-3, lab-4]")
    with meter.during("a host added") as added:
        deploy(lab)
    assert peers(lab) == dict.fromkeys(HOSTS, 3)
    edit(lab, "shop", "worker: [lab-3, lab-4]", "worker: [lab-3]")
    with meter.during("a peer removed") as unpeered:
        deploy(lab, allow=True)
    assert peers(lab) == dict.fromkeys(HOSTS, 2)
    fleet_yaml.write_text(before)
    with meter.during("a host removed") as removed:
        deploy(lab, allow=True)
    for seen in (added, unpeered, removed):
        assert_unharmed(seen)


def test_a_host_removed_with_its_containers(lab: Lab, fleet, meter: Meter) -> None:
    """In one run: it is deleted from the declaration as it is, with a container of a metered network."""
    fleet_yaml = lab.inventory / "fleet.yaml"
    before = fleet_yaml.read_text()
    fleet_yaml.write_text(before + "  lab-4: {address: 192.0.2.14, zone: a}\n")
    fleet(lab.inventory)
    edit(lab, "shop", "worker: [lab-3]", "worker: [lab-3, lab-4]")
    deploy(lab)
    assert peers(lab) == dict.fromkeys(HOSTS, 3)
    fleet_yaml.write_text(before)
    edit(lab, "shop", "worker: [lab-3, lab-4]", "worker: [lab-3]")
    with meter.during("a host removed with its containers") as removed:
        deploy(lab, allow=True)
    assert peers(lab) == dict.fromkeys(HOSTS, 2)
    assert_unharmed(removed)


def peers(lab: Lab) -> dict[str, int]:
    return {host: len(lab.exec(host, "wg show privnet peers").stdout.split()) for host in HOSTS}


# --- what a host's operator does ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "systemctl reload privnet-guard.service",
        "networkctl reload",
        "systemctl restart systemd-networkd.service",
        "systemctl restart nftables.service",
        "systemctl stop nftables.service",
        "nft flush ruleset",
    ],
)
def test_services_reloaded_and_restarted(lab: Lab, meter: Meter, command: str) -> None:
    with meter.during(command) as seen:
        for host in HOSTS:
            lab.exec(host, command)
    assert_unharmed(seen)


def test_a_resolver_restarted(lab: Lab, meter: Meter) -> None:
    """Its own network's questions on its own host wait for less than 2 s; no other is missed, and no packet."""
    with meter.during("a resolver restarted") as seen:
        lab.exec("lab-1", f"systemctl restart privnet-dns@{SHOP}.service")
    own = seen[IN_SHOP]
    assert own.mute < 2 and own.missing < 20, own
    assert replace(own, missing=0).unharmed, own
    assert_unharmed(seen, IN_BLOG, BESIDE, BACK_IN_SHOP)


def test_the_guards_owner_killed(lab: Lab, meter: Meter) -> None:
    """While the guard is away nothing may pass, so this is no change without harm, and the twin of all that is.

    How long that is on this host is printed. No stream ends by it, no question is missed, and no other host notices.
    """
    with meter.during("the guard's owner killed") as seen:
        lab.exec("lab-1", "systemctl kill -s KILL privnet-guard.service")
        time.sleep(1)
    assert_unharmed(seen, BESIDE)
    for flow in (IN_BLOG, IN_SHOP, BACK_IN_SHOP):
        counts = seen[flow]
        print(f"the guard's owner killed: {flow} was away for {counts.gap * 1000:.0f} ms")
        assert counts.lost > 0, "the twin: the guard's absence is seen"
        assert counts.gap < 5 and counts.resets == counts.missing == counts.wrong == 0, counts
