"""What hosts are to be: only what they take part in, the same from both ends, and small enough for every path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privnet.model.identifiers import format_address
from privnet.model.lock import Lock
from privnet.plan.allocate import allocate
from privnet.plan.host import Plan, plan_fleet

FEW = settings(max_examples=40, deadline=None)
HOSTS = [f"h{number}" for number in range(5)]


def planned(declaration: Any, *, keys: bool = True) -> tuple[Plan, Lock]:
    allocation = allocate(declaration, Lock(fleet="test"), 0)
    assert not allocation.problems
    lock = allocation.lock
    if keys:
        hosts = {name: replace(host, wireguard=f"key-of-{name}") for name, host in lock.hosts.items()}
        lock = replace(lock, hosts=hosts)
    return plan_fleet(declaration, lock), lock


@st.composite
def placements(draw: st.DrawFn) -> dict[str, list[str]]:
    """Hosts of the `web` containers of some projects."""
    return draw(
        st.dictionaries(st.sampled_from(["shop", "blog", "docs"]), st.lists(st.sampled_from(HOSTS), max_size=6))
    )


def laid(fleets: Any, placed: dict[str, list[str]], **fleet: Any) -> Any:
    projects = {name: fleets.project(name, {name: {"web": hosts}}) for name, hosts in placed.items()}
    return fleets.declare({"hosts": fleets.hosts(*HOSTS), **fleet}, projects)


@FEW
@given(placed=placements())
def test_a_host_knows_only_networks_that_have_a_container_on_it(fleets: Any, placed: dict[str, list[str]]) -> None:
    plan, _ = planned(laid(fleets, placed))
    for name, host in plan.hosts.items():
        wanted = {project for project, hosts in placed.items() if name in hosts}
        assert {overlay.network.project for overlay in host.overlays} == wanted
        for overlay in host.overlays:
            hosts = placed[overlay.network.project]
            assert len(overlay.ports) == 1 + hosts.count(name)
            assert sorted(r.container.host for r in overlay.remotes) == sorted(h for h in hosts if h != name)


@FEW
@given(placed=placements())
def test_peers_are_those_one_shares_a_network_with_and_symmetric(fleets: Any, placed: dict[str, list[str]]) -> None:
    plan, lock = planned(laid(fleets, placed))
    peers = {name: {peer.host for peer in host.mesh.peers} for name, host in plan.hosts.items()}
    for name in HOSTS:
        assert peers[name] == {other for hosts in placed.values() if name in hosts for other in hosts} - {name}
        assert all(name in peers[other] for other in peers[name])
    for host in plan.hosts.values():
        for peer in host.mesh.peers:
            assert peer.address == format_address(lock.hosts[peer.host].mesh)
            assert peer.public_key == f"key-of-{peer.host}"


@FEW
@given(placed=placements())
def test_the_guard_lets_speak_who_has_a_container_there(fleets: Any, placed: dict[str, list[str]]) -> None:
    plan, lock = planned(laid(fleets, placed))
    by_vni = {network.vni: network for network in plan.networks.values()}
    for name, host in plan.hosts.items():
        own = format_address(lock.hosts[name].mesh)
        wanted = set()
        for overlay in host.overlays:
            for container in overlay.network.containers:
                if container.host != name:
                    vtep = format_address(lock.hosts[container.host].mesh)
                    wanted.add((vtep, overlay.network.vni, container.mac, container.address))
        found = [(s.vtep, s.vni, s.mac, s.address) for s in host.guard.speakers]
        assert set(found) == wanted
        assert len(found) == len(wanted)
        assert own not in {vtep for vtep, *_ in found}
        ports = {binding.port for binding in host.guard.bindings}
        assert ports == {port.name for overlay in host.overlays for port in overlay.ports}
        assert all(by_vni[overlay.network.vni] is overlay.network for overlay in host.overlays)


def test_device_names_fit_into_the_kernel_s_fifteen_characters(fleets: Any) -> None:
    project = fleets.project("shop", {"a": {"web": ["h1"] * 3}}, vni=16777215, cidr="10.0.0.0/16")
    plan, _ = planned(fleets.declare({"hosts": fleets.hosts("h1"), "vxlan": {"vni": "1-16777215"}}, {"shop": project}))
    (overlay,) = plan.hosts["h1"].overlays
    names = [overlay.network.bridge, overlay.network.vxlan, *(port.name for port in overlay.ports)]
    assert all(len(name) <= 15 for name in names)
    assert len(set(names)) == len(names)


def test_ports_macs_and_devices_are_unique_on_a_host(fleets: Any) -> None:
    placed = {"shop": ["h0", "h1", "h0"], "blog": ["h0", "h1"], "docs": ["h0"]}
    plan, _ = planned(laid(fleets, placed, network={"cidr": "10.1.0.0/24"}))
    ports = [port for overlay in plan.hosts["h0"].overlays for port in overlay.ports]
    assert len({port.name for port in ports}) == len(ports)
    assert len({port.netns for port in ports}) == len(ports)
    for overlay in plan.hosts["h0"].overlays:
        macs = [port.mac for port in overlay.ports] + [remote.container.mac for remote in overlay.remotes]
        macs += [port.host_mac for port in overlay.ports] + [overlay.mac, overlay.network.bridge_mac]
        assert len(set(macs)) == len(macs)
    vxlans = [overlay.mac for name in ("h0", "h1") for overlay in plan.hosts[name].overlays]
    assert len(set(vxlans)) == 2, "a VXLAN device drops frames that carry its own MAC"


def test_a_host_without_a_key_is_pending_and_no_peer(fleets: Any) -> None:
    plan, _ = planned(laid(fleets, {"shop": ["h0", "h1"]}), keys=False)
    assert plan.hosts["h0"].mesh.peers == ()
    assert plan.hosts["h0"].mesh.pending == ("h1",)
    assert plan.hosts["h2"].mesh.pending == ()


# --- MTU ------------------------------------------------------------------------------------------

V4 = {"address": "192.0.2.50"}
V6 = {"address": "2001:db8::1"}


@pytest.mark.parametrize(
    ("hosts", "mesh", "network"),
    [
        ([V4], [1440], 1390),
        ([V6], [1420], 1370),
        ([V4, V6], [1440, 1420], 1370),
        ([V4 | {"mtu": 9000}], [8940], 8890),
        ([V4 | {"mtu": 9000}, {"address": "192.0.2.51"}], [8940, 1440], 1390),
        ([V6 | {"mtu": 1500}, V4 | {"mtu": 1400}], [1420, 1340], 1270),
        ([V4 | {"endpoint": "[2001:db8::9]:51820"}], [1420], 1370),
        ([V6 | {"endpoint": "198.51.100.9:51820"}], [1440], 1390),
        ([V4, V6 | {"mtu": 9000}], [1440, 8920], 1370),
        ([V4, V4 | {"mtu": 9000, "endpoint": "[2001:db8::9]:51820"}], [1440, 8920], 1370),
        ([V4 | {"mtu": 1280}], [1220], 1170),
    ],
)
def test_the_smallest_path_of_its_hosts_decides_the_mtu(
    fleets: Any, hosts: list[Any], mesh: list[int], network: int
) -> None:
    """1500 − 60 (WireGuard on IPv4; 80 on IPv6) − 50 (VXLAN)."""
    names = [f"h{number}" for number in range(len(hosts))]
    declared = dict(zip(names, hosts, strict=True)) | {"other": {"address": "192.0.2.99", "mtu": 1300}}
    project = fleets.project("shop", {"a": {"web": names}})
    plan, _ = planned(fleets.declare({"hosts": declared}, {"shop": project}))
    assert [plan.hosts[name].mesh.mtu for name in names] == mesh
    (found,) = plan.networks.values()
    assert found.mtu == network
    for name in names:
        assert {port.mtu for overlay in plan.hosts[name].overlays for port in overlay.ports} == {network}


def test_an_empty_network_has_the_mtu_of_an_ordinary_one(fleets: Any) -> None:
    plan, _ = planned(laid(fleets, {"shop": []}))
    (network,) = plan.networks.values()
    assert (network.hosts, network.mtu) == ((), 1390)


def test_peers_are_reached_at_their_endpoints(fleets: Any) -> None:
    hosts = {"a": V4, "b": V6, "c": {"address": "192.0.2.7", "endpoint": "198.51.100.7:4500"}}
    project = fleets.project("shop", {"a": {"web": list(hosts)}})
    plan, _ = planned(fleets.declare({"hosts": hosts, "wireguard": {"port": 7777}}, {"shop": project}))
    endpoints = {peer.host: peer.endpoint for host in plan.hosts.values() for peer in host.mesh.peers}
    assert endpoints == {"a": "192.0.2.50:7777", "b": "[2001:db8::1]:7777", "c": "198.51.100.7:4500"}


# --- names ----------------------------------------------------------------------------------------


def names_of(fleets: Any, formation: dict[str, Any]) -> tuple[dict[str, list[str]], tuple[str, ...], str]:
    project = fleets.project("shop", {"a": formation})
    plan, _ = planned(fleets.declare({"hosts": fleets.hosts("h1")}, {"shop": project}))
    (network,) = plan.networks.values()
    answers: dict[str, list[str]] = {}
    for record in network.names.records:
        for name in record.names:
            answers.setdefault(name, []).append(record.address)
    return answers, network.names.empty, f"{fleets.ap('a')}.{network.id}.private-network.internal"


def test_all_forms_of_names(fleets: Any) -> None:
    answers, empty, app = names_of(fleets, {"web": ["h1", "h1"], "worker": ["h1"]})
    assert answers == {
        app: ["10.240.0.2", "10.240.0.3"],
        f"web.{app}": ["10.240.0.2", "10.240.0.3"],
        f"1.web.{app}": ["10.240.0.2"],
        f"2.web.{app}": ["10.240.0.3"],
        f"worker.{app}": ["10.240.0.4"],
        f"1.worker.{app}": ["10.240.0.4"],
    }
    assert empty == ()


def test_without_web_containers_the_bare_name_has_no_address(fleets: Any) -> None:
    answers, empty, app = names_of(fleets, {"worker": ["h1"]})
    assert answers == {f"worker.{app}": ["10.240.0.2"], f"1.worker.{app}": ["10.240.0.2"]}
    assert empty == (), "it exists because a name below it does"


def test_what_is_scaled_to_none_exists_without_an_address(fleets: Any) -> None:
    _, empty, app = names_of(fleets, {"web": [], "worker": {"count": 0}})
    assert empty == tuple(sorted((app, f"web.{app}", f"worker.{app}")))
    answers, empty, app = names_of(fleets, {"web": ["h1"], "worker": []})
    assert empty == (f"worker.{app}",)
    assert app in answers


def test_an_application_without_formation_has_a_name(fleets: Any) -> None:
    answers, empty, app = names_of(fleets, {})
    assert (answers, empty) == ({}, (app,))


def test_a_reverse_look_up_gives_the_most_special_name(fleets: Any) -> None:
    project = fleets.project("shop", {"a": {"web": ["h1"]}})
    plan, _ = planned(fleets.declare({"hosts": fleets.hosts("h1")}, {"shop": project}))
    (network,) = plan.networks.values()
    assert network.names.records[0].names[0].startswith(f"1.web.{fleets.ap('a')}.")
