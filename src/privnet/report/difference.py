"""What a declaration changes: two locks compared, the one on disk and the one that a deploy would write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from privnet.compiler import Compiled
from privnet.diagnostics import plural
from privnet.model.fleet import Host
from privnet.model.identifiers import format_address
from privnet.model.lock import HostLock, HostSettings, Lock, NetworkLock, Rest, SettingsLock, Slot
from privnet.plan.mesh import path_mtu
from privnet.plan.overlay import VXLAN_OVERHEAD

LISTED_AT_MOST = 12
"""Changes of one kind that are listed one by one; more are counted."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs.

    :param sign: ``+`` new, ``-`` gone, ``~`` changed
    :param kind: ``setting``, ``rename`` (of a host), ``host``, ``key``, ``network``, ``mtu``, ``application``,
        ``container`` or ``quarantine``
    :param name: of a setting its path in ``fleet.yaml``
    :param where: the private network of a container or address, else empty
    :param was: old number, place or value, empty for what is new
    :param becomes: new number, place or value, empty for what is gone
    """

    sign: str
    kind: str
    name: str
    where: str
    was: str
    becomes: str


def changes_of(compiled: Compiled) -> tuple[Change, ...]:
    """What the lock files say differently, the MTU of networks that follows from it, and keys that were forgotten."""
    renames = (Change("~", "rename", new, "", old, new) for old, new in sorted(compiled.renames.items()))
    return (*renames, *differences(compiled.before, compiled.lock), *_mtus(compiled), *_forgotten(compiled.lock))


def differences(old: Lock, new: Lock) -> tuple[Change, ...]:
    """Everything that ``new`` says otherwise than ``old``, from settings to quarantines."""
    return (
        *_settings(old.settings, new.settings),
        *_hosts(old, new),
        *_networks(old, new),
        *_applications(old, new),
        *_containers(old, new),
        *_quarantine(old, new),
    )


FLEET_SETTINGS = {
    "domain": "domain",
    "wireguard.mesh": "wireguard_mesh",
    "wireguard.port": "wireguard_port",
    "vxlan.port": "vxlan_port",
    "dns.ttl": "dns_ttl",
    "dns.upstream": "dns_upstream",
    "dns.internal": "dns_internal",
}
"""Path in ``fleet.yaml`` → field of the lock file."""
HOST_SETTINGS = ("address", "endpoint", "mtu", "state")
NOTHING = "none"


def _settings(old: SettingsLock | None, new: SettingsLock | None) -> Iterator[Change]:
    """Settings of the fleet and of hosts that stay; where the lock file has none, nothing is known to differ."""
    if old is None or new is None:
        return
    for path, name in FLEET_SETTINGS.items():
        yield from _change("setting", path, "", _value(getattr(old, name)), _value(getattr(new, name)))
    for host in sorted(old.hosts.keys() & new.hosts.keys()):
        for name in HOST_SETTINGS:
            was, becomes = (_value(getattr(found.hosts[host], name)) for found in (old, new))
            yield from _change("setting", f"hosts.{host}.{name}", "", was, becomes)


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(value) or NOTHING
    return NOTHING if value is None else str(value)


def _hosts(old: Lock, new: Lock) -> Iterator[Change]:
    for name in sorted({*old.hosts, *new.hosts}):
        was, becomes = (_host(lock.hosts.get(name)) for lock in (old, new))
        yield from _change("host", name, "", was, becomes)


def _host(known: HostLock | None) -> str:
    return f"mesh {format_address(known.mesh)}" if known else ""


def _networks(old: Lock, new: Lock) -> Iterator[Change]:
    for name in sorted({*old.networks, *new.networks}):
        was, becomes = (_network(lock.networks.get(name)) for lock in (old, new))
        yield from _change("network", name, "", was, becomes)


def _network(known: NetworkLock | None) -> str:
    return f"project {known.project}, VNI {known.vni}, {known.cidr}" if known else ""


def _applications(old: Lock, new: Lock) -> Iterator[Change]:
    for name in sorted({*old.applications, *new.applications}):
        was, becomes = (f"project {found}" if (found := lock.applications.get(name)) else "" for lock in (old, new))
        yield from _change("application", name, "", was, becomes)


def _containers(old: Lock, new: Lock) -> Iterator[Change]:
    for network in sorted({*old.networks, *new.networks}):
        before, after = (lock.networks[network].slots if network in lock.networks else {} for lock in (old, new))
        different = [slot for slot in {*before, *after} if before.get(slot) != after.get(slot)]
        for slot in sorted(different, key=_slot_order):
            yield from _change("container", slot, network, _slot(before.get(slot)), _slot(after.get(slot)))


def _slot(slot: Slot | None) -> str:
    return f"{format_address(slot.address)} on {slot.host}" if slot else ""


def _slot_order(slot: str) -> tuple[str, str, int]:
    index, process_type, application = slot.split(".")
    return application, process_type, int(index)


def _quarantine(old: Lock, new: Lock) -> Iterator[Change]:
    for rest in sorted(set(new.quarantine) - set(old.quarantine)):
        yield Change("+", "quarantine", rest_name(rest), rest.network, "", f"until {rest.until}")


def _mtus(compiled: Compiled) -> Iterator[Change]:
    """The lock file has no MTU of a network, but the hosts that decided it; an old one, as far as they are there."""
    fleet, settings = compiled.declaration.fleet, compiled.before.settings
    known: Mapping[str, Host | HostSettings] = settings.hosts if settings else fleet.hosts
    port = settings.wireguard_port if settings else fleet.wireguard.port
    for name, network in sorted(compiled.plan.networks.items()):
        before = {slot.host for slot in _slots(compiled.before, name).values()}
        if before and before <= known.keys() and network.hosts:
            was = path_mtu([known[host] for host in sorted(before)], port) - VXLAN_OVERHEAD
            yield from _change("mtu", name, name, f"MTU {was}", f"MTU {network.mtu}")


def _forgotten(lock: Lock) -> Iterator[Change]:
    for name, host in sorted(lock.hosts.items()):
        if host.forgotten:
            yield Change("~", "key", name, "", f"WireGuard key {host.wireguard}", "the one that it shows")


def _slots(lock: Lock, network: str) -> Mapping[str, Slot]:
    return lock.networks[network].slots if network in lock.networks else {}


def rest_name(rest: Rest) -> str:
    """A number in quarantine, for people."""
    return f"VNI {rest.number}" if rest.kind == "vni" else f"{rest.kind} {format_address(rest.number)}"


def _change(kind: str, name: str, where: str, was: str, becomes: str) -> Iterator[Change]:
    if was != becomes:
        yield Change("~" if was and becomes else "+" if becomes else "-", kind, name, where, was, becomes)


# --- host by host -----------------------------------------------------------------------------------


@dataclass(slots=True)
class HostChange:
    """What one host gets and loses.

    :param comes: containers that it has not had
    :param goes: containers that it has had
    :param joins: networks of which it gets its first container
    :param leaves: networks of which it loses its last one
    :param told: networks that it stays in, whose names or forwarding change
    :param meets: hosts that become its peers, since they get a network in common
    :param parts: hosts that are its peers no more
    :param settings: of the fleet and of its own, by their path, and of its peers: those that it is told of
    """

    comes: list[str] = field(default_factory=list)
    goes: list[str] = field(default_factory=list)
    joins: list[str] = field(default_factory=list)
    leaves: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    meets: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)


def host_changes(old: Lock, new: Lock) -> dict[str, HostChange]:
    """Every host that a run would change for what the lock files say differently: all that then are in service."""
    old, new = (lock.without(lock.out) for lock in (old.settled_by(new), new))
    found: dict[str, HostChange] = defaultdict(HostChange)
    for network in sorted({*old.networks, *new.networks}):
        _of_network(old, new, network, found)
    # A mesh address is in the forwarding tables of all others, so they are few who are not told of it.
    if any(old.hosts[name].mesh != new.hosts[name].mesh for name in old.hosts.keys() & new.hosts.keys()):
        for name in new.hosts:
            found[name].told = sorted({*found[name].told, *_networks_of(new).get(name, ())})
    before, after = _networks_of(old), _networks_of(new)
    for change in _settings(old.settings, new.settings):
        for name in _concerned(new, after, change.name):
            found[name].settings.append(change.name)
    for name in [name for name in found if name in new.hosts]:
        was, becomes = (_peers(lock, networks.get(name, ()), name) for lock, networks in ((old, before), (new, after)))
        found[name].meets, found[name].parts = sorted(becomes - was), sorted(was - becomes)
    return {name: found[name] for name in sorted(found) if name in new.hosts}


def _concerned(lock: Lock, networks: Mapping[str, set[str]], setting: str) -> Iterator[str]:
    """Hosts that a changed setting is put on, or whose peers go to another place by it."""
    if setting in FLEET_SETTINGS:
        yield from lock.hosts
        return
    _, host, name = setting.split(".")
    if name == "state":
        return  # with it come or go containers and peers
    yield host
    if name != "mtu":
        yield from _peers(lock, networks.get(host, ()), host)


def _of_network(old: Lock, new: Lock, network: str, found: dict[str, HostChange]) -> None:
    before, after = _slots(old, network), _slots(new, network)
    different = {slot for slot in {*before, *after} if before.get(slot) != after.get(slot)}
    known = [lock.networks[network] for lock in (old, new) if network in lock.networks]
    if not different and len({(network.vni, network.cidr) for network in known}) < 2:
        return
    for slot in sorted(different, key=_slot_order):
        was, becomes = before.get(slot), after.get(slot)
        if was and becomes and was.host == becomes.host:
            continue
        if was:
            found[was.host].goes.append(slot)
        if becomes:
            found[becomes.host].comes.append(slot)
    had, has = ({slot.host for slot in slots.values()} for slots in (before, after))
    for host in has - had:
        found[host].joins.append(network)
    for host in had - has:
        found[host].leaves.append(network)
    for host in had & has:
        found[host].told.append(network)


def _networks_of(lock: Lock) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for name, network in lock.networks.items():
        for slot in network.slots.values():
            found[slot.host].add(name)
    return found


def _peers(lock: Lock, networks: set[str] | tuple[()], host: str) -> set[str]:
    return {slot.host for network in networks for slot in lock.networks[network].slots.values()} - {host}


# --- for people -------------------------------------------------------------------------------------

_SAID = {"+": "new", "-": "gone", "~": "changed"}
_KINDS = ("setting", "rename", "host", "key", "network", "mtu", "application", "container", "quarantine")


def changes_in_order(changes: tuple[Change, ...]) -> list[Change]:
    """By kind, then new before changed before gone; otherwise as they come."""
    return sorted(changes, key=lambda change: (_KINDS.index(change.kind), "+~-".index(change.sign)))


def difference_lines(changes: tuple[Change, ...]) -> Iterator[str]:
    """The changes: all of a kind when they are few, their number when they are many."""
    for (kind, sign), group in groupby(changes_in_order(changes), key=lambda change: (change.kind, change.sign)):
        some = list(group)
        if len(some) > LISTED_AT_MOST:
            yield f"  {count_line(sign, kind, len(some))}"
        else:
            yield from (f"  {change_line(change)}" for change in some)


def change_line(change: Change) -> str:
    """``~ container 2.web.ap-…: lab-2 → lab-3, keeps 10.240.0.5``."""
    name = "" if change.kind == "mtu" else f" {change.name}"
    return f"{change.sign} {change.kind}{name}: {_what(change)}"


def count_line(sign: str, kind: str, count: int) -> str:
    """``~ 34 containers changed``."""
    return f"{sign} {plural(count, kind)} {_SAID[sign]}"


def _what(change: Change) -> str:
    if not (change.was and change.becomes):
        return change.becomes or f"was {change.was}"
    if change.kind == "container":
        return _moved(change)
    if change.kind == "rename":
        return f"was host {change.was}; it keeps its mesh address, its keys and its containers"
    return f"{change.was} → {change.becomes}"


def _moved(change: Change) -> str:
    (address, _, host), (new_address, _, new_host) = change.was.partition(" on "), change.becomes.partition(" on ")
    if address == new_address:
        return f"{host} → {new_host}, keeps {address}"
    return f"{change.was} → {change.becomes}"
