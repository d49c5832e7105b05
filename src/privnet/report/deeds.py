"""What a run would do to hosts, in the words of the glossary: from the steps that hosts were found to need. Pure.

A step is a file to write or a command to run; several make one deed, such as a container that comes. A step that is not
known here is told as it stands, so that nothing is left out.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from privnet.diagnostics import plural, visible
from privnet.model.identifiers import APPLICATION_ID, LABEL, NETWORK_ID
from privnet.model.lock import Lock
from privnet.plan.allocate import RESOLVER_OFFSET
from privnet.plan.containers import port_name

LISTED_AT_MOST = 12
NAMED_AT_MOST = 3
"""Containers, or whatever else has a name, of one kind on one host and network; more are counted."""

_NET = f"(?P<network>{NETWORK_ID.replace('(', '(?:')})"
_VNI = "(?P<vni>[0-9]{1,8})"
_PORT = "(?P<port>pn[cu][0-9a-f]{6,10})"
_SLOT = f"(?P<slot>[1-9][0-9]*[.]{LABEL.replace('(', '(?:')}[.]{APPLICATION_ID.replace('(', '(?:')})"
_SIGNS = {"start": "+", "stop": "-", "reset-failed": "-", "write": "~", "remove": "-"}


@dataclass(frozen=True, slots=True, order=True)
class Deed:
    """One thing that a run would do to a host.

    :param network: the private network that it is about, else empty
    :param sign: ``+`` comes, ``~`` is made right or another, ``-`` goes
    :param kind: a word of the glossary, or ``step`` for a step that has none
    :param name: a container slot, a peer; empty where one host has one of the kind
    """

    network: str
    kind: str
    name: str
    sign: str


@dataclass(slots=True)
class Names:
    """What the names stand for that hosts know: devices, VNIs, keys. Of what is, and of what is to be."""

    ports: dict[str, tuple[str, str]] = field(default_factory=dict)
    vnis: dict[str, str] = field(default_factory=dict)
    slots: dict[str, str] = field(default_factory=dict)
    peers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, *locks: Lock) -> Names:
        """Those of some lock files; where they differ, the last one's."""
        found = cls()
        for lock in locks:
            found.peers |= {host.wireguard: name for name, host in lock.hosts.items() if host.wireguard}
            for network, known in lock.networks.items():
                found.vnis[str(known.vni)] = network
                found.ports[port_name(known.vni, RESOLVER_OFFSET)] = network, ""
                for slot, place in known.slots.items():
                    found.ports[port_name(known.vni, place.address - known.cidr.network)] = network, slot
                    found.slots[slot] = network
        return found


_UNITS: tuple[tuple[str, str], ...] = (
    (rf"privnet-container@{_PORT}[.]service", "container"),
    (rf"privnet-namespace@{_PORT}[.]service", "namespace"),
    (rf"privnet-overlay@{_VNI}[.]service", "overlay"),
    (rf"privnet-dns@{_NET}[.]service", "resolver"),
    (rf"privnet-forwarder@{_NET}[.](?:service|socket)", "forwarder"),
    (r"privnet-guard[.]service", "guard"),
    (r"wg-quick@privnet[.]service", "mesh"),
    (r".+", "units"),
)
_PATHS: tuple[tuple[str, str], ...] = (
    (rf"/etc/privnet/containers/{_PORT}[.]conf", "container"),
    (rf"/etc/netns/{_SLOT}/resolv[.]conf", "container"),
    (rf"/etc/privnet/overlay/{_VNI}[.](?:fdb|neighbours)", "forwarding"),
    (rf"/etc/privnet/overlay/{_VNI}[.]conf", "overlay"),
    (rf"/etc/systemd/network/(?:05|60)-privnet-{_VNI}-.*", "overlay"),
    (rf"/etc/privnet/names/{_NET}[.]hosts", "names"),
    (rf"/etc/privnet/names/{_NET}[.]conf", "resolver"),
    (r"/etc/privnet/guard[.]nft", "guard.nft"),
    (r"/etc/privnet/guard[.]conf", "guard"),
    (r"/etc/privnet/mesh[.]conf", "mesh.conf"),
    (r"/etc/privnet/neighbour-table[.]conf", "neighbour table"),
    (r"/etc/privnet/record[.]json", "record"),
    (r"/etc/privnet/lib/forwarder[.]pl|/etc/systemd/system/.*privnet-forwarder[.@].*", "forwarder"),
    (r"/etc/privnet/lib/.*|/etc/systemd/network/.*|/etc/systemd/networkd.*", "programs"),
)
_COMMANDS: tuple[tuple[str, str, str], ...] = (
    (rf"(?:bridge|ip) -batch moved[.]{_VNI}", "~", "forwarding"),
    (rf"(?:bridge|ip) -batch (?:fdb|neighbours)[.]{_VNI}", "-", "forwarding"),
    (rf"(?:.* )?ip link delete dev pn[bx]{_VNI}", "-", "overlay"),
    (rf"sh \S+/overlay[.]sh create {_VNI}", "+", "overlay"),
    (rf"(?:.* )?ip link delete dev {_PORT}", "-", "container"),
    (rf".*ip netns delete {_SLOT}", "-", "container"),
    (rf".*ip netns delete {_NET}", "-", "resolver"),
    (rf"rm -f /run/privnet/names[.]{_NET}", "-", "resolver"),
    (r"sh \S+/guard[.]sh apply guard[.]add", "+", "speakers"),
    (r"sh \S+/guard[.]sh apply guard[.]delete", "-", "speakers"),
    (r"ip route replace unreachable .*", "~", "guard"),
    (r"wg set privnet peer (?P<key>\S+) remove", "-", "peer"),
    (r"wg addconf privnet peers[.]conf", "~", "peers"),
    (rf"sh \S+/container[.]sh name {_PORT} .*", "~", "namespace"),
    (r"sh \S+/neighbour-table[.]sh", "~", "neighbour table"),
    (r"sh \S+/mesh[.]sh key", "+", "key"),
    (r"sh \S+/mesh[.]sh up start", "+", "mesh"),
    (r"sh \S+/mesh[.]sh assemble", "~", "mesh.conf"),
    (r"sh \S+/mesh[.]sh .*|wg set privnet .*|ip (?:address|link|route) .* dev privnet.*", "~", "mesh"),
    (r"sh -c .*/ipv6/conf/privnet/.*", "~", "mesh"),
    (r".*apt-get .* install .*", "+", "packages"),
    (r"systemctl (?:daemon-reload|enable|disable|unmask) ?.*|networkctl reload", "~", "units"),
    (r"(?:chown|chmod) .*", "~", "owners of directories"),
    (r"find .* -delete", "-", "files with odd names"),
)


_FOLLOWS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "guard.nft": ("guard", ("speakers", "guard")),
    "mesh.conf": ("mesh", ("peer", "peers", "mesh")),
    "overlay.reload": ("overlay", ("forwarding", "overlay")),
}
"""A step that comes along with others, those others, and what it is when it comes alone."""
_ASIDE = ("units", "record")
"""Said of a host when it is all that there is."""


def deeds_of(steps: Iterable[tuple[str, str]], names: Names, meets: Iterable[str] = ()) -> list[Deed]:
    """What a host's steps come to; the same thing once, whatever it takes.

    :param steps: stage and step as a run writes it down: ``write PATH``, ``run COMMAND``
    :param meets: hosts that become its peers
    """
    signs: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for _, line in steps:
        for deed in _deeds(line, names, meets):
            signs[deed.network, deed.kind, deed.name].add(deed.sign)
    for kind, (alone, others) in _FOLLOWS.items():
        for network, _, name in [what for what in signs if what[1] == kind]:
            found = signs.pop((network, kind, name))
            if not any(what[0] == network and what[1] in others for what in signs):
                signs[network, alone, name] |= found
    kinds = {kind for _, kind, _ in signs}
    aside = _ASIDE if kinds - {*_ASIDE} else _ASIDE[:1] if len(kinds) > 1 else ()
    return sorted(Deed(*what, sign=_together(found)) for what, found in signs.items() if what[1] not in aside)


def _together(signs: set[str]) -> str:
    """A file beside a start belongs to what comes; what goes and comes is made anew."""
    return "~" if {"+", "-"} <= signs else next(sign for sign in "+-~" if sign in signs)


def _deeds(line: str, names: Names, meets: Iterable[str]) -> Iterator[Deed]:
    verb, _, rest = line.partition(" ")
    words = rest.split()
    if verb == "run" and words[:1] == ["systemctl"] and len(words) > 2 and words[1] in _VERBS:
        for unit in (word for word in words[2:] if not word.startswith("-")):
            deed = _first_of(_UNITS, unit, _SIGNS.get(words[1], "~"), names)
            yield replace(deed, kind=_RELOADED.get(deed.kind, deed.kind)) if words[1] == "reload" else deed
    elif rest == "wg addconf privnet new-peers.conf":
        # A host may meet others without a change of the plan: it has lost them.
        yield from (Deed("", "peer", name, "+") for name in meets) if meets else [Deed("", "peers", "", "+")]
    elif verb in ("write", "remove"):
        yield _of_path(rest, _SIGNS[verb], names)
    else:
        for pattern, sign, kind in _COMMANDS:
            if found := re.fullmatch(pattern, rest):
                yield _deed(found, sign, kind, names)
                return
        yield Deed("", "step", line, "~")


_RELOADED = {"overlay": "overlay.reload", "resolver": "names"}
_VERBS = ("start", "stop", "reload", "restart", "try-restart", "try-reload-or-restart", "reset-failed")


def _of_path(path: str, sign: str, names: Names) -> Deed:
    """A file; of a link by which a boot starts a unit, and of a drop-in, it is the unit."""
    for pattern, kind in _PATHS:
        if found := re.fullmatch(pattern, path):
            return _deed(found, sign, kind, names)
    unit = re.fullmatch(r"/etc/systemd/system/(?:.*[.]wants/)?([^/]+?)(?:[.]d/.*)?", path)
    return _first_of(_UNITS, unit[1], sign, names) if unit else Deed("", "step", f"{sign} {path}", sign)


def _first_of(table: tuple[tuple[str, str], ...], text: str, sign: str, names: Names) -> Deed:
    matches = ((re.fullmatch(pattern, text), kind) for pattern, kind in table)
    return next(_deed(found, sign, kind, names) for found, kind in matches if found)


def _deed(found: re.Match[str], sign: str, kind: str, names: Names) -> Deed:
    given = {key: value for key, value in found.groupdict().items() if value}
    network, name = given.get("network", ""), ""
    if port := given.get("port"):
        network, name = names.ports.get(f"pnc{port[3:9]}{port[9:] or '0001'}", ("", port))
        kind = kind if name else "resolver"
    elif slot := given.get("slot"):
        network, name = names.slots.get(slot, ""), slot
    elif vni := given.get("vni"):
        network = names.vnis.get(vni, "")
        name = "" if network else f"VNI {vni}"
    elif key := given.get("key"):
        name = names.peers.get(key, key)
    return Deed(network, kind, name, sign)


# --- for people -------------------------------------------------------------------------------------

_SAID = {
    "names": "names",
    "forwarding": "forwarding entries",
    "speakers": "who may speak",
    "programs": "programs of privnet",
    "units": "units",
    "key": "key",
    "packages": "packages",
}


def deed_lines(hosts: Mapping[str, list[Deed]], titles: Mapping[str, str]) -> Iterator[str]:
    """By private network and host, then what belongs to no network: listed when it is little, else counted.

    :param titles: what a private network is called
    """
    by_network: dict[str, dict[str, list[Deed]]] = defaultdict(dict)
    for name, found in sorted(hosts.items()):
        for deed in found:
            by_network[deed.network].setdefault(name, []).append(deed)
    of_hosts = by_network.pop("", {})
    if len(by_network) > LISTED_AT_MOST:
        everything = [deed for some in by_network.values() for found in some.values() for deed in found]
        yield f"{plural(len(by_network), 'private network')} on hosts: {_counted(everything)}"
    else:
        for network, some in sorted(by_network.items()):
            yield titles.get(network, f"private network {network}")
            yield from _by_host(some)
    if of_hosts:
        yield "hosts themselves"
        yield from _by_host(of_hosts)


def _by_host(hosts: Mapping[str, list[Deed]]) -> Iterator[str]:
    if len(hosts) > LISTED_AT_MOST:
        yield f"  {plural(len(hosts), 'host')}: {_counted([deed for found in hosts.values() for deed in found])}"
        return
    width = max(map(len, hosts))
    for name, found in hosts.items():
        yield f"  {name:{width}}  {_listed(found)}"


def _listed(deeds: list[Deed]) -> str:
    named: dict[tuple[str, str], list[str]] = defaultdict(list)
    for deed in sorted(deeds, key=lambda deed: ("+~-".index(deed.sign), deed.kind, deed.name)):
        named[deed.sign, deed.kind].append(deed.name)
    return ", ".join(part for (sign, kind), some in named.items() for part in _parts(sign, kind, some))


def _parts(sign: str, kind: str, names: list[str]) -> Iterator[str]:
    if len(names) > NAMED_AT_MOST:
        yield f"{sign} {plural(len(names), kind)}"
        return
    for name in names:
        yield f"{sign} {_SAID.get(kind, kind)}{f' {visible(name)}' if name else ''}"


def _counted(deeds: list[Deed]) -> str:
    counts = Counter((deed.sign, deed.kind, bool(deed.name)) for deed in deeds)
    order = sorted(counts.items(), key=lambda item: ("+~-".index(item[0][0]), item[0][1]))
    return ", ".join(
        f"{sign} {plural(count, kind) if named else f'{_SAID.get(kind, kind)} ({count:,})'}"
        for (sign, kind, named), count in order
    )
