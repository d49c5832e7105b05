"""What a declaration changes: two locks compared, the one on disk and the one that a deploy would write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from privnet.diagnostics import plural
from privnet.model.identifiers import format_address
from privnet.model.lock import HostLock, Lock, NetworkLock, Rest, Slot

LISTED_AT_MOST = 12
"""Changes of one kind that are listed one by one; more are counted."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs.

    :param sign: ``+`` new, ``-`` gone, ``~`` changed
    :param kind: ``host``, ``network``, ``application``, ``container`` or ``quarantine``
    :param where: the private network of a container or address, else empty
    :param was: old number or place, empty for what is new
    :param becomes: new number or place, empty for what is gone
    """

    sign: str
    kind: str
    name: str
    where: str
    was: str
    becomes: str


def differences(old: Lock, new: Lock) -> tuple[Change, ...]:
    """Everything that ``new`` says otherwise than ``old``: hosts, networks, applications, containers, quarantine."""
    return (
        *_hosts(old, new),
        *_networks(old, new),
        *_applications(old, new),
        *_containers(old, new),
        *_quarantine(old, new),
    )


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
        for slot in sorted({*before, *after}, key=_slot_order):
            yield from _change("container", slot, network, _slot(before.get(slot)), _slot(after.get(slot)))


def _slot(slot: Slot | None) -> str:
    return f"{format_address(slot.address)} on {slot.host}" if slot else ""


def _slot_order(slot: str) -> tuple[str, str, int]:
    index, process_type, application = slot.split(".")
    return application, process_type, int(index)


def _quarantine(old: Lock, new: Lock) -> Iterator[Change]:
    for rest in sorted(set(new.quarantine) - set(old.quarantine)):
        yield Change("+", "quarantine", rest_name(rest), rest.network, "", f"until {rest.until}")


def rest_name(rest: Rest) -> str:
    """A number in quarantine, for people."""
    return f"VNI {rest.number}" if rest.kind == "vni" else f"{rest.kind} {format_address(rest.number)}"


def _change(kind: str, name: str, where: str, was: str, becomes: str) -> Iterator[Change]:
    if was != becomes:
        yield Change("~" if was and becomes else "+" if becomes else "-", kind, name, where, was, becomes)


def difference_lines(changes: tuple[Change, ...]) -> Iterator[str]:
    """The changes for people: all of a kind when they are few, their number when they are many."""
    for (kind, sign), group in groupby(changes_in_order(changes), key=lambda change: (change.kind, change.sign)):
        some = list(group)
        if len(some) > LISTED_AT_MOST:
            yield f"  {sign} {plural(len(some), kind)} {_SAID[sign]}"
            continue
        for change in some:
            yield f"  {sign} {kind} {change.name}{_in(change)}: {_what(change)}"


_SAID = {"+": "new", "-": "gone", "~": "changed"}
_KINDS = ("host", "network", "application", "container", "quarantine")


def changes_in_order(changes: tuple[Change, ...]) -> list[Change]:
    """By kind, then new before changed before gone; otherwise as they come."""
    return sorted(changes, key=lambda change: (_KINDS.index(change.kind), "+~-".index(change.sign)))


def _in(change: Change) -> str:
    return f" in {change.where}" if change.where else ""


def _what(change: Change) -> str:
    if not (change.was and change.becomes):
        return change.becomes or f"was {change.was}"
    if change.kind == "container":
        return _moved(change)
    return f"{change.was} → {change.becomes}"


def _moved(change: Change) -> str:
    (address, _, host), (new_address, _, new_host) = change.was.partition(" on "), change.becomes.partition(" on ")
    if address == new_address:
        return f"{host} → {new_host}, keeps {address}"
    return f"{change.was} → {change.becomes}"
