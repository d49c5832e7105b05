"""A host that is out: the others plan without it, and all of its numbers stay its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from privnet.compiler import Compiled, compile_fleet, render_fleet
from privnet.diagnostics import render_text
from privnet.model.identifiers import format_address
from privnet.store import load_lock, save_lock

HOSTS = ("h1", "h2", "h3")
Declare = Callable[..., Compiled]


@pytest.fixture
def declared(written: Callable[..., Path], fleets: Any) -> Declare:
    """A fleet, compiled with the numbers that the calls before have given: hosts that are out, and where `web` is."""

    def declare(*out: str, web: Any = HOSTS, more: Any = None, zones: Any = None) -> Compiled:
        hosts = {name: host | ({"state": "out"} if name in out else {}) for name, host in fleets.hosts(*HOSTS).items()}
        hosts["h3"]["mtu"] = 1400
        for name, zone in (zones or {}).items():
            hosts[name]["zone"] = zone
        directory = written({"hosts": hosts}, {"shop": fleets.project("shop", {"a": {"web": web, **(more or {})}})})
        first = compile_fleet(directory)
        if not first.known.serial:
            keys = {name: replace(host, wireguard=f"{name[1] * 42}A=") for name, host in first.lock.hosts.items()}
            save_lock(directory, replace(first.lock, hosts=keys))
        elif first.lock_changed:
            save_lock(directory, first.lock)
        return compile_fleet(directory)

    return declare


def test_no_other_host_knows_it(declared: Declare, fleets: Any) -> None:
    """Not as a peer, nor in forwarding, guard or names; the twin: before, all of them did."""
    full = declared()
    files = {name: "".join(file.text for file in own) for name, own in render_fleet(full.plan).items()}
    third, mesh = f"3.web.{fleets.ap('a')}", format_address(full.lock.hosts["h3"].mesh)
    address = full.plan.networks[fleets.network("shop")["id"]].containers[2].address
    for host in ("h1", "h2"):
        assert files[host].count(mesh) > 3 and "333333A=" in files[host] and third in files[host]
    plan = declared("h3").plan
    assert set(plan.hosts) == {"h1", "h2"}
    (network,) = plan.networks.values()
    assert network.hosts == ("h1", "h2") and len(network.remotes) == 2
    for own in render_fleet(plan).values():
        text = "".join(file.text for file in own if not file.path.endswith("/record.json"))
        assert mesh not in text and address not in text and "333333A=" not in text and third not in text


def test_its_numbers_stay_its_own_and_it_comes_back_to_what_was(declared: Declare, fleets: Any) -> None:
    full = declared()
    out = declared("h3")
    assert out.lock.hosts == full.lock.hosts and out.lock.networks == full.lock.networks
    assert out.lock.quarantine == ()
    back = declared()
    assert render_fleet(back.plan) == render_fleet(full.plan)
    assert back.lock.same_numbers(full.lock)


def test_the_mtu_of_its_networks_stays(declared: Declare) -> None:
    """It is the smallest host: without it packets could be larger, and too large when it is back."""
    (before,) = declared().plan.networks.values()
    (after,) = declared("h3").plan.networks.values()
    assert before.mtu == after.mtu == 1400 - 60 - 50


def test_a_container_that_moves_away_from_it_keeps_its_address(declared: Declare, fleets: Any) -> None:
    full, slot = declared(), f"3.web.{fleets.ap('a')}"
    (network,) = declared("h3", web=["h1", "h2", "h1"]).plan.networks.values()
    (container,) = [container for container in network.containers if container.slot == slot]
    (was,) = [c for n in full.plan.networks.values() for c in n.containers if c.slot == slot]
    assert (container.host, container.address) == ("h1", was.address)


def test_a_name_whose_containers_are_all_on_it_exists_without_an_address(declared: Declare, fleets: Any) -> None:
    (network,) = declared("h3", more={"worker": ["h3"]}).plan.networks.values()
    assert f"worker.{fleets.ap('a')}.{network.names.suffix}" in network.names.empty


def test_privnet_places_nothing_new_on_it_and_moves_nothing_from_it(declared: Declare, fleets: Any) -> None:
    def placed(compiled: Compiled) -> list[str]:
        (network,) = compiled.lock.networks.values()
        return [slot.host for slot in network.slots.values()]

    assert sorted(placed(declared(web={"count": 3}))) == ["h1", "h2", "h3"]
    assert sorted(placed(declared("h3", web={"count": 5}))) == ["h1", "h1", "h2", "h2", "h3"]
    assert "h3" in placed(declared(web={"count": 6}))[5:]


def test_a_zone_without_a_host_in_service_gets_nothing_new(declared: Declare) -> None:
    zones = {"h1": "a", "h2": "a", "h3": "b"}
    compiled = declared("h3", web={"count": 4, "spread": "zone"}, zones=zones)
    (network,) = compiled.lock.networks.values()
    assert sorted(slot.host for slot in network.slots.values()) == ["h1", "h1", "h2", "h2"]


def test_a_network_that_is_on_it_alone_is_on_no_host(declared: Declare) -> None:
    plan = declared("h3", web=["h3"]).plan
    assert [host.overlays for host in plan.hosts.values()] == [(), ()]
    (network,) = plan.networks.values()
    assert network.hosts == network.containers == ()


def test_a_warning_says_what_is_placed_on_it(declared: Declare, fleets: Any) -> None:
    (warning,) = declared("h3").warnings
    assert (warning.code, warning.severity) == ("PN706", "warning")
    compiled = declared("h3", more={"worker": ["h3"] * 3})
    said = render_text(compiled.warnings, color=False, sources={})
    ap = fleets.ap("a")
    assert (
        f"warning[PN706]: 4 containers on `h3` count as not running: 3.web.{ap}, 1.worker.{ap}, 2.worker.{ap} and "
        "1 other\n" in said
    )
    assert "place them on other hosts, or delete `state: out` when the host is to serve again" in said
    assert declared("h3", web=["h1", "h2", "h1"]).warnings == ()


def test_the_lock_file_says_who_is_out(declared: Declare) -> None:
    declared()
    compiled = declared("h3")
    directory = compiled.declaration.directory
    assert " mtu 1400 state out\n" in (directory / "privnet.lock.yaml").read_text()
    assert load_lock(directory, "test").out == {"h3"}
    declared()
    assert " state " not in (directory / "privnet.lock.yaml").read_text()
