"""The lock file: read, and saved if nobody else saved in between.

``load_lock`` and ``save_lock`` are the whole interface, so that a shared store can take the file's place. A damaged
file is refused with the place and the remedy; nothing ever starts afresh from it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from privnet.diagnostics import DeclarationError, Place, Problem, quoted
from privnet.load import LOCK_FILE, Document, parse_document, read_bytes, shown_path, validate
from privnet.lock_lines import read_lines
from privnet.model.base import Part
from privnet.model.identifiers import (
    APPLICATION_ID,
    LABEL,
    MTU_FIRST,
    MTU_LAST,
    VNI_LAST,
    ApplicationId,
    Boolean,
    Domain,
    FleetName,
    HostName,
    Integer,
    Internal,
    Invalid,
    NetworkId,
    Prefix,
    ProjectName,
    Upstream,
    check_address,
    check_endpoint,
    format_address,
    parse_address,
)
from privnet.model.lock import HostLock, HostSettings, Lock, NetworkLock, Rest, SettingsLock, Slot, Version

VERSION = 1
BYTES_AT_MOST = 256 * 2**20
NODES_AT_MOST = 10_000_000
VERSIONS_KEPT = 100
"""Versions that a lock file remembers. A host that was changed by one from before that is not contradicted."""

_HEADER = """\
# Written by privnet before it changes a host: numbers once given stay given.
# Commit it and review its diffs; do not edit it.
"""
_SLOT = re.compile(rf"[1-9][0-9]{{0,5}}[.]{LABEL}[.]{APPLICATION_ID}")
_KEY = re.compile("[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")  # 32 bytes in their one spelling
_SSH_KEY = re.compile("[a-z0-9@.-]{1,60} [A-Za-z0-9+/]{20,4000}={0,2}")
_DECLARED = re.compile("([^ ]+)(?: endpoint ([^ ]+))? mtu ([^ ]+)(?: state (out))?")
_REST = re.compile("(address pn-[0-9a-f-]{36}|mesh|vni) ([0-9.]+) until ([0-9]{1,12})")
_BEFORE = re.compile("(0|[1-9][0-9]{0,15}) ([0-9a-f]{64})")


def _matching(pattern: re.Pattern[str], what: str) -> BeforeValidator:
    def check(text: object) -> object:
        if isinstance(text, str) and not pattern.fullmatch(text):
            raise Invalid("PN502", f"{quoted(text)} is not {what}")
        return text

    return BeforeValidator(check)


def _number(text: object) -> object:
    return parse_address(text) if isinstance(text, str) else text


def _version(text: object) -> object:
    if text != str(VERSION):
        help = f"upgrade privnet: this one reads version {VERSION}"
        raise Invalid("PN502", f"the lock file has version {quoted(str(text))}, of another privnet", help=help)
    return VERSION


def _slot(text: object) -> object:
    address, _, host = str(text).partition(" ")
    if not re.fullmatch(LABEL, host):
        raise Invalid("PN502", f"{quoted(str(text))} is not an address and a host")
    return Slot(parse_address(address), host)


def _rest(text: object) -> object:
    found = _REST.fullmatch(str(text))
    if found is None:
        raise Invalid("PN502", f"{quoted(str(text))} is not a number in quarantine")
    kind, _, network = found[1].partition(" ")
    number = int(found[2]) if kind == "vni" else parse_address(found[2])
    return Rest(kind, network, number, int(found[3]))


def _before(text: object) -> object:
    found = _BEFORE.fullmatch(str(text))
    if found is None:
        raise Invalid("PN502", f"{quoted(str(text))} is not a serial and a checksum")
    return Version(int(found[1]), found[2])


def _declared(text: object) -> object:
    found = _DECLARED.fullmatch(str(text))
    if found is None:
        raise Invalid("PN502", f"{quoted(str(text))} is not how a host was declared")
    mtu = Integer(MTU_FIRST, MTU_LAST, "host MTU").parse(found[3])
    endpoint = check_endpoint(found[2]) if found[2] else None
    return HostSettings(check_address(found[1]), endpoint, mtu, found[4] or "in")


SlotName = Annotated[str, _matching(_SLOT, "a container slot")]


class SettingsEntry(Part):
    """The settings that a fleet was deployed with."""

    domain: Domain
    wireguard_mesh: Prefix
    wireguard_port: Annotated[int, Integer(1, 65535, "WireGuard port")]
    vxlan_port: Annotated[int, Integer(1, 65535, "VXLAN port")]
    dns_ttl: Annotated[int, Integer(1, 3600, "DNS TTL")]
    dns_upstream: tuple[Upstream, ...] = Field(default=())
    dns_internal: tuple[Internal, ...] = Field(default=())
    hosts: dict[HostName, Annotated[HostSettings, BeforeValidator(_declared)]] = Field(default={})


class HostEntry(Part):
    """A host in the lock file."""

    mesh: Annotated[int, BeforeValidator(_number)]
    wireguard: Annotated[str, _matching(_KEY, "a WireGuard public key")] | None = None
    ssh: Annotated[str, _matching(_SSH_KEY, "an SSH host key")] | None = None
    forgotten: Annotated[bool, Boolean("`forgotten`")] = False


class NetworkEntry(Part):
    """A private network in the lock file."""

    project: ProjectName
    vni: Annotated[int, Integer(1, VNI_LAST, "VNI")]
    cidr: Prefix
    slots: dict[SlotName, Annotated[Slot, BeforeValidator(_slot)]] = Field(default={})


class LockFile(Part):
    """The lock file as it stands on disk."""

    version: Annotated[int, BeforeValidator(_version)]
    fleet: FleetName
    serial: Annotated[int, Integer(0, 2**53, "serial")]
    checksum: str
    settings: SettingsEntry | None = None
    hosts: dict[HostName, HostEntry] = Field(default={})
    networks: dict[NetworkId, NetworkEntry] = Field(default={})
    applications: dict[ApplicationId, ProjectName] = Field(default={})
    quarantine: tuple[Annotated[Rest, BeforeValidator(_rest)], ...] = Field(default=())
    history: tuple[Annotated[Version, BeforeValidator(_before)], ...] = Field(default=())


def lock_path(directory: Path) -> Path:
    """Where a fleet's lock file is."""
    return directory / LOCK_FILE


def load_lock(directory: Path, fleet: str) -> Lock:
    """The fleet's lock file, or an empty one when there is none yet.

    Raises DeclarationError when it is damaged, of another fleet, or written by a newer privnet.
    """
    path = lock_path(directory)
    if not os.path.lexists(path):
        return Lock(fleet=fleet)
    document, data = read_bytes(path, BYTES_AT_MOST)
    if data is not None:
        lock = read_lines(data.decode("ascii", "replace"))
        if lock is not None and lock.fleet == fleet:
            return lock
        parse_document(data, document, NODES_AT_MOST)
    problems = list(document.problems)
    entries = [] if problems else [*_damaged(document)]
    if problems or entries:
        refused = [_with_remedy(problem, document.path) for problem in (*problems, *entries)]
        raise DeclarationError(refused, {document.path: document.text})
    files = validate(LockFile, [document], problems)
    if not problems and files[0].fleet != fleet:
        problems.append(_of_another_fleet(document.path, files[0].fleet, fleet))
    if not problems:
        problems.extend(_given_twice(document.path, files[0]))
    if problems:
        refused = [_with_remedy(problem, document.path) for problem in problems]
        raise DeclarationError(refused, {document.path: document.text})
    return _lock(files[0])


def _lock(file: LockFile) -> Lock:
    return Lock(
        fleet=file.fleet,
        serial=file.serial,
        settings=_settings(file.settings) if file.settings else None,
        hosts={
            name: HostLock(entry.mesh, entry.wireguard, entry.ssh, entry.forgotten)
            for name, entry in file.hosts.items()
        },
        networks={
            name: NetworkLock(entry.project, entry.vni, entry.cidr, entry.slots)
            for name, entry in file.networks.items()
        },
        applications=file.applications,
        quarantine=file.quarantine,
        history=file.history,
        checksum=file.checksum,
    )


def _settings(entry: SettingsEntry) -> SettingsLock:
    return SettingsLock(
        entry.domain,
        entry.wireguard_mesh,
        entry.wireguard_port,
        entry.vxlan_port,
        entry.dns_ttl,
        entry.dns_upstream,
        entry.dns_internal,
        entry.hosts,
    )


def save_lock(directory: Path, lock: Lock) -> Lock:
    """Write ``lock`` if the file is still the one that it was loaded from, and give back what was written.

    Atomic: a temporary file, fsync, rename, fsync of the directory; a power cut leaves the old file or the new one.
    Raises DeclarationError (PN507) when another run has written the file in the meantime.
    """
    path = lock_path(directory)
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        present = load_lock(directory, lock.fleet)
        if not present.is_still(lock):
            raise DeclarationError([_moved_on(path, lock, present)], {})
        saved = replace(lock, serial=lock.serial + 1, history=lock_versions(present)[-VERSIONS_KEPT:])
        saved = replace(saved, checksum=lock_checksum(saved))
        replace_file(path, lock_text(saved).encode("ascii"))
        os.fsync(handle)
    finally:
        # Not by the close alone: gevent, in pyinfra's process, puts that off (gevent/os.py, since 25.8.1), and a second
        # save would wait for it for ever.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)
    return saved


def replace_file(path: Path, data: bytes) -> None:
    """All of the new content or all of the old, with the file's own mode. Nothing is written through a link.

    Raises OSError, and leaves nothing behind.
    """
    # One name for all, so that what a power cut leaves of it goes with the next write.
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with open(handle, "wb") as file:  # noqa: PTH123 - a descriptor
            if (mode := _mode_of(path)) is not None:
                os.fchmod(handle, mode)
            file.write(data)
            file.flush()
            os.fsync(handle)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _mode_of(path: Path) -> int | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return stat.S_IMODE(found.st_mode) if stat.S_ISREG(found.st_mode) else None


def lock_text(lock: Lock) -> str:
    """The lock file's content: the same for equal locks."""
    body = "".join(f"{line}\n" for line in _body(lock))
    return f"{_HEADER}version: {VERSION}\nchecksum: {_digest(body)}\n{body}"


def lock_checksum(lock: Lock) -> str:
    """The checksum that the lock file has; by it and the serial a host tells one version from another."""
    return _digest("".join(f"{line}\n" for line in _body(lock)))


def lock_versions(lock: Lock) -> tuple[Version, ...]:
    """This version of the lock file and those that it remembers, the newest last; none when there is no file yet."""
    return (*lock.history, Version(lock.serial, lock_checksum(lock))) if lock.serial else ()


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _body(lock: Lock) -> Iterator[str]:
    yield f"fleet: {_word(lock.fleet)}"
    yield f"serial: {lock.serial}"
    if lock.settings:
        yield from _settings_body(lock.settings)
    if lock.hosts:
        yield "hosts:"
    for name, host in sorted(lock.hosts.items()):
        yield f"  {name}:"
        yield f"    mesh: {format_address(host.mesh)}"
        if host.wireguard:
            yield f"    wireguard: {host.wireguard}"
        if host.ssh:
            yield f"    ssh: {host.ssh}"
        if host.forgotten:
            yield "    forgotten: true"
    if lock.networks:
        yield "networks:"
    for network_id, network in sorted(lock.networks.items()):
        yield f"  {network_id}:"
        yield f"    project: {_word(network.project)}"
        yield f"    vni: {network.vni}"
        yield f"    cidr: {network.cidr}"
        if network.slots:
            yield "    slots:"
        for slot, place in network.slots.items():
            yield f"      {slot}: {format_address(place.address)} {place.host}"
    if lock.applications:
        yield "applications:"
    for application, project in lock.applications.items():
        yield f"  {application}: {_word(project)}"
    if lock.quarantine:
        yield "quarantine:"
    for rest in lock.quarantine:
        number = rest.number if rest.kind == "vni" else format_address(rest.number)
        yield f"  - {rest.kind}{' ' + rest.network if rest.network else ''} {number} until {rest.until}"
    if lock.history:
        yield "history:"
    for version in lock.history:
        yield f"  - {version.serial} {version.checksum}"


def _settings_body(settings: SettingsLock) -> Iterator[str]:
    yield "settings:"
    yield f"  domain: {settings.domain}"
    yield f"  wireguard_mesh: {settings.wireguard_mesh}"
    yield f"  wireguard_port: {settings.wireguard_port}"
    yield f"  vxlan_port: {settings.vxlan_port}"
    yield f"  dns_ttl: {settings.dns_ttl}"
    if settings.dns_upstream:
        yield "  dns_upstream:"
        yield from (f"    - {resolver}" for resolver in settings.dns_upstream)
    if settings.dns_internal:
        yield "  dns_internal:"
        yield from (f"    - {_word(domain)}" for domain in settings.dns_internal)
    if settings.hosts:
        yield "  hosts:"
    for name, host in sorted(settings.hosts.items()):
        endpoint = f" endpoint {host.endpoint}" if host.endpoint else ""
        state = f" state {host.state}" if host.state != "in" else ""
        yield f"    {name}: {host.address}{endpoint} mtu {host.mtu}{state}"


def _word(name: str) -> str:
    """A name as a value: the one that YAML takes for no value at all stands in quotes."""
    return f'"{name}"' if name == "null" else name


def _damaged(document: Document) -> Iterator[Problem]:
    head, mark, rest = document.text.partition("checksum: ")
    stated, _, body = rest.partition("\n")
    if not mark:
        place = Place(document.path, 1, 1, 1, 2)
        yield Problem("PN501", f"{document.path} has no checksum", place, help=_REMEDY)
    elif hashlib.sha256(body.encode()).hexdigest() != stated:
        line = head.count("\n") + 1
        place = Place(document.path, line, 11, line, 11 + len(stated))
        yield Problem(
            "PN501",
            f"{document.path} does not match its checksum: it was damaged, merged or edited",
            place,
            note="the numbers in it are what running hosts use; a wrong one would cut containers off",
            help=_REMEDY,
        )


def _given_twice(path: str, file: LockFile) -> Iterator[Problem]:
    """Numbers that two things have, although the checksum is right: the file was not written by privnet."""
    given: list[tuple[str, str, int | str]] = [("mesh address", name, entry.mesh) for name, entry in file.hosts.items()]
    keys = [("WireGuard key", name, entry.wireguard) for name, entry in file.hosts.items() if entry.wireguard]
    given += [("VNI", name, entry.vni) for name, entry in file.networks.items()]
    yield from _twice(path, [*given, *keys])
    for network, entry in file.networks.items():
        slots: list[tuple[str, str, int | str]] = [
            (f"address of {network}", name, slot.address) for name, slot in entry.slots.items()
        ]
        yield from _twice(path, slots)


def _twice(path: str, given: list[tuple[str, str, int | str]]) -> Iterator[Problem]:
    first: dict[tuple[str, int | str], str] = {}
    for what, name, number in given:
        other = first.setdefault((what, number), name)
        if other != name:
            shown = format_address(number) if "address" in what and isinstance(number, int) else number
            given_to = f"{what} {shown}" if isinstance(number, int) else f"one {what}"
            yield Problem("PN502", f"{path} gives {given_to} to two, {other} and {name}")


_REMEDY = (
    "take the last good version: `git log -- privnet.lock.yaml`, then `git checkout <commit> -- privnet.lock.yaml`"
)


_AFTER_A_MERGE = (
    "take the version of the branch that was deployed last: `git checkout --ours -- privnet.lock.yaml`, or `--theirs`; "
    "the next run adds what the other branch declares"
)
_OWN_REMEDY = ("PN101", "PN102", "PN502", "PN503")


def _with_remedy(problem: Problem, path: str) -> Problem:
    """What helps in a file that people write (to delete a line, or the file) would be harm in this one."""
    if problem.code == "PN109":
        return replace(problem, help=_AFTER_A_MERGE.replace(LOCK_FILE, path))
    own = problem.help and problem.code in _OWN_REMEDY
    return problem if own else replace(problem, help=_REMEDY.replace(LOCK_FILE, path))


def _of_another_fleet(path: str, found: str, wanted: str) -> Problem:
    return Problem(
        "PN503",
        f"{path} belongs to fleet {quoted(found)}, not to {quoted(wanted)}",
        note="numbers of one fleet must not be given to another's hosts",
        help=f"write `fleet: {found}` in fleet.yaml again, or take the lock file of {wanted}",
    )


def moved_on(mine: Lock, present: Lock) -> str:
    """How the lock file that is there differs from the one that a run has read."""
    if mine.serial == present.serial:
        return f"another one has serial {present.serial} now too, as two branches have that were each deployed once"
    return f"it has serial {present.serial}, this run began with {mine.serial}"


def _moved_on(path: Path, mine: Lock, present: Lock) -> Problem:
    return Problem(
        "PN507",
        f"{shown_path(path)} was written by another run: {moved_on(mine, present)}",
        note="no host was changed by this run",
        help="run the same command again: it will begin from the new file",
    )
