"""What a host answered: the snapshot, parsed strictly into frozen values.

Pure. A host is not trusted: whatever it prints is bounded, and matched against a shape before it means anything. What
cannot be read is :class:`Unknown`, and a stage changes nothing on a host of which it knows nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from privnet.model.identifiers import format_address
from privnet.plan.guard import Binding, Speaker

MARK = "##privnet "
SECTIONS = (
    "system", "packages", "files", "digests", "key", "mesh", "links", "addresses", "routes", "fdb", "neighbours",
    "firewall", "guard", "namespaces", "units", "names", "end",
)  # fmt: skip
BYTES_AT_MOST = 64 * 2**20

_FILE = re.compile(r"([a-z]) ([0-7]{1,4}) ([0-9]+:[0-9]+) (/[^\t\n]+)\t(.*)")
_DIGEST = re.compile(r"([0-9a-f]{64})  (/.+)")
_KEY = re.compile("[A-Za-z0-9+/]{43}=")
_MAC = "[0-9a-f]{2}(?::[0-9a-f]{2}){5}"
_FDB = re.compile(rf"({_MAC}) dev (pn[cx][0-9a-f]+)(?: dst ([0-9.]+))?(?: master (\S+))?.*")
_NEIGHBOUR = re.compile(rf"([0-9.]+) dev (pnx[0-9]+) lladdr ({_MAC}) PERMANENT\s*")


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


@dataclass(frozen=True, slots=True)
class MeshState:
    """The running mesh interface."""

    public_key: str
    port: int
    peers: Mapping[str, PeerState]


@dataclass(frozen=True, slots=True)
class Link:
    """A network device of the host."""

    name: str
    kind: str
    index: int
    up: bool
    mtu: int
    mac: str
    master: str
    data: Mapping[str, Any]
    port: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GuardState:
    """The loaded guard. ``intact``: its rules are those that were loaded from a file with the digest ``structure``."""

    intact: bool
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
    """What a running resolver has read: digests of its hosts file and its configuration."""

    in_namespace: bool
    hosts: str
    config: str


@dataclass(frozen=True, slots=True)
class HostState:
    """A host as it is. Every mapping is complete: what is not in it is not there."""

    root: bool
    systemd: bool
    kernel_wireguard: bool
    machine: str
    ssh_key: str | None
    enabled: Mapping[str, str]
    packages: Mapping[str, str]
    files: Mapping[str, FileState]
    public_key: str | None
    config_digest: str | None
    config_mode: int | None
    config_key: str | None
    mesh: MeshState | None
    links: Mapping[str, Link]
    addresses: Mapping[str, frozenset[str]]
    unreachable: frozenset[str]
    fdb: Mapping[str, Mapping[str, str]]
    port_macs: Mapping[str, frozenset[str]]
    neighbours: Mapping[str, Mapping[str, str]]
    forward_drops: tuple[str, ...]
    guard: GuardState | None
    namespaces: Mapping[str, Inside | None]
    units: Mapping[str, UnitState]
    names: Mapping[str, NamesState] = field(default_factory=dict)


def parse_snapshot(lines: Iterable[str]) -> HostState | Unknown:
    """A host's answer to ``snapshot.sh``. Never raises: what is no snapshot is Unknown, with the reason."""
    try:
        return _state(_sections(lines))
    except Malformed as error:
        return Unknown(str(error))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        return Unknown(f"its answer has a shape that privnet does not know ({type(error).__name__})")


def _sections(lines: Iterable[str]) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    size = 0
    for line in lines:
        size += len(line)
        if size > BYTES_AT_MOST:
            raise Malformed(f"its answer is longer than {BYTES_AT_MOST:,} characters")
        if line.startswith(MARK):
            current = sections.setdefault(line.removeprefix(MARK).strip(), [])
        elif current is not None and line:
            current.append(line)
    if tuple(sections) != SECTIONS:
        raise Malformed("its answer is not complete: " + ", ".join(name for name in SECTIONS if name not in sections))
    return sections


def _state(sections: Mapping[str, list[str]]) -> HostState:
    system = [line.split(" ") for line in sections["system"]]
    facts = {words[0]: words[1] for words in system if len(words) == 2}
    key = dict(line.split(" ", 1) for line in sections["key"])
    config = key.get("config", "").split(" ")
    fdb, port_macs = _forwarding(sections["fdb"])
    links = _links(sections["links"])
    return HostState(
        root=facts.get("user") == "0",
        systemd=facts.get("systemd") == "yes",
        kernel_wireguard=facts.get("wireguard") == "kernel",
        machine=facts.get("machine", ""),
        ssh_key=next((f"{words[1]} {words[2]}" for words in system if words[0] == "ssh" and len(words) == 3), None),
        enabled={words[1]: words[2] for words in system if words[0] == "enabled" and len(words) == 3},
        packages=dict(_packages(sections["packages"])),
        files=dict(_files(sections["files"], sections["digests"])),
        public_key=_key(key.get("key")),
        config_digest=config[1] if len(config) == 2 else None,
        config_mode=int(config[0], 8) if len(config) == 2 else None,
        config_key=_key(key.get("configkey")),
        mesh=_mesh(sections["mesh"]),
        links=links,
        addresses=_addresses(sections["addresses"]),
        unreachable=frozenset(" ".join(line.split()) for line in sections["routes"]),
        fdb=fdb,
        port_macs=port_macs,
        neighbours=_neighbours(sections["neighbours"]),
        forward_drops=tuple(_forward_drops(sections["firewall"])),
        guard=_guard(sections["guard"]),
        namespaces=dict(_namespaces(sections["namespaces"])),
        units=dict(_units(sections["units"])),
        names=dict(_names(sections["names"])),
    )


def _key(text: str | None) -> str | None:
    return text if text is not None and _KEY.fullmatch(text) else None


def _packages(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        status, name, version = line.split()
        if status == "ii":
            yield name, version


def _files(lines: list[str], digests: list[str]) -> Iterator[tuple[str, FileState]]:
    found = (_DIGEST.fullmatch(line) for line in digests)
    digest_of = {match[2]: match[1] for match in found if match}
    for line in lines:
        match = _FILE.fullmatch(line)
        if match is None:
            raise Malformed("it lists a file in a way that privnet does not know")
        kind, mode, owner, path, target = match.groups()
        content = target if kind == "l" else digest_of.get(path, "")
        yield path, FileState(kind, 0 if kind == "l" else int(mode, 8), owner, content)


def _mesh(lines: list[str]) -> MeshState | None:
    if not lines:
        return None
    first, *rest = (line.split(" ") for line in lines)
    if first[0] != "interface":
        raise Malformed("its WireGuard interface is not listed first")
    peers = {words[1]: PeerState(words[1], words[2], words[3], words[4]) for words in rest}
    return MeshState(first[1], int(first[2]), peers)


def _links(lines: list[str]) -> dict[str, Link]:
    links = {}
    for entry in (entry for line in lines for entry in json.loads(line)):
        if not entry:
            continue
        info = entry.get("linkinfo", {})
        link = Link(
            name=entry["ifname"],
            kind=info.get("info_kind", ""),
            index=int(entry["ifindex"]),
            up="UP" in entry["flags"],
            mtu=int(entry["mtu"]),
            mac=entry.get("address", ""),
            master=entry.get("master", ""),
            data=info.get("info_data", {}),
            port=info.get("info_slave_data", {}),
        )
        links[link.name] = link
    return links


def _addresses(lines: list[str]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for line in lines:
        name, address = line.split(" ")
        found.setdefault(name, set()).add(address)
    return {name: frozenset(addresses) for name, addresses in found.items()}


def _forwarding(lines: list[str]) -> tuple[dict[str, dict[str, str]], dict[str, frozenset[str]]]:
    """VXLAN destinations by device, and the MACs that the bridge has behind each container port."""
    vxlan: dict[str, dict[str, str]] = {}
    ports: dict[str, set[str]] = {}
    for line in lines:
        match = _FDB.fullmatch(line)
        if match is None:
            continue
        mac, device, destination, master = match.groups()
        if device.startswith("pnx") and destination:
            vxlan.setdefault(device, {})[mac] = destination
        elif device.startswith("pnc") and master:
            ports.setdefault(device, set()).add(mac)
    return vxlan, {device: frozenset(macs) for device, macs in ports.items()}


def _neighbours(lines: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        match = _NEIGHBOUR.fullmatch(line)
        if match:
            found.setdefault(match[2], {})[match[1]] = match[3]
    return found


def _forward_drops(lines: list[str]) -> Iterator[str]:
    """Foreign chains that drop forwarded packets by default and have no rule that lets private networks pass."""
    for line in lines:
        family, table, chain, passes = line.split(" ")
        if passes == "0":
            yield f"{family} {table} {chain}"


def _guard(lines: list[str]) -> GuardState | None:
    if not lines:
        return None
    words = dict(line.split(" ", 1) for line in lines if not line.startswith("{"))
    sets = [json.loads(line) for line in lines if line.startswith("{")]
    speakers: frozenset[Speaker] = frozenset()
    bindings: frozenset[Binding] = frozenset()
    for entry in (item["set"] for listing in sets for item in listing["nftables"] if "set" in item):
        elements = [element["concat"] for element in entry.get("elem", [])]
        if entry["name"] == "speakers":
            speakers = frozenset(_speaker(*element) for element in elements)
        elif entry["name"] == "ports":
            bindings = frozenset(Binding(*map(str, element)) for element in elements)
    intact = len(sets) == 2 and bool(words.get("sum")) and words.get("sum") == words.get("listing")
    return GuardState(intact, words.get("structure", ""), speakers, bindings)


def _speaker(vtep: str, vni: int, mac: int, address: int) -> Speaker:
    digits = f"{int(mac):012x}"
    text = ":".join(digits[i : i + 2] for i in range(0, 12, 2))
    return Speaker(str(vtep), int(vni), text, format_address(int(address)))


def _namespaces(lines: list[str]) -> Iterator[tuple[str, Inside | None]]:
    for line in lines:
        name, _, text = line.partition("\t")
        entries = [entry for entry in json.loads(text) if entry] if text else []
        if not entries:
            yield name, None
            continue
        entry = entries[0]
        addresses = frozenset(
            f"{address['local']}/{address['prefixlen']}" for address in entry.get("addr_info", [])
        )
        outer = int(entry.get("link_index", 0))
        yield name, Inside(entry["address"], int(entry["mtu"]), "UP" in entry["flags"], addresses, outer)


def _units(lines: list[str]) -> Iterator[tuple[str, UnitState]]:
    block: dict[str, str] = {}
    for line in [*lines, "Id="]:
        name, _, value = line.partition("=")
        if name == "Id" and block.get("Id"):
            if block.get("LoadState") == "loaded":
                stale = block.get("NeedDaemonReload") == "yes"
                yield block["Id"], UnitState(block["ActiveState"], block["SubState"], stale)
            block = {}
        block[name] = value


def _names(lines: list[str]) -> Iterator[tuple[str, NamesState]]:
    for line in lines:
        words = line.split(" ")
        if len(words) == 4:
            yield words[0], NamesState(words[1] == "yes", words[2], words[3])
