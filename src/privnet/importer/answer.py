"""What a host answered, read strictly.

A host is not trusted: what it says is bounded, and has the shapes of the models before it means anything. What cannot
be read is :class:`Unusable`, with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from privnet.diagnostics import quoted
from privnet.model.base import Part
from privnet.model.fleet import Fleet, Host
from privnet.model.identifiers import (
    LABEL,
    OCTET,
    VNI_LAST,
    ApplicationId,
    HostName,
    Integer,
    Invalid,
    NetworkId,
    Prefix,
    ProcessType,
    check_endpoint,
    parse_address,
)
from privnet.model.lock import NetworkLock, Slot, Version
from privnet.model.project import Project
from privnet.plan.allocate import slot_name
from privnet.plan.printable import KINDS
from privnet.plan.record import VERSION

MARK = "##privnet "
SECTIONS = ("user", "record", "applied", "key", "peers", "forwarding", "containers", "end")
BYTES_AT_MOST = 64 * 2**20
SERIAL_LAST = 10**12
"""More than any fleet reaches: a host could otherwise say a serial after which the lock file has no next one."""

_APPLIED = re.compile("([0-9]{1,16})(?: ([0-9a-f]{64}))?(?: [ -~]{0,200})?")
_KEY = re.compile(KINDS["key"])
_ADDRESS = rf"(?:{OCTET})(?:[.]{OCTET}){{3}}".replace("(25", "(?:25")
_PEER = re.compile(rf"({KINDS['key']}) ({_ADDRESS})/32")
_FORWARDING = re.compile(rf"02:70:([0-9a-f]{{2}}(?::[0-9a-f]{{2}}){{3}}) pnx([1-9][0-9]{{0,7}}) ({_ADDRESS})")
_CONTAINER = re.compile(rf"(?P<slot>{KINDS['slot']}) (?P<address>{_ADDRESS}/[0-9]{{1,2}})?")


class Unusable(Exception):
    """There is nothing to go by. The message says why."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A private network as a host remembers it.

    :param mtu: in bytes, inside the network: says how small the underlay of a host is that does not answer
    :param places: mesh address (a number) and WireGuard endpoint of each host of the network
    :param out: those of its hosts that are out of service
    """

    project: Project
    lock: NetworkLock
    mtu: int
    places: Mapping[str, tuple[int, str]]
    out: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Answer:
    """A host: what it remembers, who it is, and what runs there.

    :param fleet: the fleet's settings, with this host alone
    :param applied: the lock file by which it was changed last; serial 0 or no checksum when it does not say
    :param peers: WireGuard public key by mesh address (a number)
    :param forwarding: where frames for (VNI, address) go: a mesh address
    :param running: address of each container by its slot; empty for a namespace without one
    """

    name: str
    mesh: int
    fleet: Fleet
    networks: Mapping[str, Remembered]
    applied: Version
    key: str | None
    peers: Mapping[int, str]
    forwarding: Mapping[tuple[int, int], int]
    running: Mapping[str, str]

    @property
    def serial(self) -> int:
        return self.applied.serial


def _address(value: object) -> object:
    return parse_address(value) if isinstance(value, str) else value


def _slot(value: object) -> Slot:
    address, _, host = str(value).partition(" ")
    if not re.fullmatch(LABEL, host):
        raise Invalid("PN502", f"{quoted(str(value))} is not an address and a host")
    return Slot(parse_address(address), host)


def _place(value: object) -> tuple[int, str]:
    mesh, _, endpoint = str(value).partition(" ")
    return parse_address(mesh), check_endpoint(endpoint)


class _Own(Part):
    name: HostName
    mesh: Annotated[int, BeforeValidator(_address)]
    declared: Host


class _Network(Part):
    project: Project
    vni: Annotated[int, Integer(1, VNI_LAST, "VNI")]
    cidr: Prefix
    mtu: Annotated[int, Integer(576, 9216, "MTU")]
    containers: dict[ApplicationId, dict[ProcessType, tuple[Annotated[Slot, BeforeValidator(_slot)], ...]]]
    hosts: dict[HostName, Annotated[tuple[int, str], BeforeValidator(_place)]]
    out: tuple[HostName, ...] = ()

    def remembered(self) -> Remembered:
        slots = {
            slot_name(application, process_type, index): slot
            for application, types in self.containers.items()
            for process_type, placed in types.items()
            for index, slot in enumerate(placed, 1)
        }
        lock = NetworkLock(self.project.project, self.vni, self.cidr, slots)
        return Remembered(self.project, lock, self.mtu, self.hosts, frozenset(self.out))


class _Record(Part):
    version: int
    fleet: dict[str, Any]
    host: _Own
    networks: dict[NetworkId, _Network]


def parse_answer(data: bytes) -> Answer:
    """A host's answer to ``answer.sh``. Raises Unusable."""
    if len(data) > BYTES_AT_MOST:
        raise Unusable(f"its answer is longer than {BYTES_AT_MOST:,} bytes")
    sections = _sections(data.decode("ascii", "replace"))
    if sections["user"] != ["0"]:
        raise Unusable("commands do not run as root there: log in as root, or as a user with sudo")
    if not sections["record"]:
        raise Unusable("has no /etc/privnet/record.json: no privnet that writes one has been there")
    record, fleet = _record("\n".join(sections["record"]))
    return Answer(
        name=record.host.name,
        mesh=record.host.mesh,
        fleet=fleet,
        networks={name: network.remembered() for name, network in record.networks.items()},
        applied=_applied(sections["applied"]),
        key=_first(_KEY, sections["key"]),
        peers={parse_address(found[2]): found[1] for found in _matching(_PEER, sections["peers"])},
        forwarding={
            (int(found[2]), int(found[1].replace(":", ""), 16)): parse_address(found[3])
            for found in _matching(_FORWARDING, sections["forwarding"])
        },
        running={found["slot"]: found["address"] or "" for found in _matching(_CONTAINER, sections["containers"])},
    )


def _sections(text: str) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in text.split("\n"):
        if line.startswith(MARK):
            name = line.removeprefix(MARK)
            if name in sections:
                raise Unusable("its answer has a part twice")
            current = sections[name] = []
        elif current is not None and line:
            current.append(line)
    if tuple(sections) != SECTIONS:
        raise Unusable("its answer is not complete: " + ", ".join(name for name in SECTIONS if name not in sections))
    return sections


def _record(text: str) -> tuple[_Record, Fleet]:
    try:
        data = json.loads(text, object_pairs_hook=_once)
        if isinstance(data, dict) and data.get("version") != VERSION:
            raise Unusable("its record was written by another version of privnet")
        record = _Record.model_validate(data)
        own = {record.host.name: record.host.declared}
        return record, Fleet.model_validate({**record.fleet, "hosts": own})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Unusable(f"its record is damaged: {quoted(where)}: {_reason(first)}") from None
    except (ValueError, RecursionError) as error:
        raise Unusable(f"its record is damaged: it is not JSON ({quoted(str(error))})") from None


def _reason(error: Any) -> str:
    said = (error.get("ctx") or {}).get("error")
    return said.message if isinstance(said, Invalid) else str(error["msg"])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def _applied(lines: list[str]) -> Version:
    found = _APPLIED.fullmatch(lines[0]) if lines else None
    if found is None or int(found[1]) > SERIAL_LAST:
        return Version(0, "")
    return Version(int(found[1]), found[2] or "")


def _first(pattern: re.Pattern[str], lines: list[str]) -> str | None:
    return next((line for line in lines if pattern.fullmatch(line)), None)


def _matching(pattern: re.Pattern[str], lines: list[str]) -> list[re.Match[str]]:
    return [found for line in lines if (found := pattern.fullmatch(line))]
