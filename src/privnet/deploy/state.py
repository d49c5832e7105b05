"""What a host answered: the snapshot, parsed strictly into frozen values.

Pure. A host is not trusted: whatever it prints is bounded, and matched against a shape before it means anything. What
cannot be read is :class:`Unknown`, and a stage changes nothing on a host of which it knows nothing.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from privnet.deploy.firewall import Table
from privnet.deploy.listing import parse_tables
from privnet.diagnostics import visible
from privnet.model.identifiers import NETWORK_ID, format_address
from privnet.plan.containers import mac_of
from privnet.plan.guard import Binding, Speaker
from privnet.plan.printable import KINDS, NotPrintable, checked

Part = TypeVar("Part", Speaker, Binding)

MARK = "##privnet "
SECTIONS = (
    "system", "packages", "files", "digests", "key", "mesh", "links", "addresses", "routes", "fdb", "neighbours",
    "firewall", "guard", "namespaces", "units", "names", "answering", "ways", "networkd", "failed", "end",
)  # fmt: skip
BYTES_AT_MOST = 64 * 2**20
LINE_AT_MOST = 10_000
"""Characters; a file's line has two paths of 4,096 at most. Where a line is JSON, only the whole answer is bounded."""
JSON = ("links", "guard", "namespaces")
JSON_AT_MOST = 4 * 10**6
"""Commas, brackets and braces: each may be an object of 64 bytes and more. A host with 10,000 containers has some
1.4 million; a megabyte of a lie could take 25 here."""
FAILED_SAID = 5
"""Programs: one that fails makes others fail."""
LAST_SECOND = 253_402_300_799
"""Of the year 9999."""
TOLD = frozenset({"user", "machine", "time", "release", "os"})
DISKS = frozenset({"/etc", "/run", "/var/lib"})
"""What every host tells of itself. An answer without it would be judged as if nothing were wrong there."""

_UNPRINTABLE = re.compile("[^\t -~]")
_DIGITS = re.compile("[0-9]{1,20}")
_MACHINE = re.compile("[0-9a-f]{32}|uninitialized|")
_RELEASE = re.compile("[0-9]{1,6}[A-Za-z0-9.~+-]{0,40}|")
_OS = re.compile("[A-Za-z0-9._~-]{1,40} [A-Za-z0-9._~-]{1,40}")
_VERSION = re.compile("[A-Za-z0-9.+~:-]{1,80}")
_DEVICE = re.compile("[!-.0-~]{1,15}")
_PATH = re.compile("/[ -~]{1,4095}")
_DESTINATION = re.compile("[a-z0-9./]{1,18}")
_ROUTE = re.compile("[a-z0-9./]{1,18}(?: [A-Za-z0-9_./-]{1,64}){0,40}")
_ROUTES = re.compile("[A-Za-z0-9_.-]{1,64}")
_STATE = re.compile("[a-z-]{0,40}")
_UNIT = re.compile("[!-~]{1,255}")
_NAMESPACE = re.compile("[ -~]{1,255}")
_ADDRESS = re.compile("[0-9a-f:.]{1,45}(?:/[0-9]{1,3})?|ipv6")
_LINK_ADDRESS = re.compile("[0-9a-f:.]{0,60}")
_KIND = re.compile("[A-Za-z0-9_-]{0,30}")
_FAILED = re.compile("[A-Za-z0-9_.-]{1,40} [0-9]{1,3}")
_TOKEN = re.compile("[!-~]{0,100}")
_FILE = re.compile(r"([a-z]) ([0-7]{1,4}) ([0-9]{1,10}:[0-9]{1,10}) (/[^\t]{1,4095})\t(.*)")
_DIGEST = re.compile(r"([0-9a-f]{64})  (/.+)")
_KEY = re.compile(KINDS["key"])
_MAC = "[0-9a-f]{2}(?::[0-9a-f]{2}){5}"
_IPV4 = "[0-9]{1,3}(?:[.][0-9]{1,3}){3}"
_FDB = re.compile(
    rf"({_MAC}) dev (pn[bcx][0-9a-f]{{1,13}})(?: vlan [0-9]+)?"
    rf"(?: dst ({_IPV4}(?: (?:port|vni|src_vni) [0-9]+| via [a-z0-9.-]+)*))?(?: master (\S+))?.*"
)
_APPLIED = re.compile("[0-9]{1,16} [0-9a-f]{64} [A-Za-z0-9.-]{1,40}")
_RUN = re.compile("[A-Za-z0-9.-]{1,40}")
_GENERATION = re.compile("[A-Za-z0-9. -]{1,80}")
_NETWORK = re.compile(NETWORK_ID)
_LISTENER = re.compile(r"(udp|tcp) ([0-9a-z.:%*\[\]]{1,80}):53 (.{0,4000})")
_PROCESS = re.compile("pid=([0-9]{1,7}),fd=")
_PROGRAM = re.compile(r'users:\(\("([^"]{1,15})"')
_SERVERS = re.compile("[0-9a-f.:]+#[0-9]+")
_NEIGHBOUR = re.compile(rf"({_IPV4}) dev (pnx[0-9]{{1,8}}) lladdr ({_MAC})((?: [A-Za-z_]{{1,20}}){{1,4}})\s*")


PORT: Mapping[str, object] = {
    "state": "forwarding", "flood": True, "bcast_flood": True, "mcast_flood": True, "group_fwd_mask": "0",
    **dict.fromkeys(("hairpin", "guard", "root_block", "fastleave", "learning", "proxy_arp", "proxy_arp_wifi"), False),
    **dict.fromkeys(("mcast_to_unicast", "neigh_suppress", "vlan_tunnel", "isolated", "locked"), False),
}  # fmt: skip
"""A bridge's port: all that decides which frames it lets through, as the kernel makes it but for its state."""
BRIDGE: Mapping[str, object] = {
    "group_fwd_mask": "0",
    **dict.fromkeys(("ageing_time", "stp_state", "vlan_filtering", "mcast_snooping"), 0),
    **dict.fromkeys(("nf_call_iptables", "nf_call_ip6tables", "nf_call_arptables"), 0),
}


class Malformed(ValueError):
    """An answer that is not a snapshot."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A host whose state could not be read, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class FileState:
    """A file, or a link, as found. ``content`` is its sha256, or a link's target."""

    kind: str
    mode: int
    owner: str
    content: str


@dataclass(frozen=True, slots=True)
class PeerState:
    """A WireGuard peer of the running mesh."""

    public_key: str
    endpoint: str
    allowed: str
    keepalive: str
    preshared: str = "no"


@dataclass(frozen=True, slots=True)
class MeshState:
    """The running mesh interface."""

    public_key: str
    port: int
    peers: Mapping[str, PeerState]
    fwmark: str = "off"


@dataclass(frozen=True, slots=True)
class Link:
    """A network device of the host. ``upon``: the device that it stands on, as a VLAN's does; no veth's other end."""

    name: str
    kind: str
    index: int
    up: bool
    mtu: int
    mac: str
    master: str
    data: Mapping[str, Any]
    port: Mapping[str, Any]
    upon: str = ""

    def is_port(self, **settings: object) -> bool:
        """Whether it forwards for its bridge, with these settings and all others as the kernel makes them."""
        return all(self.port.get(key, usual) == settings.get(key, usual) for key, usual in PORT.items())

    def is_bridge(self) -> bool:
        """Whether it passes frames on as they are, to whom they are for, and shows them to nobody else."""
        return self.kind == "bridge" and all(self.data.get(key, usual) == usual for key, usual in BRIDGE.items())


@dataclass(frozen=True, slots=True)
class GuardState:
    """The loaded guard. ``intact``: its rules are those that were loaded from a file with the digest ``structure``;
    ``heard``: the process that owns it can be told something."""

    intact: bool
    heard: bool
    structure: str
    speakers: frozenset[Speaker]
    bindings: frozenset[Binding]


@dataclass(frozen=True, slots=True)
class Inside:
    """The interface in a container's, or a resolver's, namespace."""

    mac: str
    mtu: int
    up: bool
    addresses: frozenset[str]
    outer: int


@dataclass(frozen=True, slots=True)
class UnitState:
    """A unit that systemd has loaded."""

    active: str
    sub: str
    stale: bool


@dataclass(frozen=True, slots=True)
class NamesState:
    """What a running resolver has read: digests of its hosts file and its configuration.

    :param serves: whether it is in its network's namespace, and not stopped by a signal
    """

    serves: bool
    hosts: str
    config: str


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears questions at one place in a resolver's namespace, by TCP or UDP: processes, and the program's name."""

    protocol: str
    address: str
    processes: frozenset[int]
    program: str


@dataclass(frozen=True, slots=True)
class Answering:
    """Who hears questions in a resolver's namespace.

    :param resolver: the main process of the network's resolver, 0 when there is none
    :param servers: those to which its forwarder was told to carry questions; None when it does not run
    """

    listeners: tuple[Listener, ...] = ()
    resolver: int = 0
    servers: tuple[str, ...] | None = None

    def hears(self, address: str, process: int) -> bool:
        """Whether a process hears questions there, by UDP and by TCP."""
        found = {each.protocol for each in self.listeners if each.address == address and process in each.processes}
        return found == {"udp", "tcp"}


@dataclass(frozen=True, slots=True)
class Firewall:
    """The host's own rules: tables with a chain that packets of ours may come into. ``bridged``: frames within a bridge
    come into those for packets too."""

    bridged: bool = False
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True, slots=True)
class Disk:
    """Room on the file system of a directory: bytes, and files that can still be made (0: not counted)."""

    free: int
    files: int


@dataclass(frozen=True, slots=True)
class SetupFile:
    """A `.network` or `.link` file of somebody else's: what its [Match] says, and what its [Link] sets."""

    path: str
    match: tuple[tuple[str, str], ...]
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Way:
    """How the kernel sends to an address: by which device, as whom, and how large packets may be."""

    device: str
    source: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Hidden:
    """A VXLAN device that was made in the host's namespace and moved to another one: its port is still the host's."""

    namespace: str
    device: str
    vni: int
    port: int


@dataclass(frozen=True, slots=True)
class Applied:
    """The lock file by which a host was changed last."""

    serial: int
    checksum: str
    run: str


@dataclass(frozen=True, slots=True)
class Armed:
    """A run whose change of a host is not confirmed, and the token of its lease (empty when there is none).

    :param held: whether it has ended, and a person is to confirm it
    """

    run: str
    token: str
    held: bool = False


@dataclass(frozen=True, slots=True)
class HostState:
    """A host as it is. Every mapping is complete: what is not in it is not there.

    :param release: of its operating system, as `os-release` names it: ``debian 12``
    :param setups: files of others by which networkd, or udev, sets up devices, in the order in which they are asked
    :param devices: names of devices that are not ours
    :param ways: by address of an endpoint that was asked for; what is not in it has no route
    :param hidden: VXLAN devices in namespaces of a container engine
    :param clients: UDP ports of sockets that are connected
    """

    root: bool
    systemd: bool
    kernel_wireguard: bool
    machine: str
    enabled: Mapping[str, str]
    masked: frozenset[str]
    odd_names: bool
    packages: Mapping[str, str]
    files: Mapping[str, FileState]
    public_key: str | None
    config_digest: str | None
    config_mode: int | None
    config_owner: str
    config_key: str | None
    mesh: MeshState | None
    links: Mapping[str, Link]
    addresses: Mapping[str, frozenset[str]]
    unreachable: frozenset[str]
    own_routes: Mapping[str, frozenset[str]]
    fdb: Mapping[str, Mapping[str, str]]
    flooded: Mapping[str, tuple[tuple[str, str], ...]]
    port_macs: Mapping[str, frozenset[str]]
    neighbours: Mapping[str, Mapping[str, str]]
    firewall: Firewall
    guard: GuardState | None
    namespaces: Mapping[str, Inside | None]
    units: Mapping[str, UnitState]
    names: Mapping[str, NamesState] = field(default_factory=dict)
    answering: Mapping[str, Answering] = field(default_factory=dict)
    clock: int = 0
    disks: Mapping[str, Disk] = field(default_factory=dict)
    systemd_version: str = ""
    release: str = ""
    listening: frozenset[int] = frozenset()
    routes: tuple[tuple[str, str], ...] = ()
    earlier: tuple[tuple[str, str, str], ...] = ()
    """Routes of tables that are asked before the main one: destination, device (``throw``: none), table."""
    applied: Applied | None = None
    generation: str = "none"
    armed: Armed | None = None
    busy: bool = False
    setups: tuple[SetupFile, ...] = ()
    devices: frozenset[str] = frozenset()
    ways: Mapping[str, Way] = field(default_factory=dict)
    hidden: tuple[Hidden, ...] = ()
    clients: frozenset[int] = frozenset()
    neighbour_table: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By family, from where on the kernel looks for entries to give up, and how many it allows."""

    def is_active(self, unit: str) -> bool:
        """Whether systemd says so of a unit."""
        return unit in self.units and self.units[unit].active == "active"

    @property
    def failed(self) -> frozenset[str]:
        """Units that have failed."""
        return frozenset(name for name, unit in self.units.items() if unit.active == "failed")


def parse_snapshot(lines: Iterable[str]) -> HostState | Unknown:
    """A host's answer to ``snapshot.sh``. Never raises: what is no snapshot is Unknown, with the reason."""
    try:
        return _state(_sections(lines))
    except Malformed as error:
        return Unknown(str(error))
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        return Unknown(f"its answer has a shape that privnet does not know ({type(error).__name__})")


def _sections(lines: Iterable[str]) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    name, size, values = "", 0, 0
    for line in lines:
        size += len(line)
        if size > BYTES_AT_MOST:
            raise Malformed(f"its answer is longer than {BYTES_AT_MOST:,} characters")
        # As `snapshot.sh` does by itself, on a host that does what it is asked to.
        line = _UNPRINTABLE.sub("?", line)
        if line.startswith(MARK):
            name = line.removeprefix(MARK).strip()
            if name in sections:
                raise Malformed("its answer has a part twice")
            current = sections[name] = []
        elif current is not None and line:
            if len(line) > LINE_AT_MOST and name not in JSON:
                raise Malformed(f"its answer has a line of more than {LINE_AT_MOST:,} characters")
            if name in JSON:
                values += sum(map(line.count, ",[{"))
                if values > JSON_AT_MOST:
                    raise Malformed(f"its answer has more than {JSON_AT_MOST:,} values")
            current.append(line)
    if tuple(sections) != SECTIONS:
        raise Malformed("its answer is not complete: " + ", ".join(name for name in SECTIONS if name not in sections))
    return sections


def _all_known(lines: list[str]) -> None:
    """Raises Malformed when a program has failed by which the host was to say what there is."""
    failed = sorted({_word(line, _FAILED, "program that failed") for line in lines})
    if failed:
        some = ", ".join("`{}` (status {})".format(*line.split()) for line in failed[:FAILED_SAID])
        raise Malformed(
            f"it cannot say what there is: {some} failed there, and is needed to look. See why, as root on the host "
            "(`type PROGRAM`, `df /`), put it right, then run again"
        )


def _state(sections: Mapping[str, list[str]]) -> HostState:
    system = [line.split(" ") for line in sections["system"]]
    facts = {words[0]: words[1] for words in system if len(words) == 2}
    # Who is not root, or meets no systemd, is told that: nothing works for them.
    if facts.get("user") in ("0", "") and "systemd" in facts:
        _all_known(sections["failed"])
    disks = dict(_disk(words[1:]) for words in system if words[0] == "disk")
    told = {words[0] for words in system}
    if missing := [*sorted(TOLD - told), *sorted(DISKS - disks.keys())]:
        raise Malformed("its answer is not complete: " + ", ".join(missing))
    key = dict(line.split(" ", 1) for line in sections["key"])
    config = key.get("config", "").split(" ")
    fdb, flooded, port_macs = _forwarding(sections["fdb"])
    links = _links(sections["links"])
    routes = [" ".join(line.split()) for line in sections["routes"]]
    return HostState(
        root=facts.get("user") == "0",
        systemd=facts.get("systemd") == "yes",
        kernel_wireguard=facts.get("wireguard") == "kernel",
        machine=_word(facts.get("machine", ""), _MACHINE, "machine-id"),
        enabled={words[1]: words[2] for words in system if words[0] == "enabled" and len(words) == 3},
        masked=frozenset(words[1] for words in system if words[0] == "masked" and len(words) == 2),
        odd_names=facts.get("names") == "odd",
        packages=dict(_packages(sections["packages"])),
        files=dict(_files(sections["files"], sections["digests"])),
        public_key=_key(key.get("key")),
        config_digest=config[2] if len(config) == 3 else None,
        config_mode=_number(config[0], "file mode", 0o7777, base=8) if len(config) == 3 else None,
        config_owner=config[1] if len(config) == 3 else "",
        config_key=_key(key.get("configkey")),
        mesh=_mesh(sections["mesh"]),
        links=links,
        addresses=_addresses(sections["addresses"]),
        unreachable=frozenset(route for route in routes if route.startswith("unreachable ")),
        own_routes=_own_routes(routes),
        fdb=fdb,
        flooded=flooded,
        port_macs=port_macs,
        neighbours=_neighbours(sections["neighbours"]),
        firewall=Firewall(
            bridged="bridged yes" in sections["firewall"],
            tables=parse_tables(sections["firewall"]),
        ),
        guard=_guard(sections["guard"]),
        namespaces=dict(_namespaces(sections["namespaces"])),
        units=dict(_units(sections["units"])),
        names=dict(_names(sections["names"])),
        answering=_answering(sections["answering"]),
        clock=_number(facts["time"], "time", LAST_SECOND),
        disks=disks,
        systemd_version=_word(facts.get("release", ""), _RELEASE, "version of systemd"),
        release=[_word(" ".join(words[1:]), _OS, "release") for words in system if words[0] == "os"][-1],
        listening=frozenset(_number(words[1], "UDP port", 65535) for words in system if words[0] == "listens"),
        routes=tuple(_route(words[1:]) for words in system if words[0] == "route" and len(words) < 4),
        earlier=tuple(
            (*_route(words[1:3]), _word(words[3], _ROUTES, "table of routes"))
            for words in system
            if words[0] == "route" and len(words) == 4
        ),
        applied=next((_applied(words[1:]) for words in system if words[0] == "applied"), None),
        generation=next((_generation(words[1:]) for words in system if words[0] == "generation"), "none"),
        armed=next((_armed(words[1:], facts.get("held") == "yes") for words in system if words[0] == "armed"), None),
        busy=facts.get("busy") == "yes",
        ways=dict(_ways(sections["ways"])),
        hidden=tuple(_hidden(words[1:]) for words in system if words[0] == "hidden"),
        clients=frozenset(_number(words[1], "UDP port", 65535) for words in system if words[0] == "client"),
        setups=tuple(_setups(sections["networkd"])),
        devices=frozenset(_word(words[1], _DEVICE, "name of a device") for words in system if words[0] == "device"),
        neighbour_table=dict(_limits(words[1:]) for words in system if words[0] == "neighbours"),
    )


def _number(text: str, what: str, at_most: int, base: int = 10) -> int:
    """A number that a host has said: digits, few of them, and not above what such a number can be."""
    if not _DIGITS.fullmatch(text) or (number := int(text, base)) > at_most:
        raise _impossible(what, text)
    return number


def _count(found: object, what: str, at_most: int = 2**32) -> int:
    """The same of JSON, where it has to be a whole number already."""
    if type(found) is not int or not 0 <= found <= at_most:
        raise _impossible(what, found if isinstance(found, str) else "")
    return found


def _word(found: object, shape: re.Pattern[str], what: str) -> str:
    """A word, or a few, of which it is known how long they are and of which characters."""
    if not isinstance(found, str) or not shape.fullmatch(found):
        raise _impossible(what, found if isinstance(found, str) else "")
    return found


def _impossible(what: str, found: str) -> Malformed:
    return Malformed(f'it says a {what} that cannot be: "{visible(found[:40])}{"…" if len(found) > 40 else ""}"')


def _disk(words: list[str]) -> tuple[str, Disk]:
    path, blocks, size, files = words
    if path not in DISKS:
        raise _impossible("directory of a file system", path)
    free = _number(blocks, "number of free blocks", 2**64) * _number(size, "size of blocks", 2**32)
    return path, Disk(free, _number(files, "number of free files", 2**64))


def _ways(lines: list[str]) -> Iterator[tuple[str, Way]]:
    """Lines of device, source, MTU and the addresses that are reached so."""
    for line in lines:
        device, source, mtu, *addresses = line.split(" ")
        source = _word(source, _ADDRESS, "address")
        way = Way(_word(device, _DEVICE, "name of a device"), source, _number(mtu, "MTU", 2**32))
        yield from ((_word(address, _ADDRESS, "address"), way) for address in addresses)


def _hidden(words: list[str]) -> Hidden:
    namespace, device, vni, port = words
    return Hidden(
        _word(namespace, _NAMESPACE, "name of a network namespace"),
        _word(device, _DEVICE, "name of a device"),
        _number(vni, "VNI", 2**24),
        _number(port, "UDP port", 65535),
    )


def _setups(lines: list[str]) -> Iterator[SetupFile]:
    """Lines `path<tab>section<tab>key=value`, and `path<tab><tab>` for each file."""
    files: dict[str, tuple[list[tuple[str, str]], list[str]]] = {}
    for line in lines:
        path, section, text = (*line.split("\t"), "", "")[:3]
        match, changes = files.setdefault(_word(path, _PATH, "path"), ([], []))
        key, _, value = text.partition("=")
        if section == "Match":
            match.append((key.strip(), value.strip()))
        elif section == "Link":
            changes.append(f"{key.strip()}={value.strip()}")
    for path, (match, changes) in sorted(files.items(), key=lambda item: item[0].rpartition("/")[2]):
        yield SetupFile(path, tuple(match), tuple(changes))


def _limits(words: list[str]) -> tuple[str, tuple[int, int]]:
    family, soft, hard = words
    if family not in ("ipv4", "ipv6"):
        raise _impossible("family", family)
    return family, (_number(soft, "limit of neighbours", 2**31), _number(hard, "limit of neighbours", 2**31))


def _route(words: list[str]) -> tuple[str, str]:
    destination, device = words
    return _word(destination, _DESTINATION, "destination of a route"), _word(device, _DEVICE, "device of a route")


def _applied(words: list[str]) -> Applied:
    if not _APPLIED.fullmatch(" ".join(words)):
        raise Malformed("its /etc/privnet/applied is damaged: remove it there, and run again")
    return Applied(int(words[0]), words[1], words[2])


def _armed(words: list[str], held: bool) -> Armed:
    run, token = (*words, "", "")[:2]
    return Armed(run if _RUN.fullmatch(run) else "damaged", token if _TOKEN.fullmatch(token) else "damaged", held)


def _generation(words: list[str]) -> str:
    text = " ".join(words)
    return text if _GENERATION.fullmatch(text) else "damaged"


def _key(text: str | None) -> str | None:
    return text if text is not None and _KEY.fullmatch(text) else None


def _packages(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        words = line.split()
        # The first letter is what was asked for (a held package has another), the second what is.
        if len(words) == 3 and words[0][1:2] == "i":
            yield words[1], _word(words[2], _VERSION, "version of a package")


def _files(lines: list[str], digests: list[str]) -> Iterator[tuple[str, FileState]]:
    found = (_DIGEST.fullmatch(line) for line in digests)
    digest_of = {match[2]: match[1] for match in found if match}
    for line in lines:
        match = _FILE.fullmatch(line)
        if match is None:
            raise Malformed("it lists a file in a way that privnet does not know")
        kind, mode, owner, path, target = match.groups()
        if ".." in path.split("/"):
            raise Malformed("it lists a file in a way that privnet does not know")
        content = target if kind == "l" else digest_of.get(path, "")
        yield path, FileState(kind, 0 if kind == "l" else int(mode, 8), owner, content)


def _mesh(lines: list[str]) -> MeshState | None:
    if not lines:
        return None
    first, *rest = (line.split(" ") for line in lines)
    if first[0] != "interface":
        raise Malformed("its WireGuard interface is not listed first")
    peers = {peer[1]: PeerState(*peer[1:]) for peer in rest}
    if not all(map(_KEY.fullmatch, peers)):
        raise Malformed("a WireGuard peer has no key that could be one")
    _, key, port, fwmark = first
    return MeshState(_key(key) or "", _number(port, "WireGuard port", 65535), peers, fwmark)


def _links(lines: list[str]) -> dict[str, Link]:
    links = {}
    for entry in (entry for line in lines for entry in json.loads(line)):
        if not entry:
            continue
        info = entry.get("linkinfo", {})
        link = Link(
            name=_word(entry["ifname"], _DEVICE, "name of a device"),
            kind=_word(info.get("info_kind", ""), _KIND, "kind of a device"),
            index=_count(entry["ifindex"], "index of a device"),
            up="UP" in entry["flags"],
            mtu=_count(entry["mtu"], "MTU"),
            mac=_word(entry.get("address", ""), _LINK_ADDRESS, "address of a device"),
            master=_word(entry["master"], _DEVICE, "name of a device") if "master" in entry else "",
            data=dict(info.get("info_data", {})),
            port=dict(info.get("info_slave_data", {})),
            upon=_word(entry["link"], _DEVICE, "name of a device") if _stands(entry, info) else "",
        )
        links[link.name] = link
    return links


def _stands(entry: Mapping[str, Any], info: Mapping[str, Any]) -> bool:
    return isinstance(entry.get("link"), str) and info.get("info_kind") != "veth"


def _own_routes(routes: list[str]) -> dict[str, frozenset[str]]:
    """Routes by devices of ours, by device, without its name."""
    found: dict[str, set[str]] = {}
    for route in routes:
        if " dev " in route:
            before, _, after = route.partition(" dev ")
            name, _, rest = after.partition(" ")
            words = _word(f"{before} {rest}".strip(), _ROUTE, "route")
            found.setdefault(_word(name, _DEVICE, "name of a device"), set()).add(words)
    return {name: frozenset(some) for name, some in found.items()}


def _addresses(lines: list[str]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for line in lines:
        name, address = line.split(" ")
        found.setdefault(_word(name, _DEVICE, "name of a device"), set()).add(_word(address, _ADDRESS, "address"))
    return {name: frozenset(addresses) for name, addresses in found.items()}


Forwarding = tuple[dict[str, dict[str, str]], dict[str, tuple[tuple[str, str], ...]], dict[str, frozenset[str]]]


def _forwarding(lines: list[str]) -> Forwarding:
    """VXLAN destinations by device; those of a MAC that has several; the MACs that a bridge has behind each device."""
    vxlan: dict[str, dict[str, str]] = {}
    flooded: dict[str, list[tuple[str, str]]] = {}
    ports: dict[str, set[str]] = {}
    for line in lines:
        match = _FDB.fullmatch(line)
        if match is None:
            continue
        mac, device, destination, master = match.groups()
        if device.startswith("pnx") and destination:
            if vxlan.setdefault(device, {}).setdefault(mac, destination) != destination:
                flooded.setdefault(device, []).append((mac, destination))
        elif master:
            ports.setdefault(device, set()).add(mac)
    several = {device: tuple(entries) for device, entries in flooded.items()}
    return vxlan, several, {device: frozenset(macs) for device, macs in ports.items()}


def _neighbours(lines: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        match = _NEIGHBOUR.fullmatch(line)
        if match:
            found.setdefault(match[2], {})[match[1]] = f"{match[3]}{match[4]}".removesuffix(" PERMANENT")
    return found


def _guard(lines: list[str]) -> GuardState | None:
    if not lines:
        return None
    words = dict(line.split(" ", 1) for line in lines if not line.startswith("{"))
    sets = [json.loads(line) for line in lines if line.startswith("{")]
    found: dict[str, list[Speaker | Binding | None]] = {"speakers": [], "ports": []}
    for entry in (item["set"] for listing in sets for item in listing["nftables"] if "set" in item):
        read = _speaker if entry["name"] == "speakers" else _binding
        found[entry["name"]] = [read(element) for element in entry.get("elem", [])]
    members = [*found["speakers"], *found["ports"]]
    # An element that privnet would not write is no member on its way out: the rules were touched, and are loaded anew.
    intact = len(sets) == 2 and None not in members and bool(words.get("sum")) and words["sum"] == words.get("listing")
    return GuardState(
        intact,
        words.get("owner") == "heard",
        words.get("structure", ""),
        frozenset(member for member in members if isinstance(member, Speaker)),
        frozenset(member for member in members if isinstance(member, Binding)),
    )


def _speaker(element: dict[str, Any]) -> Speaker | None:
    match element.get("concat"):
        case [str(vtep), int(vni), int(mac), int(address)] if vni % 256 == 0 and mac == address and 0 <= mac < 1 << 32:
            return _printable(Speaker(vtep, vni >> 8, mac_of(address), format_address(address)))
    return None


def _binding(element: dict[str, Any]) -> Binding | None:
    match element.get("concat"):
        case [str(port), str(mac), str(address)]:
            return _printable(Binding(port, mac, address))
    return None


def _printable(part: Part) -> Part | None:
    try:
        return checked(part)
    except NotPrintable:
        return None


def _namespaces(lines: list[str]) -> Iterator[tuple[str, Inside | None]]:
    for line in lines:
        name, text = f"{line}\t".split("\t")[:2]
        _word(name, _NAMESPACE, "name of a network namespace")
        entries = {entry["ifname"]: entry for entry in json.loads(text) if entry} if text else {}
        entry = entries.get("pn0")
        if entry is None:
            yield name, None
            continue
        addresses = frozenset(
            f"{_word(address['local'], _ADDRESS, 'address')}/{_count(address['prefixlen'], 'length of a prefix', 128)}"
            for address in entry.get("addr_info", [])
        )
        outer = _count(entry.get("link_index", 0), "index of a device")
        up = "UP" in entry["flags"]
        mac = _word(entry["address"], _LINK_ADDRESS, "address of a device")
        yield name, Inside(mac, _count(entry["mtu"], "MTU"), up, addresses, outer)


def _units(lines: list[str]) -> Iterator[tuple[str, UnitState]]:
    block: dict[str, str] = {}
    for line in [*lines, "Id="]:
        name, _, value = line.partition("=")
        if name == "Id" and block.get("Id"):
            if block.get("LoadState") == "loaded":
                stale = block.get("NeedDaemonReload") == "yes"
                active, sub = (_word(block[key], _STATE, "state of a unit") for key in ("ActiveState", "SubState"))
                yield _word(block["Id"], _UNIT, "name of a unit"), UnitState(active, sub, stale)
            block = {}
        block[name] = value


def _names(lines: list[str]) -> Iterator[tuple[str, NamesState]]:
    for line in lines:
        words = line.split(" ")
        if len(words) == 4:
            yield words[0], NamesState(words[1] == "yes", words[2], words[3])


def _answering(lines: list[str]) -> dict[str, Answering]:
    found = defaultdict[str, Answering](Answering)
    for line in lines:
        network, word, rest = line.split(" ", 2)
        _word(network, _NETWORK, "private network")
        known = found[network]
        if word == "resolver":
            found[network] = replace(known, resolver=_number(rest, "process", 2**22))
        elif word == "servers":
            found[network] = replace(known, servers=tuple(_SERVERS.findall(rest)))
        elif (match := _LISTENER.fullmatch(f"{word} {rest}")) is not None:
            processes = frozenset(_number(number, "process", 2**22) for number in _PROCESS.findall(match[3]))
            program = _PROGRAM.match(match[3])
            listener = Listener(match[1], match[2], processes, program[1] if program else "")
            found[network] = replace(known, listeners=(*known.listeners, listener))
        else:
            raise Malformed("it tells who hears questions in a way that privnet does not know")
    return dict(found)
