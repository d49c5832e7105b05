"""What a host's own firewall does with a packet, judged from its listing by nft. Pure.

Whether a port is open cannot be tried out from outside: a firewall that knows connections lets the answers in of a host
that has spoken itself, and a host that joins the mesh greets its peers (docs/decisions/0017-foreign-firewalls.md).

nft says much that is not understood here: sets, marks, limits, what extensions of iptables do. Of a rule with such a
match nobody knows here whether it is met. :func:`outcomes` follows both ways or, ``firm``, takes no notice of it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

ACCEPTED, DROPPED, NEXT, RETURNED = "accepted", "dropped", "next", "returned"
DEPTH = 16
"""Chains that may have jumped to each other; the kernel allows no more (NFT_JUMP_STACK_SIZE)."""
RULES_AT_MOST = 20_000
"""Of a table; of one with more nothing is said."""
OWN = re.compile("lo|privnet|pn[bxcu].*|docker[0-9]+")
"""Devices through which no other host is reached, by how rules name them."""

_NAME = "[A-Za-z0-9_./-]{1,128}"
_TABLE = re.compile(rf"table ([a-z0-9]+) ({_NAME}) \{{.*")
_CHAIN = re.compile(rf"chain ({_NAME}) \{{")
_BASE = re.compile(r"type filter hook (input|forward) .*?; ?(?:policy (accept|drop);)?.*")
_NOISE = re.compile(
    r"counter(?: packets \d+ bytes \d+)?(?: |$)|comment \"[^\"]*\"(?: |$)"
    r"|log(?: (?:prefix \"[^\"]*\"|level \w+|flags (?:all|skuid|ether|(?:tcp|ip) [a-z,]+)|group \d+))*(?: |$)"
)
_KEYS = {
    "iifname": "iif", "iif": "iif", "oifname": "oif", "oif": "oif", "ct state": "state", "ct status": "status",
    "meta l4proto": "protocol", "ip protocol": "protocol", "meta nfproto": "family", "meta protocol": "family",
    "udp dport": "dport", "th dport": "dport", "udp sport": "sport", "th sport": "sport",
    "ip saddr": "source", "ip daddr": "target", "fib daddr type": "type",
}  # fmt: skip
_VALUE = r'\{[^{}]*\}|"[^"]*"|[^\s{}]+'
_MATCH = re.compile(rf"(?:meta )?({'|'.join(_KEYS)}) (!= |== )?(?!vmap |map |[.&|^] )({_VALUE})(?: |$)")
_MAP = re.compile(rf"(?:meta )?({'|'.join(_KEYS)}) vmap \{{([^{{}}]*)\}}(?: |$)")
# No packet that is asked about here is one of these.
_OTHERS = re.compile(r"(?:tcp|icmp|icmpv6|sctp|dccp|udplite|ah|esp|comp|ip6|arp|vlan) ")
_VERDICT = re.compile(rf"(?:^|.* )(accept|drop|return|continue|reject|queue|jump {_NAME}|goto {_NAME})(?: .*)?$")


@dataclass(frozen=True, slots=True)
class Packet:
    """A UDP packet over IPv4 that comes in. What is None nobody knows."""

    iif: str | None = None
    oif: str | None = None
    source: str | None = None
    target: str | None = None
    sport: str | None = None
    dport: str | None = None
    state: str = "new"
    status: str | None = ""
    type: str = "local"
    protocol: str = "udp"
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
    """A chain that packets come into by themselves."""

    name: str
    hook: str
    policy: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a host's own firewall."""

    family: str
    name: str
    bases: tuple[Base, ...] = ()
    chains: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)

    @property
    def knows_sources(self) -> bool:
        """Whether it matters who has sent a packet."""
        return any(match.key == "source" for rules in self.chains.values() for rule in rules for match in rule.matches)

    @property
    def maker(self) -> str:
        """Which program keeps it, as far as that can be seen."""
        if self.name == "firewalld":
            return "firewalld"
        if "ufw-before-input" in self.chains:
            return "ufw"
        if "ts-input" in self.chains:
            return "tailscale"
        return "docker" if "DOCKER-USER" in self.chains else ""


@dataclass(frozen=True, slots=True)
class Drop:
    """A chain that drops what is asked about; ``maker`` is the program that keeps it, if that can be seen."""

    chain: str
    maker: str = ""


def dropping(tables: tuple[Table, ...], hook: str, packet: Packet, *, firm: bool = False) -> Iterator[Drop]:
    """Chains that drop a packet, whatever is true of it that is not known here."""
    for table in tables:
        for base in table.bases:
            if base.hook == hook and outcomes(table, base, packet, firm=firm) == {DROPPED}:
                yield Drop(f"{table.family} {table.name} {base.name}", table.maker)


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
    return value == {"ip": "ipv4", "17": "udp"}.get(one, one)


def _lies_in(address: str, network: str) -> bool | None:
    try:
        low, high = (ipaddress.IPv4Address(end) for end in network.split("-")) if "-" in network else _ends(network)
        return low <= ipaddress.IPv4Address(address) <= high
    except ValueError:
        return None


def _ends(network: str) -> tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]:
    found = ipaddress.IPv4Network(network, strict=False)
    return found[0], found[-1]


def _is_port(port: int, text: str) -> bool | None:
    ends = text.split("-")
    if len(ends) > 2 or not all(re.fullmatch("[0-9]{1,5}", end) for end in ends):
        return None  # a service's name
    return int(ends[0]) <= port <= int(ends[-1])


# --- the listing ------------------------------------------------------------------------------------


def parse_tables(lines: list[str]) -> tuple[Table, ...]:
    """Tables from ``nft -s -t list table``. What is not understood is a rule of which nothing is known."""
    found: list[Table] = []
    chain: list[Rule] | None = None
    bases: list[Base] = []
    chains: dict[str, list[Rule]] = {}
    name = ""
    for line in map(str.strip, [*lines, "table ip end {"]):
        if table := _TABLE.fullmatch(line):
            if found:
                found[-1] = replace(found[-1], bases=tuple(bases), chains=_small(chains))
            found.append(Table(table[1], table[2]))
            chain, bases, chains = None, [], {}
        elif begins := _CHAIN.fullmatch(line):
            name = begins[1]
            chain = chains.setdefault(name, [])
        elif line == "}":
            chain = None
        elif chain is not None and line and not line.startswith("#"):
            if base := _BASE.fullmatch(line):
                bases.append(Base(name, base[1], base[2] or "accept"))
            else:
                chain += _rules(line)
    return tuple(table for table in found[:-1] if table.family in ("ip", "inet"))


def _small(chains: Mapping[str, list[Rule]]) -> dict[str, tuple[Rule, ...]]:
    if sum(map(len, chains.values())) > RULES_AT_MOST:
        return {}
    return {name: tuple(rules) for name, rules in chains.items()}


def _rules(line: str) -> list[Rule]:
    """A rule, or one for each way that a map of verdicts leads."""
    matches: list[Match] = []
    rest = line
    while rest:
        if noise := _NOISE.match(rest):
            rest = rest[noise.end() :]
        elif match := _MATCH.match(rest):
            matches.append(Match(_KEYS[match[1]], _values(match[3]), match[2] == "!= "))
            rest = rest[match.end() :]
        elif ways := _MAP.match(rest):
            return list(_ways(tuple(matches), _KEYS[ways[1]], ways[2]))
        elif _OTHERS.match(rest):
            return []
        else:
            break
    verdict = _VERDICT.fullmatch(rest)
    if verdict is None:
        # It goes on to the next rule, or is a way of leading on that is not known here.
        return [Rule(tuple(matches), "anything", strange=True)] if "vmap" in rest or rest == "longer" else []
    return [Rule(tuple(matches), verdict[1], strange=verdict.start(1) > 0)]


def _values(text: str) -> tuple[str, ...]:
    inner = text[1:-1] if text.startswith("{") else text
    return tuple(part.strip().strip('"') for part in inner.split(",") if part.strip())


def _ways(matches: tuple[Match, ...], key: str, elements: str) -> Iterator[Rule]:
    for element in elements.split(","):
        value, _, verdict = element.rpartition(" : ")
        found = _VERDICT.fullmatch(verdict.strip())
        if found:
            yield Rule((*matches, Match(key, _values(value.strip()))), found[1])
        else:
            yield Rule(matches, "anything", strange=True)
