"""What a run would do to hosts is told in the words of the glossary, and nothing of it is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from answers import answer, bare, key_of, text

from privnet.deploy import changes
from privnet.deploy.state import HostState, parse_snapshot
from privnet.model.lock import Lock
from privnet.plan.allocate import allocate
from privnet.plan.host import HostPlan, Plan, plan_fleet
from privnet.report.deeds import Deed, Names, deed_lines, deeds_of
from privnet.report.difference import differences, host_changes
from privnet.report.impact import ORDER, Impact, Label, impacts, steps_impact

HOSTS = ("h1", "h2", "h3")


@dataclass(frozen=True)
class Made:
    """A fleet with its numbers."""

    lock: Lock
    plan: Plan


Make = Callable[..., Made]


@pytest.fixture
def make(fleets: Any) -> Make:
    """``make(before, shop=["h1", "h2"], fleet={…})``: `web` containers of each project."""

    def made(before: Made | None = None, /, fleet: Any = None, hosts: Any = None, **placed: list[str]) -> Made:
        projects = {name: fleets.project(name, {name: {"web": on}}) for name, on in placed.items()}
        more = {"policy": {"address_quarantine": "0s"}, **(fleet or {})}
        declaration = fleets.declare({"hosts": hosts or fleets.hosts(*HOSTS), **more}, projects)
        lock = allocate(declaration, before.lock if before else Lock(fleet="test"), 0).lock
        lock = replace(lock, hosts={name: replace(host, wireguard=key_of(name)) for name, host in lock.hosts.items()})
        return Made(lock, plan_fleet(declaration, lock))

    return made


def steps(plan: HostPlan, sections: Any) -> list[tuple[str, str]]:
    state = parse_snapshot(text(sections))
    assert isinstance(state, HostState)
    scripts = {
        "prepare": changes.prepare(state),
        "add": changes.add(plan, state),
        "switch": changes.switch(plan, state),
        "retire": changes.retire(plan, state),
    }
    return [(stage, line) for stage, script in scripts.items() for line in script.lines()]


def told(before: Made, after: Made) -> dict[str, list[Deed]]:
    names = Names.of(before.lock, after.lock)
    meets = {name: found.meets for name, found in host_changes(before.lock, after.lock).items()}
    hosts = {
        name: deeds_of(steps(plan, answer(before.plan.hosts[name])), names, meets.get(name, ()))
        for name, plan in after.plan.hosts.items()
    }
    assert not [deed for found in hosts.values() for deed in found if deed.kind == "step"]
    return {name: found for name, found in hosts.items() if found}


def said(before: Made, after: Made, titles: Any = None) -> list[str]:
    return [*deed_lines(told(before, after), titles or {})]


def test_nothing_to_do_is_nothing_said(make: Make) -> None:
    assert said(made := make(shop=["h1", "h2"]), made) == []


def test_a_container_more(make: Make, fleets: Any) -> None:
    before = make(shop=["h1", "h2"])
    after = make(before, shop=["h1", "h2", "h2"])
    shop, slot = fleets.network("shop")["id"], f"3.web.{fleets.ap('shop')}"
    assert said(before, after, {shop: "private network of shop"}) == [
        "private network of shop",
        "  h1  ~ forwarding entries, ~ names",
        f"  h2  + container {slot}, ~ names",
        "hosts themselves",
        "  h1  + who may speak",
        "  h2  + who may speak",
    ]


def test_a_move_and_a_network_that_goes(make: Make, fleets: Any) -> None:
    before = make(shop=["h1", "h2"], blog=["h1", "h3"])
    found = told(before, make(before, shop=["h1", "h3"]))
    shop, blog = fleets.network("shop")["id"], fleets.network("blog")["id"]
    slot = f"2.web.{fleets.ap('shop')}"
    assert Deed(shop, "container", slot, "+") in found["h3"]
    assert Deed(shop, "container", slot, "-") in found["h2"]
    assert {deed.sign for deed in found["h1"] if (deed.network, deed.kind) == (shop, "forwarding")} == {"~"}
    gone = [deed for deed in found["h1"] if deed.network == blog]
    assert {deed.kind for deed in gone} >= {"container", "overlay", "resolver"}
    assert {deed.sign for deed in gone} == {"-"}
    assert Deed("", "peer", "h1", "-") in found["h2"]


def test_hosts_that_meet(make: Make) -> None:
    before = make(shop=["h1", "h2"])
    found = told(before, make(before, shop=["h1", "h2", "h3"]))
    assert Deed("", "peer", "h3", "+") in found["h1"] and Deed("", "peer", "h1", "+") in found["h3"]
    assert {deed.kind for deed in found["h1"] if not deed.network} == {"peer", "speakers"}


def test_a_record_alone_is_said(make: Make) -> None:
    before = make(shop=["h1", "h2"])
    after = make(before, fleet={"policy": {"address_quarantine": "0s", "rollback": "60s"}}, shop=["h1", "h2"])
    assert told(before, after)["h1"] == [Deed("", "record", "", "~")]


def test_a_new_host(make: Make) -> None:
    made = make(shop=["h1", "h2"], fleet={"dns": {"upstream": ["9.9.9.9"]}})
    found = deeds_of(steps(made.plan.hosts["h1"], bare()), Names.of(made.lock))
    assert not [deed for deed in found if deed.kind == "step"]
    assert {(deed.kind, deed.sign) for deed in found} >= {
        ("packages", "+"),
        ("key", "+"),
        ("mesh", "+"),
        ("guard", "+"),
        ("container", "+"),
        ("overlay", "+"),
        ("resolver", "+"),
        ("forwarder", "+"),
    }


@pytest.mark.parametrize(
    ("fleet", "label", "kinds"),
    [
        ({"domain": "pn.example"}, Label.outage, {"resolver"}),
        ({"wireguard": {"port": 51821}}, Label.brief, {"mesh", "peers", "guard"}),
        ({"wireguard": {"mesh": "100.64.0.0/12"}}, Label.brief, {"mesh", "guard"}),
        ({"wireguard": {"mesh": "100.80.0.0/16"}}, Label.brief, {"mesh", "peers", "guard", "overlay"}),
        ({"vxlan": {"port": 4790}}, Label.brief, {"overlay", "guard"}),
        ({"dns": {"ttl": 60}}, Label.brief, {"resolver"}),
        ({"dns": {"upstream": ["9.9.9.9"]}}, Label.brief, {"resolver", "forwarder"}),
    ],
)
def test_a_setting_does_what_the_plan_says_of_it(make: Make, fleet: Any, label: Label, kinds: set[str]) -> None:
    """The label that a plan gives it without asking anybody is that of the steps; names of another domain end."""
    before = make(shop=["h1", "h2"])
    after = make(before, fleet=fleet, shop=["h1", "h2"])
    changed = impacts(before.lock, after.lock, differences(before.lock, after.lock))
    assert max((impact.label for _, impact in changed), key=ORDER.index) is label
    found = told(before, after)
    assert {deed.kind for deed in found["h1"]} >= kinds
    felt = steps_impact(steps(after.plan.hosts["h1"], answer(before.plan.hosts["h1"])))
    assert [impact.label for impact in felt][:1] == [Label.brief]
    back = told(after, before)
    assert {deed.kind for deed in back["h2"]} >= kinds


@pytest.mark.parametrize(("field", "value"), [("mtu", 1400), ("address", "198.51.100.2")])
def test_a_setting_of_a_host(make: Make, fleets: Any, field: str, value: Any) -> None:
    before = make(shop=["h1", "h2"])
    after = make(before, hosts=fleets.hosts("h1", "h3", h2={"address": "192.0.2.12", field: value}), shop=["h1", "h2"])
    found = told(before, after)
    felt: set[Impact] = set()
    for name in ("h1", "h2"):
        felt |= {*steps_impact(steps(after.plan.hosts[name], answer(before.plan.hosts[name])))}
    if field == "mtu":
        assert {deed.kind for deed in found["h1"]} >= {"container", "overlay"} and "mesh" in str(found["h2"])
        assert not felt, "what is too large for the new MTU is said where the network's MTU changes"
    else:
        assert Deed("", "peers", "", "~") in found["h1"]
        assert {impact.label for impact in felt} == {Label.brief}


def test_what_is_not_known_is_told_as_it_stands() -> None:
    found = deeds_of([("add", "run frobnicate --hard"), ("add", "write /opt/x")], Names())
    assert found == [Deed("", "step", "run frobnicate --hard", "~"), Deed("", "step", "~ /opt/x", "~")]
    assert any("frobnicate --hard" in line for line in deed_lines({"h1": found}, {}))
    assert not any("\x1b" in line for line in deed_lines({"h1": [Deed("", "step", "\x1b[2J", "~")]}, {}))


def test_much_is_counted() -> None:
    def of(network: str) -> list[Deed]:
        return [Deed(network, "container", f"{n}.web", "+") for n in range(5)] + [Deed(network, "names", "", "~")]

    assert [*deed_lines({"h1": of("pn-1")}, {})] == ["private network pn-1", "  h1  + 5 containers, ~ names"]
    hosts = {f"h{number}": of("pn-1") for number in range(40)}
    assert [*deed_lines(hosts, {})] == ["private network pn-1", "  40 hosts: + 200 containers, ~ names (40)"]
    networks = {f"h{number}": of(f"pn-{number}") for number in range(40)}
    assert [*deed_lines(networks, {})] == ["40 private networks on hosts: + 200 containers, ~ names (40)"]
