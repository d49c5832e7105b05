# ruff: noqa: E501 - sentences stand as they are printed
"""What must hold on a host before anything is changed there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from answers import answer, text

from privnet.deploy.preflight import obstacles, twins
from privnet.deploy.state import Disk, Hidden, HostState, Link, SetupFile, Way, parse_snapshot
from privnet.deploy.ways import LOOPBACK, endpoints
from privnet.plan.host import HostPlan, Plan

NOW = 1_800_000_000
FOREIGN = Link("flannel.1", "vxlan", 9, True, 1450, "02:00:00:00:00:01", "", {"id": 1, "port": 4789}, {})

JOINING = Link("privnet", "tun", 9, True, 1440, "", "", {"type": "tun", "vnet_hdr": True}, {})
OWN, PEER, HERE = "192.0.2.11", "192.0.2.12", Way("lo", "192.0.2.11", 65536)


def new_peer(state: HostState, ways: dict[str, Way]) -> HostState:
    """One that this host has not met, and what its kernel says of the ways."""
    return replace(state, mesh=None, ways=ways | {LOOPBACK: HERE})


CASES: dict[str, tuple[Callable[[HostState], HostState], str]] = {
    "a full disk": (
        lambda s: replace(s, disks={"/etc": Disk(3 << 20, 5000)}),
        "the file system of /etc has 3 MiB left, a run needs 50: make room there",
    ),
    "no inodes": (
        lambda s: replace(s, disks={"/var/lib": Disk(1 << 40, 12)}),
        "the file system of /var/lib can hold 12 more files, a run needs 1000: make room there",
    ),
    "a slow clock": (
        lambda s: replace(s, clock=NOW - 3 * 3600),
        "its clock is 3 hours behind this machine's. A host whose clock is set back cannot begin WireGuard sessions with peers "
        "that saw a later time: let a time service set it (`timedatectl`)",
    ),
    "a fast clock": (
        lambda s: replace(s, clock=NOW + 121),
        "its clock is 2 minutes ahead of this machine's. A host whose clock is set back cannot begin WireGuard sessions with "
        "peers that saw a later time: let a time service set it (`timedatectl`)",
    ),
    "an old dnsmasq": (
        lambda s: replace(s, packages={**s.packages, "dnsmasq-base": "1:2.85-1+deb11u1"}),
        "its dnsmasq-base has version 1:2.85-1+deb11u1, private networks need 2.89: upgrade to Debian 12 or newer",
    ),
    "a wireguard-go that joins datagrams": (
        lambda s: replace(s, kernel_wireguard=False, packages={**s.packages, "wireguard-go": "0.0.20231211-1+b9"}),
        "its kernel has no WireGuard, and its wireguard-go 0.0.20231211-1+b9 joins datagrams, which the guard cannot look into: a "
        "taken-over host could speak there as any container. Boot a kernel that has WireGuard, as Debian's have, or install "
        "wireguard-go 0.0.20220316",
    ),
    "a wireguard-go of one's own that joins datagrams": (
        lambda s: replace(s, links={**s.links, "privnet": JOINING}),
        "its kernel has no WireGuard, and its wireguard-go in use joins datagrams, which the guard cannot look into: a "
        "taken-over host could speak there as any container. Boot a kernel that has WireGuard, as Debian's have, or install "
        "wireguard-go 0.0.20220316",
    ),
    "an old systemd": (
        lambda s: replace(s, systemd_version="247"),
        "its systemd has version 247, private networks need 252: upgrade to Debian 12 or newer",
    ),
    "another program on the port that the mesh is to have": (
        lambda s: replace(s, mesh=replace(s.mesh, port=51999), listening=frozenset({51999, 51820})),
        "another program there uses UDP port 51820, which the mesh needs: `ss -lunp` shows which; end it, or give the fleet "
        "another `wireguard.port`",
    ),
    "another program on the mesh's port": (
        lambda s: replace(s, mesh=None, listening=frozenset({53, 51820})),
        "another program there uses UDP port 51820, which the mesh needs: `ss -lunp` shows which; end it, or give the fleet "
        "another `wireguard.port`",
    ),
    "another overlay on the same port": (
        lambda s: replace(s, links={**s.links, "flannel.1": FOREIGN}),
        "its VXLAN device flannel.1, which is not privnet's, uses UDP port 4789: the guard would stop its traffic. Give it "
        "another port, or the fleet another `vxlan.port`",
    ),
    "a connection that has the mesh's port": (
        lambda s: replace(s, mesh=None, clients=frozenset({51820})),
        "a program there has UDP port 51820, which the mesh needs, as the port of a connection: run again when it has ended. "
        "To keep the port from connections: `sysctl -w net.ipv4.ip_local_reserved_ports=51820`, and the same in /etc/sysctl.d",
    ),
    "an overlay of an engine in a namespace of its own": (
        lambda s: replace(s, hidden=(Hidden("1-x7k2", "vxlan0", 4096, 4789), Hidden("2-y", "vxlan0", 4097, 8472))),
        "its VXLAN device vxlan0 (VNI 4096) in namespace 1-x7k2 of a container engine uses UDP port 4789 of the host: the guard "
        "would stop its traffic. Give the fleet another `vxlan.port`, or the engine another one (`docker swarm init "
        "--data-path-port`)",
    ),
    "a port of the overlays that is taken where nobody sees it": (
        lambda s: replace(s, listening=frozenset({4789}), links={n: k for n, k in s.links.items() if n[:3] != "pnx"}),
        "something there uses UDP port 4789, which the overlays need: `ss -lunp` shows which program; where it names none, a "
        "VXLAN or Geneve device that was moved to another network namespace, as container engines do. End it, or give the fleet "
        "another `vxlan.port`",
    ),
    "no route to a peer": (
        lambda s: new_peer(s, {OWN: HERE}),
        "it has no route to h2 (192.0.2.12): `ip route get ADDRESS` there says so. Give it one, or the peer an `endpoint` that it "
        "reaches",
    ),
    "no route to anybody, itself among them": (
        lambda s: new_peer(s, {}),
        "it has no route to h2 (192.0.2.12): `ip route get ADDRESS` there says so. Give it one, or the peer an `endpoint` that it "
        "reaches",
    ),
    "a peer that has this host's address": (
        lambda s: new_peer(s, {OWN: HERE, PEER: HERE}),
        "it has the address of h2 (192.0.2.12) itself: give each host an `endpoint` of its own",
    ),
    "a route to a peer through the tunnel": (
        lambda s: new_peer(s, {OWN: HERE, PEER: Way("privnet", "100.64.0.1", 1440)}),
        "its route to h2 (192.0.2.12) goes by privnet, into the tunnel that it is to build: give it another",
    ),
    "a route to a peer from another address": (
        lambda s: new_peer(s, {OWN: HERE, PEER: Way("eth1", "10.0.0.7", 1500)}),
        "it would speak to h2 (192.0.2.12) from 10.0.0.7, and peers hear it from 192.0.2.11 alone, its endpoint: give the route "
        "that source (`ip route … src 192.0.2.11`), or the host `endpoint: 10.0.0.7` in its entry",
    ),
    "a way that takes smaller packets than declared": (
        lambda s: new_peer(s, {OWN: HERE, PEER: Way("eth0", "192.0.2.11", 1400)}),
        "its way to h2 (192.0.2.12) by eth0 takes packets of 1400 bytes at most, and the declaration says 1500: larger ones would "
        "be lost. Say `mtu: 1400` in its entry, or raise that of the device or route",
    ),
    "a route into the mesh": (
        lambda s: replace(s, routes=(("default", "eth0"), ("100.64.7.0/24", "tun0"))),
        "its route 100.64.7.0/24 by tun0 lies inside the mesh's prefix 100.64.0.0/16: what is for other hosts would go there. "
        "Take the route away, or give the fleet another `wireguard.mesh`",
    ),
    "a networkd that is off and would configure an uplink": (
        lambda s: replace(
            s,
            devices=frozenset({"eth0"}),
            setups=(SetupFile("/etc/systemd/network/50-old.network", (("Name", "e*"),)),),
            units={name: unit for name, unit in s.units.items() if name != "systemd-networkd.service"},
        ),
        "its systemd-networkd is off, private networks need it, and once started it would set up devices of the host by "
        "/etc/systemd/network/50-old.network: that can cut the host off, and nothing would take it back. Move away what is not "
        "meant to be used (`mv FILE FILE.off`); or, if all of it is, `systemctl enable --now systemd-networkd` there, where you "
        "can look after it. Then run again",
    ),
    "a file for every device that comes before ours": (
        lambda s: replace(s, setups=(SetupFile("/etc/systemd/network/01-all.network", (("Name", "*"),)),)),
        "networkd would set up devices of private networks by /etc/systemd/network/01-all.network, which comes before "
        "privnet's files (05-privnet-…): at its next restart they would lose their bridge. Give it a name that comes later "
        "(`mv 01-all.network 50-all.network`), or a [Match] that leaves `pn*` and `privnet` out",
    ),
    "a file by which udev renames every device": (
        lambda s: replace(s, setups=(SetupFile("/etc/systemd/network/50-x.link", (("Name", "*"),), ("Name=lan",)),)),
        "udev would rename devices of private networks, or change their MAC or MTU, by /etc/systemd/network/50-x.link: give "
        "it a [Match] that leaves `pn*` and `privnet` out",
    ),
    "a networkd that nobody can start": (
        lambda s: replace(s, masked=frozenset({"systemd-networkd.service", "privnet-guard.service"})),
        "its systemd-networkd.service is masked, and private networks need it: `systemctl unmask systemd-networkd.service` "
        "there, then run again",
    ),
    "a route of a table that is asked first": (
        lambda s: replace(s, earlier=(("100.64.7.9", "tun0", "52"), ("10.0.0.0/8", "tun0", "52"))),
        "its route 100.64.7.9 by tun0 in table 52, which is asked before the main one, lies inside the mesh's prefix "
        "100.64.0.0/16: what is for other hosts would go there. Take the route away, or give the fleet another `wireguard.mesh`",
    ),
    "a wider route of a table that is asked first": (
        lambda s: replace(s, earlier=(("100.64.0.0/10", "tun0", "vpn"), ("100.64.0.0/10", "throw", "52"))),
        "its route 100.64.0.0/10 by tun0 in table vpn, which is asked before the main one, holds the mesh's prefix "
        "100.64.0.0/16: what is for other hosts would go there. Take the route away, or give the fleet another `wireguard.mesh`",
    ),
}


@pytest.fixture(scope="module")
def h1(planned: Callable[..., Plan]) -> HostPlan:
    return planned(shop=["h1", "h2"]).hosts["h1"]


@pytest.fixture
def well(h1: HostPlan) -> HostState:
    state = parse_snapshot(text(answer(h1)))
    assert isinstance(state, HostState)
    return replace(state, clock=NOW)


@pytest.mark.parametrize("what", CASES)
def test_each_obstacle_is_said_alone(h1: HostPlan, well: HostState, what: str) -> None:
    broken, sentence = CASES[what]
    assert list(obstacles(h1, broken(well), NOW)) == [sentence]


def test_a_host_that_is_well_has_none(h1: HostPlan, well: HostState) -> None:
    own = replace(well, listening=frozenset({51820}), routes=(("100.0.0.0/8", "eth0"), ("100.64.0.0/16", "privnet")))
    assert list(obstacles(h1, own, NOW + 119)) == []


def test_copies_know_each_other(well: HostState) -> None:
    other = replace(well, machine="f" * 32)
    assert twins({"a": well, "b": other, "c": well}) == {"a": "c", "c": "a"}
    assert twins({"a": replace(well, machine=""), "b": replace(well, machine="")}) == {}


def test_a_mesh_that_runs_is_left_alone_whatever_its_ways(h1: HostPlan, well: HostState) -> None:
    """Until its tunnels are to take larger packets than they do."""
    for ways in ({OWN: HERE}, {OWN: HERE, PEER: Way("eth1", "10.0.0.7", 1400)}, {}):
        assert [*obstacles(h1, replace(well, ways=ways | {LOOPBACK: HERE}), NOW)] == []
    small = Link("privnet", "wireguard", 9, True, 1300, "", "", {}, {})
    grows = replace(
        well,
        ways=ways | {LOOPBACK: HERE} | {PEER: Way("eth1", "10.0.0.7", 1400)},
        links={**well.links, "privnet": small},
    )
    assert len([*obstacles(h1, grows, NOW)]) == 1


def test_a_host_behind_a_translation_speaks_from_whatever_address_it_has(h1: HostPlan, well: HostState) -> None:
    ways = {OWN: Way("eth0", "10.0.0.7", 1500), PEER: Way("eth0", "10.0.0.7", 1500)}
    assert [*obstacles(h1, new_peer(well, ways), NOW)] == []


def test_ways_are_read_from_the_answer(h1: HostPlan) -> None:
    sections = answer(h1)
    sections["ways"] = ["lo 192.0.2.11 65536 192.0.2.11", "eth0 192.0.2.11 1500 192.0.2.12 192.0.2.13"]
    found = parse_snapshot(text(sections))
    assert isinstance(found, HostState)
    assert found.ways == {OWN: HERE} | dict.fromkeys((PEER, "192.0.2.13"), Way("eth0", OWN, 1500))
    assert endpoints(h1) == (LOOPBACK, OWN, PEER)
