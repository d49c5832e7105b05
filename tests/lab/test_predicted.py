"""What `plan --live` says of a change is never less than a meter shows of it, and here it is no more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from meter import Counts, Flow, Meter, metering
from runs import BLOG, PAGES, STOREFRONT, deploy, edit
from test_live_plan import privnet

from privnet.lab import Lab
from privnet.report.impact import ORDER, Label

pytestmark = [pytest.mark.lab, pytest.mark.alone]
UNDERLAY = "udp port 51900 or icmp"  # a test changes WireGuard's port; who knows it first is told that it is closed

IN_BLOG = Flow(f"1.web.{PAGES}", f"1.worker.{PAGES}", (f"1.web.{PAGES}", f"1.worker.{PAGES}"))
IN_SHOP = Flow(f"1.web.{STOREFRONT}", f"1.worker.{STOREFRONT}")
BACK_IN_SHOP = Flow(f"1.worker.{STOREFRONT}", f"1.web.{STOREFRONT}", (f"1.worker.{STOREFRONT}",))
BESIDE = Flow(f"2.web.{PAGES}", f"1.worker.{PAGES}")


@dataclass(frozen=True)
class Case:
    """A change, what a plan says of it, and whether the meter has to see something: else it could be blind."""

    begin: Callable[[Lab], object]
    label: Label
    seen: bool = False


def settings(text: str) -> Callable[[Lab], object]:
    """More in ``fleet.yaml``."""

    def begin(lab: Lab) -> None:
        with (lab.inventory / "fleet.yaml").open("a") as file:
            file.write(f"\n{text}\n")

    return begin


def hosts(old: str, new: str) -> Callable[[Lab], object]:
    """Other words about hosts."""

    def begin(lab: Lab) -> None:
        path = lab.inventory / "fleet.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return begin


def by_hand(command: str, *names: str) -> Callable[[Lab], object]:
    """Something that somebody does on hosts, all of them if none is named."""
    return lambda lab: [lab.exec(name, command) for name in names or lab.hosts]


def another_address(lab: Lab) -> None:
    lab.exec("lab-2", "ip address replace 192.0.2.22/24 dev eth0")
    hosts("lab-2: {", 'lab-2: {endpoint: "192.0.2.22:51820", ')(lab)


def another_key(*names: str) -> Callable[[Lab], object]:
    """As after a theft: the old ones go, and a person says that these are the same hosts."""

    def begin(lab: Lab) -> None:
        for name in names:
            lab.exec(name, "rm /etc/wireguard/privnet.key")
            privnet(lab, "forget", name)

    return begin


UNITS = "/etc/systemd/system/privnet-*.service /etc/systemd/system/wg-quick@privnet.service.d/privnet.conf"
OLDER = f"for f in {UNITS} /etc/privnet/lib/*; do echo '# older' >> $f; done; systemctl daemon-reload"
"""What an earlier version has left: units and programs with another text."""

CASES = {
    "nothing": Case(lambda lab: None, Label.none),
    "a container more": Case(lambda lab: edit(lab, "blog", "worker: [lab-3]", "worker: [lab-3, lab-1]"), Label.none),
    "another TTL": Case(settings("dns: {ttl: 9}"), Label.brief),
    "another WireGuard port": Case(settings("wireguard: {port: 51900}"), Label.brief, seen=True),
    "another VXLAN port": Case(settings("vxlan: {port: 4790}"), Label.brief, seen=True),
    "another prefix of the mesh": Case(settings("wireguard: {mesh: 100.80.0.0/16}"), Label.brief, seen=True),
    "a smaller MTU": Case(hosts("zone: a", "zone: a, mtu: 1400"), Label.brief),
    "another address": Case(another_address, Label.brief),
    "the key of one host": Case(another_key("lab-1"), Label.brief, seen=True),
    "the keys of all hosts": Case(another_key("lab-1", "lab-2", "lab-3"), Label.brief, seen=True),
    "an upgrade of units and programs": Case(by_hand(OLDER), Label.none),
    "a guard that has to start again": Case(
        by_hand("systemctl kill -s STOP privnet-guard.service", "lab-1"), Label.brief, seen=True
    ),
    "a resolver with other settings": Case(
        by_hand(f"echo log-queries >> /etc/privnet/names/{BLOG}.conf; systemctl restart privnet-dns@{BLOG}", "lab-2"),
        Label.brief,
    ),
}


@pytest.fixture(scope="module")
def lab(fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]) -> Lab:
    lab = fleet(inventory_copy("lab"))
    deploy(lab)
    return lab


@pytest.fixture
def meter(lab: Lab) -> Iterator[Meter]:
    """The declaration may be changed at will; afterwards it is as it was."""
    before = {path: path.read_text() for path in lab.inventory.rglob("*.yaml") if "lock" not in path.name}
    with metering(lab, IN_BLOG, IN_SHOP, BACK_IN_SHOP, BESIDE) as meter:
        yield meter
    for path, text in before.items():
        path.write_text(text)
    deploy(lab, allow=True)


def predicted(lab: Lab) -> Label:
    """The worst that a plan says, of the declaration and of hosts."""
    plan = json.loads(privnet(lab, "plan", "--live", "--format", "json"))
    said = [change["impact"] for change in plan["changes"]]
    said += [impact for host in plan["live"].values() for impact in host["impact"]]
    return max((Label(impact["label"]) for impact in said), key=ORDER.index, default=Label.none)


def measured(during: dict[Flow, Counts], after: dict[Flow, Counts]) -> Label:
    """A flow that does not go on by itself has ended."""
    if any(counts.lost == counts.sent for counts in after.values()):
        return Label.outage
    return Label.none if all(counts.unharmed for counts in during.values()) else Label.brief


@pytest.mark.parametrize("what", CASES)
def test_a_plan_says_no_less_than_a_meter(lab: Lab, meter: Meter, what: str) -> None:
    case = CASES[what]
    case.begin(lab)
    label = predicted(lab)
    with meter.during(what) as seen:
        deploy(lab, allow=True)
    with meter.during("afterwards") as after:
        pass
    assert ORDER.index(measured(seen, after)) <= ORDER.index(label), seen
    assert label is case.label
    assert not case.seen or any(counts.lost for counts in seen.values()), "the twin: what is lost is seen"
