"""What a host's own firewall does with a packet: certainly drop it, or not certainly."""

from __future__ import annotations

import time

import pytest

from privnet.deploy.firewall import Packet, Table, dropping
from privnet.deploy.listing import parse_tables

PEER = Packet(source="192.0.2.12", dport="51820")
INNER = Packet("privnet", source="100.64.0.2", target="100.64.0.1", sport="4789", dport="4789")
BASE = "type filter hook input priority filter; policy {};"


def table(*rules: str, policy: str = "drop", **chains: tuple[str, ...]) -> tuple[Table, ...]:
    lines = ["table ip filter {", "\tset s {", "\t\ttype ipv4_addr", "\t}"]
    for name, inner in {**chains, "INPUT": (BASE.format(policy), *rules)}.items():
        lines += [f"\tchain {name} {{", *(f"\t\t{rule}" for rule in inner), "\t}"]
    return parse_tables([*lines, "}"])


def drops(
    *rules: str, policy: str = "drop", packet: Packet = PEER, firm: bool = False, **chains: tuple[str, ...]
) -> bool:
    return any(dropping(table(*rules, policy=policy, **chains), "input", packet, firm=firm))


DROPPED: tuple[tuple[str, ...], ...] = (
    (),
    ("ct state established,related accept",),
    ("ct state { established, related } counter packets 7 bytes 700 accept",),
    ("ct state vmap { established : accept, related : accept, invalid : drop }",),
    ('iifname "lo" accept', "iif lo accept", 'iifname { "lo", "docker0" } accept'),
    ("tcp dport { 22, 80, 443 } accept", "icmp type echo-request accept", "ip6 saddr fe80::/10 accept"),
    ("udp dport 53 accept", "udp dport { 53, 67-68 } accept", "udp dport != 51820 accept", "meta l4proto tcp accept"),
    ("ip saddr 198.51.100.0/24 udp dport 51820 accept", "ip saddr != 192.0.2.0/24 accept"),
    ('limit rate 3/minute burst 10 packets counter log prefix "accept [x] " flags all',),
    ("limit rate 3/minute drop", "udp dport 51820 reject with icmpx admin-prohibited", "accept"),
    ('log prefix "in: " level warn counter packets 1 bytes 1 drop comment "no accept"', "accept"),
    ("fib daddr type != local accept",),
)
NOT_CERTAINLY: tuple[tuple[str, ...], ...] = (
    ("udp dport 51820 accept",),
    ("udp dport { 53, 51820 } counter packets 0 bytes 0 accept",),
    ("udp dport 51000-52000 accept",),
    ('meta l4proto { tcp, udp } th dport 51820 accept comment "vpn"',),
    ("ip saddr 192.0.2.0/24 accept",),
    ("ip saddr 192.0.2.1-192.0.2.20 accept",),
    ("ip saddr { 198.51.100.1, 192.0.2.12 } udp dport 51820 ct state new accept",),
    ("ip saddr != 198.51.100.0/24 accept",),
    ("ip protocol udp accept",),
    # Nobody knows here.
    ("ip saddr @s accept",),
    ('iifname "eth0" accept',),
    ("meta mark 0x1 accept",),
    ("udp dport @s accept",),
    ("udp dport wireguard accept",),
    ("limit rate 100/second accept",),
    ("udp dport vmap @s",),
    ("ip saddr . udp dport vmap { 192.0.2.12 . 51820 : accept }",),
    ('iifname vmap { "lo" : accept, "eth0" : accept }',),
    ("ip saddr & 255.255.255.0 == 192.0.2.0 accept",),
    ("ip saddr . udp dport { 192.0.2.12 . 51820 } accept",),
    ("longer",),
    ("queue num 0",),
)


@pytest.mark.parametrize("rules", DROPPED)
def test_certainly_dropped(rules: tuple[str, ...]) -> None:
    assert drops(*rules)


@pytest.mark.parametrize("rules", NOT_CERTAINLY)
def test_not_certainly_dropped(rules: tuple[str, ...]) -> None:
    assert not drops(*rules)
    assert drops(), "the twin: without the rule it is"


def test_a_last_rule_drops_as_a_policy_does() -> None:
    assert drops("udp dport 53 accept", "reject", policy="accept")
    assert drops("counter drop", policy="accept")
    assert not drops("tcp dport 25 drop", policy="accept")


def test_ways_through_other_chains() -> None:
    open_port = ("udp dport 51820 accept",)
    assert not drops("jump user", user=open_port)
    assert not drops('iifname "eth0" goto zone', "goto zone", zone=("jump user", "reject"), user=open_port)
    assert drops('iifname "eth0" goto zone', "goto zone", zone=("jump user", "reject"), user=("tcp dport 22 accept",))
    # Who returns goes on behind the jump; who was gone to goes back to who was jumped from.
    assert not drops("jump user", "accept", user=("return", "drop"))
    assert drops("jump first", "drop", policy="accept", first=("goto second", "accept"), second=("return",))
    assert drops("jump a", a=("jump b", "return"), b=("jump a",)) is False, "a circle is nothing that is known"


def test_out_of_the_mesh() -> None:
    assert drops("udp dport 51820 accept", packet=INNER)
    assert not drops('iifname "privnet" accept', packet=INNER)
    assert not drops('iifname "privnet" udp dport 4789 accept', packet=INNER)
    assert drops('iifname != "tailscale0*" ip saddr 100.64.0.0/10 drop', policy="accept", packet=INNER)
    assert not drops('iifname != "tailscale0*" ip saddr 100.64.0.0/10 drop', policy="accept")


def test_firm_takes_no_notice_of_what_is_not_known() -> None:
    assert drops("meta mark 0x1 accept", firm=True)
    assert not drops("meta mark 0x1 drop", policy="accept", firm=True)


def test_other_families_are_others() -> None:
    lines = ["table ip6 filter {", "chain INPUT {", BASE.format("drop"), "}", "}", "table ip filter {", "chain INPUT {"]
    tables = parse_tables([*lines, BASE.format("accept"), "}", "}"])
    assert [t.family for t in tables] == ["ip6", "ip"]
    assert list(dropping(tables, "input", PEER)) == []
    assert [str(d) for d in dropping(tables, "input", Packet(dport="51820", family="ipv6"))] == ["ip6 filter INPUT"]


def test_a_host_cannot_make_it_think_for_ever() -> None:
    chains = {f"c{n}": (f"jump c{n + 1}", f"jump c{n + 1}") for n in range(2000)}
    begun = time.monotonic()
    drops("jump c0", "jump c7", **chains)
    drops("log " + "flags ip options " * 200 + "x")
    drops("counter " * 500 + "limit " * 500)
    assert time.monotonic() - begun < 2
