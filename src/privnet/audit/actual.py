"""A host's answer to ``dump.sh``, parsed strictly into frozen values.

A host is not trusted: every line must have the shape of its section, or the whole answer is refused with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from privnet.audit.finding import Unanswered, shown
from privnet.audit.rules import Table, parse_table

SECTIONS = (
    "user", "told", "files", "digests", "odd", "config", "units", "enabled", "wireguard", "links", "networkd",
    "addresses", "routes", "fdb", "neighbours", "sysctl", "limits", "owner", "notes", "tables", "saved",
    "inet", "bridge", "namespaces", "listeners", "processes", "servers", "failed", "end",
)  # fmt: skip

_FILE = re.compile(r"([a-z]) ([0-7]{1,4}) ([0-9]+:[0-9]+) (/[^\t]+)\t(.*)")
_DIGEST = re.compile(r"\\?([0-9a-f]{64})  (/.+)")
_KEY = re.compile("[A-Za-z0-9+/]{43}=")
_MAC = "[0-9a-f]{2}(?::[0-9a-f]{2}){5}"
_FDB = re.compile(rf"({_MAC}) dev (\S+)((?: \S+)*) ?")
_NEIGHBOUR = re.compile(r"(\S+) dev (\S+)(?: lladdr (\S+))?((?: \S+)*) ?")
_SETUP = re.compile(r"([0-9]{1,9}) (/.+)")
_SYSCTL = re.compile(r"/proc/sys/net/ipv6/conf/(\S+)/disable_ipv6 ([01])")
_ENABLED = re.compile("([!-~]{1,100}) ([a-z-]{0,40})")
_ODD = re.compile("odd")
_TOLD = re.compile("(time|applied) ([ -~]{0,200})")
_NOTE = re.compile("([!-~]{1,100}) ([ -~]{0,200})")
_FAILED = re.compile("([A-Za-z0-9_.-]{1,40}) ([0-9]{1,3})")
_LIMITS = re.compile("(ipv[46]) ([0-9]{1,10}) ([0-9]{1,10})")
_SAVED = re.compile("(/.+)")
_LISTENER = re.compile(r"(\S+) (udp|tcp) (\S+):53 (?:users:\((.+)\))?\s*")
_PROCESS = re.compile(r'\("(.{1,15}?)",pid=([0-9]{1,7}),fd=[0-9]+\)')
_MAIN = re.compile("([!-~]+) ([0-9]{1,7})")
_SERVERS = re.compile("(pn-[!-~]+) ([ -~]*)")
_DEPTH_AT_MOST = 40


@dataclass(frozen=True, slots=True)
class File:
    """A file or a link. ``content``: sha256, or a link's target; empty for what is not read (the key)."""

    kind: str
    mode: str
    owner: str
    content: str


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as systemd sees it."""

    load: str
    active: str
    sub: str
    stale: bool


@dataclass(frozen=True, slots=True)
class Peer:
    """A WireGuard peer."""

    endpoint: str
    allowed: str
    keepalive: str
    preshared: str


@dataclass(frozen=True, slots=True)
class WireGuard:
    """The mesh interface as WireGuard sees it."""

    public_key: str
    port: str
    fwmark: str
    peers: Mapping[str, Peer]


@dataclass(frozen=True, slots=True)
class Link:
    """A network device; ``data`` and ``port`` are what is special to its kind and to its place in a bridge; ``upon`` is
    the device that it stands on, as a VLAN's does."""

    kind: str
    index: int
    peer_index: int
    up: bool
    mtu: int
    mac: str
    master: str
    data: Mapping[str, Any]
    port: Mapping[str, Any]
    upon: str = ""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """One FDB entry: device and MAC, and everything else that ``bridge fdb show`` says of it."""

    device: str
    mac: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One neighbour entry."""

    device: str
    address: str
    mac: str
    state: str


@dataclass(frozen=True, slots=True)
class Namespace:
    """The inside of a network namespace."""

    links: Mapping[str, Link]
    addresses: Mapping[str, frozenset[str]]
    default_route: str


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears questions at one place in a resolver's namespace; ``program`` is the first process's."""

    protocol: str
    address: str
    program: str
    processes: frozenset[int]


@dataclass(frozen=True, slots=True)
class Actual:
    """A host as it is; what is not in a mapping is not there.

    :param processes: the main process of each unit that has one
    :param listeners: at port 53 of each resolver's namespace
    :param servers: with what the forwarder of each network was started, where it runs
    """

    root: bool
    clock: int
    applied: str
    files: Mapping[str, File]
    odd_names: bool
    config_digest: str
    config_key: str
    units: Mapping[str, Unit]
    enabled: Mapping[str, str]
    wireguard: WireGuard | None
    links: Mapping[str, Link]
    setups: Mapping[int, str]
    addresses: Mapping[str, frozenset[str]]
    routes: frozenset[str]
    fdb: tuple[Forwarding, ...]
    neighbours: tuple[Neighbour, ...]
    ipv6_off: Mapping[str, bool]
    limits: Mapping[str, tuple[int, int]]
    owner: str
    notes: Mapping[str, str]
    tables: frozenset[str]
    saved: tuple[str, ...]
    guard: Mapping[str, Table]
    namespaces: Mapping[str, Namespace]
    processes: Mapping[str, int]
    listeners: Mapping[str, tuple[Listener, ...]]
    servers: Mapping[str, str]


def parse_dump(output: bytes, mark: str) -> Actual:
    """The state of a host from what ``dump.sh`` printed. Raises Unanswered when it is anything else."""
    text = output.decode("utf-8", "surrogateescape")
    try:
        return _actual(_sections(text, mark))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise Unanswered(f"its answer has a shape that the audit does not know ({type(error).__name__})") from None


def _sections(text: str, mark: str) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in text.split("\n"):
        if line.startswith(f"{mark} "):
            name = line.removeprefix(f"{mark} ")
            if name in sections:
                raise Unanswered(f"its answer has section {shown(name)} twice")
            current = sections[name] = []
        elif current is not None and line:
            current.append(line)
    if tuple(sections) != SECTIONS:
        missing = [name for name in SECTIONS if name not in sections]
        raise Unanswered(f"its answer is not complete: no {', '.join(missing) or 'right order of sections'}")
    return sections


def _actual(sections: Mapping[str, list[str]]) -> Actual:
    # Who is not root is told that.
    if sections["user"] in (["0"], []) and sections["failed"]:
        failed = sorted({f"`{found[1]}` (status {found[2]})" for found in _matches(_FAILED, sections["failed"])})
        raise Unanswered(f"it cannot say what there is: {', '.join(failed)} failed there, and is needed to look")
    config = sections["config"]
    told = {found[1]: found[2] for found in _matches(_TOLD, sections["told"])}
    return Actual(
        root=sections["user"] == ["0"],
        clock=int(told.get("time", "0")),
        applied=told.get("applied", ""),
        files=dict(_files(sections["files"], sections["digests"])),
        odd_names=bool(list(_matches(_ODD, sections["odd"]))),
        config_digest=config[0] if config else "",
        config_key=config[1] if len(config) > 1 and _KEY.fullmatch(config[1]) else "",
        units=dict(_units(sections["units"])),
        enabled={found[1]: found[2] for found in _matches(_ENABLED, sections["enabled"])},
        wireguard=_wireguard(sections["wireguard"]),
        links=dict(_links(_json(sections["links"]))),
        setups={int(found[1]): found[2] for found in _matches(_SETUP, sections["networkd"])},
        addresses=_addresses(_json(sections["addresses"])),
        routes=frozenset(" ".join(line.split()) for line in sections["routes"]),
        fdb=tuple(_fdb(sections["fdb"])),
        neighbours=tuple(_neighbours(sections["neighbours"])),
        ipv6_off={found[1]: found[2] == "1" for found in _matches(_SYSCTL, sections["sysctl"])},
        limits={found[1]: (int(found[2]), int(found[3])) for found in _matches(_LIMITS, sections["limits"])},
        owner=sections["owner"][0] if sections["owner"] else "",
        notes={found[1]: found[2] for found in _matches(_NOTE, sections["notes"])},
        tables=frozenset(sections["tables"]),
        saved=tuple(found[1] for found in _matches(_SAVED, sections["saved"])),
        guard={family: parse_table(sections[family]) for family in ("inet", "bridge") if sections[family]},
        namespaces=dict(_namespaces(sections["namespaces"])),
        processes={found[1]: int(found[2]) for found in _matches(_MAIN, sections["processes"])},
        listeners=_listeners(sections["listeners"]),
        servers={found[1]: found[2].strip() for found in _matches(_SERVERS, sections["servers"])},
    )


def _matches(pattern: re.Pattern[str], lines: list[str]) -> Iterator[re.Match[str]]:
    for line in lines:
        found = pattern.fullmatch(line)
        if found is None:
            raise Unanswered(f"its answer has a line that the audit does not know: {shown(line)}")
        yield found


def _files(lines: list[str], digests: list[str]) -> Iterator[tuple[str, File]]:
    digest_of = {found[2]: found[1] for found in _matches(_DIGEST, digests)}
    for found in _matches(_FILE, lines):
        kind, mode, owner, path, target = found.groups()
        yield path, File(kind, mode, owner, target if kind == "l" else digest_of.get(path, ""))


def _units(lines: list[str]) -> Iterator[tuple[str, Unit]]:
    block: dict[str, str] = {}
    for line in [*lines, "Id="]:
        name, _, value = line.partition("=")
        if name == "Id" and block:
            unit = Unit(
                block["LoadState"],
                block["ActiveState"],
                block["SubState"],
                block.get("NeedDaemonReload") == "yes",
            )
            yield block["Id"], unit
            block = {}
        block[name] = value


def _listeners(lines: list[str]) -> dict[str, tuple[Listener, ...]]:
    listeners: dict[str, list[Listener]] = {}
    for network, protocol, address, users in (found.groups() for found in _matches(_LISTENER, lines)):
        processes = _PROCESS.findall(users or "")
        program = processes[0][0] if processes else "somebody"
        numbers = frozenset(int(number) for _, number in processes)
        listeners.setdefault(network, []).append(Listener(protocol, address, program, numbers))
    return {network: tuple(each) for network, each in listeners.items()}


def _wireguard(lines: list[str]) -> WireGuard | None:
    if not lines:
        return None
    first, *rest = (line.split(" ") for line in lines)
    word, public_key, port, fwmark = first
    if word != "self":
        raise Unanswered("its WireGuard interface is not listed first")
    peers = {}
    for _, key, preshared, endpoint, allowed, keepalive in rest:
        peers[key] = Peer(endpoint, allowed, keepalive, preshared)
    return WireGuard(public_key, port, fwmark, peers)


def _json(lines: list[str]) -> list[dict[str, Any]]:
    text = "".join(lines) or "[]"
    if _depth(text) > _DEPTH_AT_MOST:
        raise Unanswered("its answer is nested too deeply")
    entries = json.loads(text)
    return [entry for entry in entries if entry]


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in re.findall(r"[\[\]{}]", text):
        depth += 1 if character in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _links(entries: list[dict[str, Any]]) -> Iterator[tuple[str, Link]]:
    for entry in entries:
        info = entry.get("linkinfo", {})
        yield (
            str(entry["ifname"]),
            Link(
                kind=str(info.get("info_kind", "")),
                index=int(entry["ifindex"]),
                peer_index=int(entry.get("link_index", 0)),
                up="UP" in entry["flags"],
                mtu=int(entry["mtu"]),
                mac=str(entry.get("address", "")),
                master=str(entry.get("master", "")),
                data=dict(info.get("info_data", {})),
                port=dict(info.get("info_slave_data", {})) if info.get("info_slave_kind") == "bridge" else {},
                # Of a veth pair it is the other end.
                upon=str(entry.get("link", "")) if info.get("info_kind") != "veth" else "",
            ),
        )


def _addresses(entries: list[dict[str, Any]]) -> dict[str, frozenset[str]]:
    return {
        str(entry["ifname"]): frozenset(
            f"{address['local']}/{address['prefixlen']}" for address in entry.get("addr_info", []) if "local" in address
        )
        for entry in entries
    }


def _fdb(lines: list[str]) -> Iterator[Forwarding]:
    for found in _matches(_FDB, lines):
        yield Forwarding(found[2], found[1], tuple(found[3].split()))


def _neighbours(lines: list[str]) -> Iterator[Neighbour]:
    for found in _matches(_NEIGHBOUR, lines):
        yield Neighbour(found[2], found[1], found[3] or "", " ".join(found[4].split()))


def _namespaces(lines: list[str]) -> Iterator[tuple[str, Namespace]]:
    for line in lines:
        name, text, route = line.split("\t")
        entries = _json([text] if text else [])
        yield name, Namespace(dict(_links(entries)), _addresses(entries), route)
