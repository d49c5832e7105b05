# ruff: noqa: E501 - sentences stand as they are printed
"""What must hold on a host before anything is changed there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from answers import answer, text

from privnet.deploy.preflight import obstacles, twins
from privnet.deploy.state import Disk, HostState, Link, SetupFile, parse_snapshot
from privnet.plan.host import HostPlan, Plan

NOW = 1_800_000_000
FOREIGN = Link("flannel.1", "vxlan", 9, True, 1450, "02:00:00:00:00:01", "", {"id": 1, "port": 4789}, {})

JOINING = Link("privnet", "tun", 9, True, 1440, "", "", {"type": "tun", "vnet_hdr": True}, {})
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
