"""The guard's rules as the audit wants to read them in ``nft -s list table``, and a reader for such listings.

Written here a second time, on purpose: a rule that is missing from the template is missing from every host, and only
someone with an own idea of the rules can see it. nft prints some expressions differently from version to version; then
a rule has more than one spelling here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Spellings = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table: chains with their lines in order, sets with their properties and elements, and its flags."""

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sets: Mapping[str, tuple[tuple[str, ...], frozenset[tuple[str, ...]]]] = field(default_factory=dict)
    flags: str = ""


def hook(name: str, *priorities: str) -> Spellings:
    """The first line of a chain that packets come into by themselves."""
    return tuple(f"type filter hook {name} priority {priority}; policy accept;" for priority in priorities)


_INNER = (("0x800", "0x270"), ("0x0800", "0x0270"), ("2048", "624"))
"""IPv4's type, and what each MAC of a container begins with."""


def inet_chains(vxlan_port: int, mesh: str, wireguard_port: int) -> dict[str, tuple[Spellings, ...]]:
    """Table ``inet privnet``: what may come out of and go into the mesh."""
    vxlan, wireguard = (
        [f"th dport {port} meta l4proto {udp}" for udp in ("17", "udp")] for port in (vxlan_port, wireguard_port)
    )
    inner = [f"@th,224,16 {ipv4} @th,176,16 {mac}" for ipv4, mac in _INNER]
    speaker = "ip saddr . @th,96,32 . @th,192,32 . @th,336,32 @speakers accept"
    return {
        "ingress": (
            hook("input", "raw", "-300"),
            tuple(f"{port} ip saddr @peers accept" for port in wireguard),
            tuple(f'{port} iifname "privnet" {head} {speaker}' for port in vxlan for head in inner),
            tuple(f"{port} jump wireguard" for port in wireguard),
            tuple(f"{port} jump decapsulate" for port in vxlan),
            tuple(
                f'ip daddr {mesh} iifname != {{ {both} }} counter drop comment "mesh address from outside the mesh"'
                for both in ('"lo", "privnet"', '"privnet", "lo"')
            ),
            (
                'iifname "privnet" meta l4proto != icmp counter drop comment "not VXLAN, out of the mesh"',
                'iifname "privnet" meta l4proto != 1 counter drop comment "not VXLAN, out of the mesh"',
            ),
        ),
        "wireguard": (
            ("ip6 saddr @peers6 accept",),
            ('counter drop comment "not from a peer"',),
        ),
        "decapsulate": (
            ('iifname "privnet" counter drop comment "not a container of that peer"',),
            ('counter drop comment "VXLAN from outside the mesh"',),
        ),
        "egress": (
            hook("output", "raw", "-300"),
            tuple(f'{port} oifname != "privnet" counter drop comment "VXLAN in clear"' for port in vxlan),
        ),
        "forward": (
            hook("forward", "raw", "-300"),
            ('oifname "privnet" counter drop comment "through host into mesh"',),
            ('iifname "privnet" counter drop comment "out of mesh through host"',),
        ),
    }


def bridge_chains() -> dict[str, tuple[Spellings, ...]]:
    """Table ``bridge privnet``: as whom a container port may speak, and that the host takes no part."""
    arp = "iifname . ether saddr . arp saddr ip @ports iifname . arp saddr ether . arp saddr ip @ports accept"
    ipv4 = "iifname . ether saddr . ip saddr @ports notrack accept"
    return {
        "prerouting": (
            hook("prerouting", "dstnat", "-300"),
            ('iifname "pnx*" notrack accept',),
            ('iifname "pnc*" jump port',),
        ),
        "port": (
            (f"ether type ip {ipv4}", f"@ll,96,16 0x800 {ipv4}", f"@ll,96,16 0x0800 {ipv4}"),
            (f"ether type arp {arp}", f"@ll,96,16 0x806 {arp}", f"@ll,96,16 0x0806 {arp}"),
            ('counter drop comment "not the port\'s own MAC and address"',),
        ),
        "forward": (
            hook("forward", "-300"),
            ('iifname "pnc*" oifname "pnx*" meta oifkind "vxlan" accept',),
            ('iifname "pnx*" oifname "pnc*" meta iifkind "vxlan" accept',),
            ('iifname "pnc*" oifname "pnc*" accept',),
            ('iifname "pnc*" counter drop comment "not between planned ports"',),
            ('iifname "pnx*" counter drop comment "not between planned ports"',),
            ('oifname "pnc*" counter drop comment "not between planned ports"',),
            ('oifname "pnx*" counter drop comment "not between planned ports"',),
        ),
        "input": (hook("input", "-300"), ('iifname "pnc*" jump host',), ('iifname "pnx*" jump host',)),
        "host": (
            ("ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop",),
            ('counter drop comment "private network to host"',),
        ),
        "output": (
            hook("output", "-300"),
            ('oifname "pnc*" counter drop comment "host to private network"',),
            ('oifname "pnx*" counter drop comment "host to private network"',),
        ),
    }


SETS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "inet": {
        "speakers": ("typeof ip saddr . @th,96,32 . @th,192,32 . @th,336,32",),
        "peers": ("type ipv4_addr", "size 65535"),
        "peers6": ("type ipv6_addr", "size 65535"),
    },
    "bridge": {"ports": ("typeof iifname . ether saddr . ip saddr",)},
}

_NUMBER = re.compile("0x[0-9a-f]+|[0-9]+")


def parse_table(lines: list[str]) -> Table:
    """A table from its listing. Raises ValueError for what is no listing of a table."""
    chains: dict[str, tuple[str, ...]] = {}
    sets: dict[str, tuple[tuple[str, ...], frozenset[tuple[str, ...]]]] = {}
    rest = iter([line.strip() for line in lines if line.strip()])
    # Behind it stands which program owns the table.
    if not re.fullmatch(r"table (inet|bridge) privnet \{( # progname .*)?", next(rest, "")):
        raise ValueError("no table")
    flags = ""
    for line in rest:
        if line == "}":
            break
        if line.startswith("flags "):
            flags = line.removeprefix("flags ")
            continue
        found = re.fullmatch(r"(set|chain) ([a-z0-9_]+) \{", line)
        if found is None:
            raise ValueError("neither set nor chain")
        body = []
        for inner in rest:
            if inner == "}":
                break
            body.append(inner)
        if found[1] == "chain":
            chains[found[2]] = tuple(body)
        else:
            sets[found[2]] = _set(body)
    return Table(chains, sets, flags)


def _set(body: list[str]) -> tuple[tuple[str, ...], frozenset[tuple[str, ...]]]:
    text = " ".join(body)
    head, found, elements = text.partition("elements = {")
    properties = tuple(line for line in body if not line.startswith("elements") and line in head)
    members = frozenset(
        tuple(_word(word) for word in element.split(" . "))
        for element in (part.strip() for part in elements.rstrip("} ").split(","))
        if found and element
    )
    return properties, members


def _word(word: str) -> str:
    """A part of an element, numbers always in decimal."""
    word = word.strip().strip('"')
    return str(int(word, 0)) if _NUMBER.fullmatch(word) else word
