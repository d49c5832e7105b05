"""What a host's own rules do with a packet. Pure; :mod:`privnet.deploy.listing` reads the rules.

Whether a port is open cannot be tried out from outside: a firewall that knows connections lets the answers in of a host
that has spoken itself, and a host that joins the mesh greets its peers (docs/decisions/0017-foreign-firewalls.md).

Rules say much that is not understood here: sets, marks, limits, what extensions of iptables do. Of a rule with such a
match nobody knows here whether it is met. :func:`outcomes` follows both ways or, ``firm``, takes no notice of it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

ACCEPTED, DROPPED, NEXT, RETURNED = "accepted", "dropped", "next", "returned"
DEPTH = 16
"""Chains that may have jumped to each other; the kernel allows no more (NFT_JUMP_STACK_SIZE)."""
OWN = re.compile("lo|privnet|pn[bxcu].*|docker[0-9]+")
"""Devices through which no other host is reached, by how rules name them."""

_SAME = {
    "ip": "ipv4", "0x0800": "ipv4", "0x800": "ipv4", "ip6": "ipv6", "0x86dd": "ipv6", "0x0806": "arp", "0x806": "arp",
    "17": "udp", "6": "tcp", "1": "icmp", "58": "ipv6-icmp",
}  # fmt: skip
"""Other words for a family or a protocol."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What is known of a packet. What is None nobody knows."""

    iif: str | None = None
    oif: str | None = None
    source: str | None = None
    target: str | None = None
    sport: str | None = None
    dport: str | None = None
    state: str | None = "new"
    status: str | None = ""
    type: str | None = "local"
    protocol: str | None = "udp"
    family: str = "ipv4"


@dataclass(frozen=True, slots=True)
class Match:
    """``key`` is, or is not, one of ``values``."""

    key: str
    values: tuple[str, ...]
    negated: bool = False

    def met_by(self, packet: Packet) -> bool | None:
        """Whether a packet is meant; None: that cannot be known here."""
        found = _is_one_of(self.key, getattr(packet, self.key), self.values)
        return found if found is None else found is not self.negated


@dataclass(frozen=True, slots=True)
class Rule:
    """``verdict`` of a packet that every match means; with ``strange`` there are matches that nobody knows here."""

    matches: tuple[Match, ...]
    verdict: str
    strange: bool = False

    def met_by(self, packet: Packet) -> bool | None:
        """Whether a packet is meant; None: that cannot be known here."""
        found = {match.met_by(packet) for match in self.matches}
        if False in found:
            return False
        return None if self.strange or None in found else True


@dataclass(frozen=True, slots=True)
class Base:
    """A chain that packets come into by themselves; ``devices``: of these alone, where that is said."""

    name: str
    hook: str
    policy: str
    devices: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a host's own rules; ``legacy``: the program of before nftables that keeps it."""

    family: str
    name: str
    bases: tuple[Base, ...] = ()
    chains: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    legacy: str = ""

    @property
    def knows_addresses(self) -> bool:
        """Whether it matters from whom, or to whom, a packet goes."""
        return any(m.key in ("source", "target") for rules in self.chains.values() for r in rules for m in r.matches)

    @property
    def maker(self) -> str:
        """Which program keeps it, as far as that can be seen."""
        if self.legacy:
            return self.legacy
        if self.name == "firewalld":
            return "firewalld"
        if "ufw-before-input" in self.chains:
            return "ufw"
        if "ts-input" in self.chains:
            return "tailscale"
        if "DOCKER-USER" in self.chains:
            return "docker"
        # As iptables-nft and its like name what they keep there.
        named = self.name in ("filter", "mangle", "raw", "security")
        return _KEEPERS.get(self.family, "") if named and all(base.name.isupper() for base in self.bases) else ""


_KEEPERS = {"ip": "iptables", "ip6": "ip6tables", "bridge": "ebtables", "arp": "arptables"}


@dataclass(frozen=True, slots=True)
class Drop:
    """A chain that drops what is asked about; ``maker`` is the program that keeps it, if that can be seen."""

    family: str
    table: str
    chain: str
    hook: str
    maker: str = ""

    def __str__(self) -> str:
        if self.maker.endswith("-legacy"):
            return f"{self.chain} of {self.maker}" + ("" if self.table == "filter" else f", table {self.table}")
        return f"{self.family} {self.table} {self.chain}"


def dropping(
    tables: tuple[Table, ...], hook: str, packet: Packet, *, families: tuple[str, ...] = (), firm: bool = False
) -> Iterator[Drop]:
    """Chains of a hook that drop a packet, whatever is true of it that is not known here.

    :param families: of tables; those of the packet, if none is said
    """
    families = families or _families(hook, packet.family)
    device = packet.iif if hook == "ingress" else packet.oif
    for table in tables:
        if table.family not in families:
            continue
        for base in table.bases:
            if base.hook != hook or (base.devices and device not in base.devices):
                continue
            if outcomes(table, base, packet, firm=firm) == {DROPPED}:
                yield Drop(table.family, table.name, base.name, hook, table.maker)


def _families(hook: str, family: str) -> tuple[str, ...]:
    if hook == "egress":
        return ("netdev",)
    if hook == "ingress":
        return ("netdev", "inet")
    return {"ipv4": ("ip", "inet"), "ipv6": ("ip6", "inet"), "arp": ("arp",)}[family]


def outcomes(table: Table, base: Base, packet: Packet, *, firm: bool = False) -> set[str]:
    """What can become of a packet in a chain and those that it jumps to.

    :param firm: a rule of which it is not known whether it is met is not met
    """
    found = _walk(table, base.name, packet, firm, {}, 0)
    policy = {DROPPED if base.policy == "drop" else ACCEPTED} if NEXT in found else set()
    return found - {NEXT} | policy


def _walk(table: Table, chain: str, packet: Packet, firm: bool, known: dict[str, set[str]], depth: int) -> set[str]:
    if depth > DEPTH or chain not in table.chains:
        return {ACCEPTED, NEXT}
    if chain in known:
        return known[chain]
    known[chain] = {ACCEPTED, NEXT}  # for who jumps in a circle, which the kernel lets nobody do
    found: set[str] = set()
    for rule in table.chains[chain]:
        met = rule.met_by(packet)
        if met is False or (met is None and firm):
            continue
        became = _became(table, rule.verdict, packet, firm, known, depth)
        found |= became - {NEXT}
        if met and NEXT not in became:
            break
    else:
        found.add(NEXT)
    known[chain] = {NEXT if outcome == RETURNED else outcome for outcome in found}
    return known[chain]


def _became(table: Table, verdict: str, packet: Packet, firm: bool, known: dict[str, set[str]], depth: int) -> set[str]:
    word, _, chain = verdict.partition(" ")
    match word:
        case "accept" | "queue":
            return {ACCEPTED}
        case "drop" | "reject":
            return {DROPPED}
        case "return":
            return {RETURNED}
        case "jump":
            return _walk(table, chain, packet, firm, known, depth + 1)
        case "goto":
            # Who was gone to goes back to who was jumped from.
            there = _walk(table, chain, packet, firm, known, depth + 1)
            return {RETURNED if outcome == NEXT else outcome for outcome in there}
        case "anything":
            return {ACCEPTED, NEXT}
    return {NEXT}


def _is_one_of(key: str, value: str | None, values: tuple[str, ...]) -> bool | None:
    found = {_is(key, value, one) for one in values}
    return True if True in found else None if None in found else False


def _is(key: str, value: str | None, one: str) -> bool | None:
    if one.startswith("@"):
        return None
    if key in ("iif", "oif"):
        if value is None:
            return False if OWN.fullmatch(one) else None
        return value.startswith(one[:-1]) if one.endswith("*") else value == one
    if value is None:
        return None
    if key in ("source", "target"):
        return _lies_in(value, one)
    if key in ("sport", "dport"):
        return _is_port(int(value), one)
    return value == _SAME.get(one, one)


def _lies_in(address: str, network: str) -> bool | None:
    try:
        low, _, high = network.partition("-")
        own = ipaddress.ip_address(address)
        ends = (ipaddress.ip_address(low), ipaddress.ip_address(high)) if high else _ends(network)
        # Of the other version it is another address.
        return own.version == ends[0].version and int(ends[0]) <= int(own) <= int(ends[1])
    except ValueError:
        return None


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _ends(network: str) -> tuple[Address, Address]:
    found = ipaddress.ip_network(network, strict=False)
    return found[0], found[-1]


def _is_port(port: int, text: str) -> bool | None:
    ends = text.split("-")
    if len(ends) > 2 or not all(re.fullmatch("[0-9]{1,5}", end) for end in ends):
        return None  # a service's name
    return int(ends[0]) <= port <= int(ends[-1])
