# ruff: noqa: E501 - sentences stand as they are printed
"""What a host's own rules would do to private traffic: said by chain, with a remedy that lasts, or not said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from answers import answer, text

from privnet.deploy.foreign import obstacles
from privnet.deploy.listing import parse_tables
from privnet.deploy.state import Firewall, HostState, parse_snapshot
from privnet.plan.host import HostPlan, Plan

FOREIGN_RULES = Path(__file__).parents[2] / "security" / "foreign"
FORWARDS = (
    "its firewall would drop private traffic: chain {} drops what it does not know, and bridged frames pass through it "
    "(net.bridge.bridge-nf-call-iptables=1). Let private networks pass: "
)
OR_NOT = (
    ". Or, where nothing needs that setting: `echo net.bridge.bridge-nf-call-iptables=0 > /etc/sysctl.d/60-bridge-nf.conf`, "
    "`sysctl --system`"
)
NFT_LASTS = ", and the same where its table is loaded from (Debian: /etc/nftables.conf), or a reboot loses it"
IPTABLES_LASTS = ", then `netfilter-persistent save` (of the package iptables-persistent), or a reboot loses it"
RULE = "DOCKER-USER -i pnb+ -o pnb+ -j ACCEPT"
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


def chain(state: HostState, table: str, base: str, *rules: str, bridged: bool = False) -> HostState:
    """With one base chain in a table of somebody's own; a new host's uplink is eth0."""
    lines = [f"table {table} {{", "chain own {", f"type filter hook {base}", *rules, "}", "}"]
    tables = parse_tables(lines)
    assert tables[0].bases, "the chain is not read"
    return replace(state, routes=(("default", "eth0"),), firewall=Firewall(bridged=bridged, tables=tables))


def translated(state: HostState, *rules: str) -> HostState:
    """With what iptables-restore-translate says of iptables-legacy's table `filter`."""
    chains = [
        f"add chain ip filter {name} {{ type filter hook {name.lower()} priority 0; policy {'drop' if f':{name} DROP' in rules else 'accept'}; }}"
        for name in ("INPUT", "FORWARD", "OUTPUT")
    ]
    lines = ["add table ip filter", *chains, *(rule for rule in rules if not rule.startswith(":"))]
    return replace(state, firewall=Firewall(bridged=True, tables=parse_tables(lines)))


def without_peers(state: HostState) -> HostState:
    return replace(state, mesh=replace(state.mesh, peers={}))


CASES: dict[str, tuple[Callable[[HostState], HostState], str]] = {
    "Docker, which forwards nothing else": (
        lambda s: beside(s, "docker", bridged=True),
        f"{FORWARDS.format('ip filter FORWARD')}`iptables -I {RULE}`, which a reboot takes away. So that each start of Docker does it: "
        "`mkdir -p /etc/systemd/system/docker.service.d`, `printf '%s\\n' '[Service]' "
        f"'ExecStartPost=-/usr/sbin/iptables -D {RULE}' 'ExecStartPost=/usr/sbin/iptables -I {RULE}' > "
        f"/etc/systemd/system/docker.service.d/private-networks.conf`, `systemctl daemon-reload`{OR_NOT}",
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
        lambda s: ruled(
            s, "type filter hook forward priority 0;", "ct state established accept", "reject", bridged=True
        ),
        f'{FORWARDS.format("inet own all")}`nft insert rule inet own all iifname "pnb*" oifname "pnb*" accept`{NFT_LASTS}{OR_NOT}',
    ),
    "legacy iptables that forwards nothing else": (
        lambda s: translated(s, ":FORWARD DROP"),
        f"{FORWARDS.format('FORWARD of iptables-legacy')}`iptables-legacy -I FORWARD -i pnb+ -o pnb+ -j ACCEPT`{IPTABLES_LASTS}{OR_NOT}",
    ),
    "rules of one's own that let no peer in": (
        lambda s: ruled(without_peers(s), INPUT, "ct state vmap { established : accept }", 'iifname "privnet" accept'),
        f"{KEEPS_OUT.format('inet own all')}`nft insert rule inet own all udp dport 51820 accept`{NFT_LASTS}",
    ),
    "Tailscale's rules": (
        lambda s: ruled(
            without_peers(s), 'iifname != "tailscale0*" ip saddr 100.64.0.0/10 counter drop', chain="ts-input"
        ),
        f"{COMES_OUT.format('inet own all')}Let it through: give the fleet another `wireguard.mesh`, since Tailscale "
        "drops 100.64.0.0/10 from everybody else",
    ),
}


@pytest.fixture(scope="module")
def h1(planned: Callable[..., Plan]) -> HostPlan:
    return planned(shop=["h1", "h2"]).hosts["h1"]


@pytest.fixture
def well(h1: HostPlan) -> HostState:
    state = parse_snapshot(text(answer(h1)))
    assert isinstance(state, HostState)
    return state


@pytest.mark.parametrize("what", CASES)
def test_each_obstacle_is_said_alone(h1: HostPlan, well: HostState, what: str) -> None:
    broken, sentence = CASES[what]
    assert list(obstacles(h1, broken(well))) == [sentence]


@pytest.mark.parametrize("program", ["ufw", "firewalld"])
def test_a_firewall_that_lets_no_peer_in(h1: HostPlan, well: HostState, program: str) -> None:
    """Neither to WireGuard nor, out of the mesh, to the networks: both are said, and what to do about each."""
    closed = beside(without_peers(well), f"{program}-closed")
    chain = closed.firewall.tables[0].family + " " + closed.firewall.tables[0].name
    into, out_of = obstacles(h1, closed)
    assert into.startswith(KEEPS_OUT.format(chain + (" INPUT" if program == "ufw" else " filter_INPUT")))
    assert out_of.startswith(COMES_OUT.format(chain + (" INPUT" if program == "ufw" else " filter_INPUT")))
    said = into + out_of
    if program == "ufw":
        assert "`ufw allow 51820/udp`" in said and "`ufw allow in on privnet to any port 4789 proto udp`" in said
    else:
        assert "`firewall-cmd --permanent --add-port=51820/udp`, then `firewall-cmd --reload`" in said
        assert "`--zone=mesh --add-interface=privnet` and with `--zone=mesh --add-port=4789/udp`" in said
    # The twins: let in, as the programs do it when they are told so; and a mesh that runs is left alone.
    assert list(obstacles(h1, beside(without_peers(well), program))) == []
    assert list(obstacles(h1, beside(well, f"{program}-closed"))) == []


@pytest.mark.parametrize("program", ["docker", "ufw", "firewalld"])
def test_what_the_message_says_lets_private_networks_pass(h1: HostPlan, well: HostState, program: str) -> None:
    """Their own commands made these rules. Frames that pass no firewall are nobody's business."""
    assert list(obstacles(h1, beside(well, f"{program}-passes", bridged=True))) == []
    assert list(obstacles(h1, beside(well, program))) == []


KEPT_IN = "its firewall keeps it from peers: chain {} drops what it would send from UDP port 51820 to h2 (192.0.2.12). Let it out: "
FRAMES = "its firewall would drop private traffic: chain {} drops frames within bridges ({}), those of private networks among them. Let them pass: "
GOES_IN = "its firewall would drop private traffic: chain {} drops UDP port 4789 into the mesh, to h2. Let it through: "
PASSES_BY = "its firewall would drop private traffic: chain {} drops what {}, which is privnet's. Take the chain away: "
STOPS: dict[str, tuple[Callable[[HostState], HostState], list[str]]] = {
    "a bridge's forwarding": (
        lambda s: chain(s, "bridge filter", "forward priority 0; policy drop;"),
        [
            f'{FRAMES.format("bridge filter own", "IPv4, ARP")}`nft insert rule bridge filter own iifname "pn*" oifname "pn*" accept`{NFT_LASTS}'
        ],
    ),
    "ARP in a bridge": (
        lambda s: chain(s, "bridge t", "prerouting priority -200; policy accept;", "ether type arp drop"),
        [f'{FRAMES.format("bridge t own", "ARP")}`nft insert rule bridge t own iifname "pn*" accept`{NFT_LASTS}'],
    ),
    "a bridge's ports, as frames leave": (
        lambda s: chain(s, "bridge t", "postrouting priority 300; policy accept;", "ether type ip reject"),
        [f'{FRAMES.format("bridge t own", "IPv4")}`nft insert rule bridge t own oifname "pn*" accept`{NFT_LASTS}'],
    ),
    "a device of ours": (
        lambda s: chain(s, "netdev t", 'ingress device "pnx7000000" priority 0; policy drop;'),
        [
            f"{PASSES_BY.format('netdev t own', 'comes by pnx7000000')}`nft delete chain netdev t own`, also where it is loaded from"
        ],
    ),
    "a device of ours, as packets leave": (
        lambda s: chain(
            s,
            "netdev t",
            'egress devices = { "eth0", "pnx7000000" } priority filter; policy accept;',
            "ip protocol udp drop",
        ),
        [
            f"{PASSES_BY.format('netdev t own', 'goes to pnx7000000')}`nft delete chain netdev t own`, also where it is loaded from"
        ],
    ),
    "WireGuard before it is routed": (
        lambda s: chain(without_peers(s), "ip raw", "prerouting priority raw; policy accept;", "udp dport 51820 drop"),
        [f"{KEEPS_OUT.format('ip raw own')}`nft insert rule ip raw own udp dport 51820 accept`{NFT_LASTS}"],
    ),
    "WireGuard on its way out": (
        lambda s: chain(without_peers(s), "inet t", "output priority 0; policy accept;", "udp sport 51820 drop"),
        [f"{KEPT_IN.format('inet t own')}`nft insert rule inet t own udp sport 51820 accept`{NFT_LASTS}"],
    ),
    "the way into the mesh": (
        lambda s: chain(
            without_peers(s),
            "inet t",
            "postrouting priority 0; policy accept;",
            'oifname "privnet" udp dport 4789 drop',
        ),
        [
            f'{GOES_IN.format("inet t own")}`nft insert rule inet t own oifname "privnet" udp dport 4789 accept`{NFT_LASTS}'
        ],
    ),
    "the uplink": (
        lambda s: chain(
            without_peers(s), "netdev t", 'ingress device "eth0" priority 0; policy accept;', "ip saddr 192.0.2.12 drop"
        ),
        [f"{KEEPS_OUT.format('netdev t own')}`nft insert rule netdev t own udp dport 51820 accept`{NFT_LASTS}"],
    ),
    "the uplink, in the family inet": (
        lambda s: chain(
            without_peers(s), "inet t", 'ingress device "eth0" priority 0; policy drop;', "tcp dport 22 accept"
        ),
        [f"{KEEPS_OUT.format('inet t own')}`nft insert rule inet t own udp dport 51820 accept`{NFT_LASTS}"],
    ),
    "the uplink, as packets leave": (
        lambda s: chain(
            without_peers(s), "netdev t", 'egress device "eth0" priority 0; policy accept;', "udp dport 51820 drop"
        ),
        [f"{KEPT_IN.format('netdev t own')}`nft insert rule netdev t own udp sport 51820 accept`{NFT_LASTS}"],
    ),
    "bridged frames in the raw table": (
        lambda s: chain(
            s, "ip raw", "prerouting priority raw; policy accept;", 'iifname != { "lo", "eth0" } drop', bridged=True
        ),
        [
            f'{FORWARDS.format("ip raw own")}`nft insert rule ip raw own iifname "pnb*" accept`{NFT_LASTS}{OR_NOT}',
        ],
    ),
    "iptables-legacy": (
        lambda s: translated(
            without_peers(s),
            ":INPUT DROP",
            "add rule ip filter INPUT tcp dport 22 counter accept",
            'add rule ip filter INPUT iifname "privnet" counter accept',
        ),
        [
            f"{KEEPS_OUT.format('INPUT of iptables-legacy')}`iptables-legacy -I INPUT -p udp --dport 51820 -j ACCEPT`{IPTABLES_LASTS}"
        ],
    ),
    "ebtables-legacy": (
        lambda s: replace(
            s,
            firewall=Firewall(
                tables=parse_tables(
                    ["*filter", ":INPUT ACCEPT", ":FORWARD DROP", ":OUTPUT ACCEPT", "-A FORWARD -p ARP -j ACCEPT"]
                )
            ),
        ),
        [
            f"{FRAMES.format('FORWARD of ebtables-legacy', 'IPv4')}`ebtables-legacy -I FORWARD -i pn+ -o pn+ -j ACCEPT`, and the same where your rules are made at boot, or a reboot loses it"
        ],
    ),
    "ebtables on nftables, as pve has it": (
        lambda s: replace(
            s,
            firewall=Firewall(
                tables=parse_tables(
                    [
                        "table bridge filter {",
                        "chain FORWARD {",
                        "type filter hook forward priority filter; policy drop;",
                        'iifname "fwln*" accept',
                        "}",
                        "}",
                    ]
                )
            ),
        ),
        [
            f"{FRAMES.format('bridge filter FORWARD', 'IPv4, ARP')}`ebtables -I FORWARD -i pn+ -o pn+ -j ACCEPT`, and the same where your rules are made at boot, or a reboot loses it"
        ],
    ),
}


@pytest.mark.parametrize("what", STOPS)
def test_what_certainly_stops_packets_of_ours_is_said(h1: HostPlan, well: HostState, what: str) -> None:
    broken, sentences = STOPS[what]
    assert list(obstacles(h1, broken(well))) == sentences


ACCEPTS, FORWARD = "policy accept;", "forward priority 0; policy drop;"
PASSES: dict[str, Callable[[HostState], HostState]] = {
    "forwarding that no frame meets": lambda s: chain(s, "inet t", FORWARD),
    "a bridge of somebody else's": lambda s: chain(
        s, "bridge t", f"forward priority 0; {ACCEPTS}", 'iifname "docker0" drop', 'oifname != "pn*" drop'
    ),
    "others' addresses in bridges": lambda s: chain(
        s,
        "bridge t",
        f"forward priority 0; {ACCEPTS}",
        "ip saddr 172.17.0.0/16 drop",
        "ether saddr 02:42:00:00:00:01 drop",
    ),
    "what no frame of ours is": lambda s: chain(
        s,
        "bridge t",
        f"prerouting priority 0; {ACCEPTS}",
        "ether type ip6 drop",
        "ether type vlan drop",
        "ip6 saddr fe80::1 drop",
    ),
    "a limit": lambda s: chain(
        s, "bridge t", f"forward priority 0; {ACCEPTS}", "limit rate over 1000/second drop", "meta mark 0x1 drop"
    ),
    "a bridge that lets ours pass": lambda s: chain(s, "bridge t", FORWARD, 'iifname "pn*" accept'),
    "one network let pass by name": lambda s: chain(
        s, "inet t", FORWARD, 'iifname "pnb7000000" oifname "pnb7000000" accept', bridged=True
    ),
    "one network let pass by address": lambda s: chain(
        s, "inet t", FORWARD, "ip saddr 10.240.0.0/12 ip daddr 10.240.0.0/12 accept", bridged=True
    ),
    "a bridge's own chains": lambda s: chain(s, "bridge t", "input priority 0; policy drop;"),
    "another uplink": lambda s: chain(without_peers(s), "netdev t", 'ingress device "eth1" priority 0; policy drop;'),
    "others on the uplink": lambda s: chain(
        without_peers(s),
        "netdev t",
        f'ingress device "eth0" priority 0; {ACCEPTS}',
        "ip saddr 203.0.113.0/24 drop",
        "tcp dport 22 drop",
        "udp dport != 51820 drop",
    ),
    "answers alone go out": lambda s: chain(
        without_peers(s),
        "inet t",
        "output priority 0; policy drop;",
        "ct state established accept",
        'oifname "privnet" accept',
    ),
    "what leaves elsewhere": lambda s: chain(
        without_peers(s),
        "ip t",
        f"postrouting priority 0; {ACCEPTS}",
        'oifname "eth1" drop',
        "ip daddr 203.0.113.9 drop",
    ),
    "the other version": lambda s: chain(without_peers(s), "ip6 t", "input priority 0; policy drop;"),
    "a mesh that runs": lambda s: chain(s, "inet t", "output priority 0; policy drop;"),
    "what is translated by nobody": lambda s: translated(
        without_peers(s), "# -t filter -A INPUT -m u32 --u32 0x0=0x1 -j DROP"
    ),
}


@pytest.mark.parametrize("what", PASSES)
def test_what_may_let_packets_of_ours_pass_is_no_reason(h1: HostPlan, well: HostState, what: str) -> None:
    assert list(obstacles(h1, PASSES[what](well))) == []


def test_hosts_that_speak_ipv6(planned: Callable[..., Plan]) -> None:
    hosts = {f"h{n}": {"address": f"2001:db8::{n}"} for n in (1, 2, 3)}
    plan = planned(shop=["h1", "h2"], fleet={"hosts": hosts}).hosts["h1"]
    state = parse_snapshot(text(answer(plan)))
    assert isinstance(state, HostState)
    new = without_peers(state)
    for closed in (
        chain(new, "ip6 t", "input priority 0; policy drop;", "icmpv6 type echo-request accept"),
        chain(new, "inet t", "input priority 0; policy accept;", "ip6 saddr 2001:db8::/32 udp dport 51820 drop"),
    ):
        (said,) = obstacles(plan, closed)
        assert (
            f"chain {closed.firewall.tables[0].family} t own drops UDP port 51820, to which h2 (2001:db8::2) would speak"
            in said
        )
    assert (
        list(
            obstacles(
                plan,
                chain(new, "inet t", "input priority 0; policy accept;", "ip saddr 0.0.0.0/0 udp dport 51820 drop"),
            )
        )
        == []
    )


@pytest.mark.parametrize("what", [*CASES, *STOPS])
def test_every_remedy_lasts_over_a_reboot(h1: HostPlan, well: HostState, what: str) -> None:
    """What does not last by itself says so, and what to do about that."""
    lasting = (
        "--permanent",
        "`ufw ",
        "or a reboot loses it",
        "systemctl daemon-reload",
        "give the fleet another",
        "also where it is loaded from",
    )
    for said in obstacles(h1, (CASES.get(what) or STOPS[what])[0](well)):
        assert any(words in said for words in lasting), said
