"""The lock file as privnet itself writes it, read line by line.

A lock file has one line for each container, and YAML with places costs ten times what such a line is worth. This
reader knows one spelling of each line and gives up on everything else: then, and only then, ``privnet.store`` reads the
file as YAML, accepts it or says what is wrong with it, and where. So it must never accept what YAML and the models
would refuse, and need not accept all that they would (``tests/unit/store/test_lock_lines.py`` compares the two).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from socket import inet_aton

from privnet.model.identifiers import (
    APPLICATION_ID,
    LABEL,
    MTU_FIRST,
    MTU_LAST,
    NETWORK_ID,
    OCTET,
    VNI_LAST,
    Invalid,
    Prefix,
    check_address,
    check_domain,
    check_endpoint,
    check_internal,
    check_upstream,
)
from privnet.model.lock import HostLock, HostSettings, Lock, NetworkLock, Rest, SettingsLock, Slot, Version

_SERIAL_LAST = 2**53

_WORD = f"(?!null\n){LABEL.replace('(', '(?:')}"  # `null` would be no value at all
_LABEL = LABEL.replace("(", "(?:")
_ADDRESS = OCTET.replace("(", "(?:") + f"(?:[.]{OCTET.replace('(', '(?:')}){{3}}"
_SLOT = f"[1-9][0-9]{{0,5}}[.]{_LABEL}[.]{APPLICATION_ID}"

_HEAD = re.compile("# Written by privnet [ -~]*\n# Commit [ -~]*\nversion: 1\nchecksum: ([0-9a-f]{64})\n(?=fleet: )")
_BEGINNING = re.compile(f"fleet: ({_WORD})\nserial: (0|[1-9][0-9]{{0,15}})\n")
_NUMBER = "([1-9][0-9]{0,4})"
_PORT_LAST = 65535
_TTL_LAST = 3600
_SETTINGS = re.compile(
    f"settings:\n  domain: ([a-z0-9.-]{{1,200}})\n  wireguard_mesh: ([0-9.]+/[0-9]+)\n  wireguard_port: {_NUMBER}\n"
    f"  vxlan_port: {_NUMBER}\n  dns_ttl: {_NUMBER}\n((?:  dns_upstream:\n(?:    - [0-9a-f:][0-9a-f.:#]{{0,60}}\n)+)?)"
    "((?:  dns_internal:\n(?:    - (?!null\n)[a-z0-9.-]{1,253}\n)+)?)"
)
_DECLARED = re.compile(
    f"    ({_LABEL}): ([0-9a-f][0-9a-f.:]{{1,44}})(?: endpoint ([0-9a-f.:\\[\\]]{{3,60}}))? mtu {_NUMBER}"
    "(?: state (out))?\n"
)
_HOST = re.compile(
    f"  ({_LABEL}):\n    mesh: ({_ADDRESS})\n"
    "(?:    wireguard: ([A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)\n)?"
    "(?:    ssh: ([a-z][a-z0-9@.-]{0,59} [A-Za-z0-9+/]{20,4000}={0,2})\n)?"
    "(?:    forgotten: (true)\n)?"
)
_NETWORK = re.compile(
    f"  ({NETWORK_ID}):\n    project: ({_WORD})\n    vni: ([1-9][0-9]{{0,7}})\n"
    "    cidr: ([0-9.]+/[0-9]+)\n(    slots:\n)?"
)
_CONTAINER = re.compile(f"      ({_SLOT}): ({_ADDRESS}) ({_LABEL})\n")
_APPLICATION = re.compile(f"  ({APPLICATION_ID}): ({_WORD})\n")
_RESTING = re.compile(
    f"  - (?:(address) ({NETWORK_ID}) ({_ADDRESS})|(mesh) ({_ADDRESS})|(vni) (0|[1-9][0-9]{{0,7}}))"
    " until (0|[1-9][0-9]{0,11})\n"
)
_BEFORE = re.compile("  - (0|[1-9][0-9]{0,15}) ([0-9a-f]{64})\n")


class _Otherwise(Exception):
    """A line is not as privnet writes it."""


def read_lines(text: str) -> Lock | None:
    """The lock that ``text`` holds, or None when any part of it is not exactly as privnet writes it."""
    head = _HEAD.match(text)
    if head is None or hashlib.sha256(text[head.end() :].encode("utf-8", "replace")).hexdigest() != head[1]:
        return None
    try:
        return replace(_Lines(text, head.end()).lock(), checksum=head[1])
    except (_Otherwise, Invalid):
        return None


class _Lines:
    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at

    def lock(self) -> Lock:
        fleet, serial = self._expect(_BEGINNING)
        settings = self._settings() if self.text.startswith("settings:\n", self.at) else None
        hosts = self._hosts() if self._passed("hosts:\n") else {}
        networks = self._networks() if self._passed("networks:\n") else {}
        applications = self._applications() if self._passed("applications:\n") else {}
        quarantine = self._quarantine() if self._passed("quarantine:\n") else ()
        history = self._history() if self._passed("history:\n") else ()
        if self.at != len(self.text) or int(serial) > _SERIAL_LAST:
            raise _Otherwise
        _different([host.mesh for host in hosts.values()])
        _different([host.wireguard for host in hosts.values() if host.wireguard])
        _different([network.vni for network in networks.values()])
        return Lock(fleet, int(serial), settings, hosts, networks, applications, quarantine, history)

    def _settings(self) -> SettingsLock:
        domain, mesh, port, vxlan_port, ttl, upstream, internal = self._expect(_SETTINGS)
        every = self._all(_DECLARED) if self._passed("  hosts:\n") else []
        _different([name for name, *_ in every])
        resolvers = tuple(check_upstream(line.removeprefix("    - ")) for line in upstream.splitlines()[1:])
        domains = tuple(check_internal(line.removeprefix("    - ")) for line in internal.splitlines()[1:])
        if max(int(port), int(vxlan_port)) > _PORT_LAST or int(ttl) > _TTL_LAST:
            raise _Otherwise
        hosts = {
            name: HostSettings(
                check_address(address), check_endpoint(endpoint) if endpoint else None, _mtu(mtu), state or "in"
            )
            for name, address, endpoint, mtu, state in every
        }
        numbers = int(port), int(vxlan_port), int(ttl)
        return SettingsLock(check_domain(domain), _prefix(mesh), *numbers, resolvers, domains, hosts)

    def _hosts(self) -> dict[str, HostLock]:
        every = self._all(_HOST)
        _different([name for name, *_ in every])
        return {
            name: HostLock(_number(mesh), key or None, ssh or None, bool(forgotten))
            for name, mesh, key, ssh, forgotten in every
        }

    def _networks(self) -> dict[str, NetworkLock]:
        found: dict[str, NetworkLock] = {}
        while self.text.startswith("  pn-", self.at):
            name, project, vni, cidr, slots = self._expect(_NETWORK)
            if name in found or not _identity(name) or int(vni) > VNI_LAST:
                raise _Otherwise
            found[name] = NetworkLock(project, int(vni), _prefix(cidr), self._slots() if slots else {})
        if not found:
            raise _Otherwise
        return found

    def _slots(self) -> dict[str, Slot]:
        every = self._all(_CONTAINER)
        _different([name for name, _, _ in every])
        _different([address for _, address, _ in every])
        return {name: Slot(_number(address), host) for name, address, host in every}

    def _applications(self) -> dict[str, str]:
        every = self._all(_APPLICATION)
        _different([name for name, _ in every])
        if not all(_identity(name) for name, _ in every):
            raise _Otherwise
        return {name: project for name, project in every}

    def _quarantine(self) -> tuple[Rest, ...]:
        return tuple(
            Rest(address or mesh or vni, network, int(number) if vni else _number(first or second), int(until))
            for address, network, first, mesh, second, vni, number, until in self._all(_RESTING)
        )

    def _history(self) -> tuple[Version, ...]:
        return tuple(Version(int(serial), checksum) for serial, checksum in self._all(_BEFORE))

    def _passed(self, line: str) -> bool:
        found = self.text.startswith(line, self.at)
        self.at += len(line) * found
        return found

    def _expect(self, line: re.Pattern[str]) -> tuple[str, ...]:
        found = line.match(self.text, self.at)
        if found is None:
            raise _Otherwise
        self.at = found.end()
        return found.groups("")

    def _all(self, line: re.Pattern[str]) -> list[tuple[str, ...]]:
        """The parts of one line, or group of lines, and of all those behind it that have the same form."""
        every = []
        while found := line.match(self.text, self.at):
            every.append(found.groups(""))
            self.at = found.end()
        if not every:
            raise _Otherwise
        return every


def _different(values: Sequence[object]) -> None:
    if len(set(values)) != len(values):
        raise _Otherwise


def _mtu(text: str) -> int:
    if not MTU_FIRST <= int(text) <= MTU_LAST:
        raise _Otherwise
    return int(text)


def _identity(name: str) -> bool:
    return len(set(name[3:])) > 2  # a hyphen, and more than one digit


def _number(address: str) -> int:
    return int.from_bytes(inet_aton(address))


@cache
def _prefix(text: str) -> Prefix:
    return Prefix.parse(text)
