# ruff: noqa: E501 - sentences stand as they are printed
"""What must hold on a host before anything is changed there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from answers import answer, text

from privnet.deploy.firewall import parse_tables
from privnet.deploy.preflight import obstacles, twins
from privnet.deploy.state import Disk, Firewall, HostState, Link, parse_snapshot
from privnet.plan.host import HostPlan, Plan

FOREIGN_RULES = Path(__file__).parents[2] / "security" / "foreign"
NOW = 1_800_000_000
FOREIGN = Link("flannel.1", "vxlan", 9, True, 1450, "02:00:00:00:00:01", "", {"id": 1, "port": 4789}, {})

JOINING = Link("privnet", "tun", 9, True, 1440, "", "", {"type": "tun", "vnet_hdr": True}, {})
FORWARDS = (
    "its firewall would drop private traffic: chain {} drops what it does not know, and bridged frames pass through it "
    "(net.bridge.bridge-nf-call-iptables=1). Let private networks pass: "
)
OR_NOT = "; or set net.bridge.bridge-nf-call-iptables=0"
KEEPS_OUT = (
    "its firewall keeps peers out: chain {} drops UDP port 51820, to which h2 (192.0.2.12) would speak: they would reach it only "
    "for a while after it has spoken itself. Let them in: "
)
COMES_OUT = "its firewall would drop private traffic: chain {} drops UDP port 4789 out of the mesh, from h2. "
INPUT = "type filter hook input priority 0; policy drop;"


def beside(state: HostState, ruleset: str, bridged: bool = False) -> HostState:
    """With the rules of another program, as they were captured."""
    tables = parse_tables((FOREIGN_RULES / f"{ruleset}.nft").read_text().splitlines())
    return replace(state, firewall=Firewall(bridged=bridged, tables=tables))


def ruled(state: HostState, *rules: str, bridged: bool = False, chain: str = "") -> HostState:
    """With rules of somebody's own in one chain, or in another one that it jumps to."""
    first = (INPUT.replace("drop", "accept"), f"jump {chain}", "}", f"chain {chain} {{") if chain else ()
    tables = parse_tables(["table inet own {", "chain all {", *first, *rules, "}", "}"])
    return replace(state, firewall=Firewall(bridged=bridged, tables=tables))


def without_peers(state: HostState) -> HostState:
    return replace(state, mesh=replace(state.mesh, peers={}))


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
        lambda s: replace(s, configures=("/etc/systemd/network/50-old.network",)),
        "its systemd-networkd is off, private networks need it, and once started it would set up devices of the host by "
        "/etc/systemd/network/50-old.network: that can cut the host off, and nothing would take it back. Move away what is not "
        "meant to be used (`mv FILE FILE.off`); or, if all of it is, `systemctl enable --now systemd-networkd` there, where you "
        "can look after it. Then run again",
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
    "Docker, which forwards nothing else": (
        lambda s: beside(s, "docker", bridged=True),
        f"{FORWARDS.format('ip filter FORWARD')}`iptables -I DOCKER-USER -i pnb+ -o pnb+ -j ACCEPT`{OR_NOT}",
    ),
    "ufw, which forwards nothing else": (
        lambda s: beside(s, "ufw", bridged=True),
        f"{FORWARDS.format('ip filter FORWARD')}`ufw route allow in on pnb+ out on pnb+`{OR_NOT}",
    ),
    "firewalld, which forwards nothing else": (
        lambda s: beside(s, "firewalld", bridged=True),
        f"{FORWARDS.format('inet firewalld filter_FORWARD')}`firewall-cmd --permanent --new-zone=privnet`, the same with "
        f"`--zone=privnet --add-interface=pnb+` and with `--zone=privnet --add-forward`, then `firewall-cmd --reload`{OR_NOT}",
    ),
    "rules of one's own that forward nothing else": (
        lambda s: ruled(s, "type filter hook forward priority 0;", "ct state established accept", "reject", bridged=True),
        f"{FORWARDS.format('inet own all')}`nft insert rule inet own all iifname \"pnb*\" oifname \"pnb*\" accept`{OR_NOT}",
    ),
    "legacy iptables that forwards nothing else": (
        lambda s: replace(s, firewall=Firewall(bridged=True, legacy=True)),
        f"{FORWARDS.format('FORWARD of iptables-legacy')}`iptables-legacy -I FORWARD -i pnb+ -o pnb+ -j ACCEPT`{OR_NOT}",
    ),
    "rules of one's own that let no peer in": (
        lambda s: ruled(without_peers(s), INPUT, "ct state vmap { established : accept }", "iifname \"privnet\" accept"),
        f"{KEEPS_OUT.format('inet own all')}`nft insert rule inet own all udp dport 51820 accept`",
    ),
    "Tailscale's rules": (
        lambda s: ruled(without_peers(s), 'iifname != "tailscale0*" ip saddr 100.64.0.0/10 counter drop', chain="ts-input"),
        f"{COMES_OUT.format('inet own all')}Tailscale drops 100.64.0.0/10 from everybody else: give the fleet another "
        "`wireguard.mesh`",
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


@pytest.mark.parametrize("program", ["ufw", "firewalld"])
def test_a_firewall_that_lets_no_peer_in(h1: HostPlan, well: HostState, program: str) -> None:
    """Neither to WireGuard nor, out of the mesh, to the networks: both are said, and what to do about each."""
    closed = beside(without_peers(well), f"{program}-closed")
    chain = closed.firewall.tables[0].family + " " + closed.firewall.tables[0].name
    into, out_of = obstacles(h1, closed, NOW)
    assert into.startswith(KEEPS_OUT.format(chain + (" INPUT" if program == "ufw" else " filter_INPUT")))
    assert out_of.startswith(COMES_OUT.format(chain + (" INPUT" if program == "ufw" else " filter_INPUT")))
    said = into + out_of
    if program == "ufw":
        assert "`ufw allow 51820/udp`" in said and "`ufw allow in on privnet to any port 4789 proto udp`" in said
    else:
        assert "`firewall-cmd --permanent --add-port=51820/udp`, then `firewall-cmd --reload`" in said
        assert "`--zone=mesh --add-interface=privnet` and with `--zone=mesh --add-port=4789/udp`" in said
    # The twins: let in, as the programs do it when they are told so; and a mesh that runs is left alone.
    assert list(obstacles(h1, beside(without_peers(well), program), NOW)) == []
    assert list(obstacles(h1, beside(well, f"{program}-closed"), NOW)) == []


@pytest.mark.parametrize("program", ["docker", "ufw", "firewalld"])
def test_what_the_message_says_lets_private_networks_pass(h1: HostPlan, well: HostState, program: str) -> None:
    """Their own commands made these rules. Frames that pass no firewall are nobody's business."""
    assert list(obstacles(h1, beside(well, f"{program}-passes", bridged=True), NOW)) == []
    assert list(obstacles(h1, beside(well, program), NOW)) == []


def test_copies_know_each_other(well: HostState) -> None:
    other = replace(well, machine="f" * 32)
    assert twins({"a": well, "b": other, "c": well}) == {"a": "c", "c": "a"}
    assert twins({"a": replace(well, machine=""), "b": replace(well, machine="")}) == {}
