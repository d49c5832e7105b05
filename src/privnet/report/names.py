"""Every name of a fleet with its answers, in the five forms of the specification, and those of reverse look-ups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from privnet.compiler import Compiled
from privnet.plan.host import Plan
from privnet.plan.overlay import Network


@dataclass(frozen=True, slots=True)
class Name:
    """A name that a resolver of ``network`` answers.

    :param name: absolute, with its final dot
    :param type: ``A``, ``PTR``, or ``NODATA`` for a name that exists without an address
    :param answers: addresses; the target's name for ``PTR``
    :param hosts: where the containers are that it leads to, in the order of ``answers``
    """

    name: str
    type: str
    answers: tuple[str, ...]
    hosts: tuple[str, ...]
    network: str
    project: str


def fleet_names(plan: Plan) -> Iterator[Name]:
    """All names, network by network."""
    for _, network in sorted(plan.networks.items()):
        yield from network_names(network)


def network_names(network: Network) -> Iterator[Name]:
    """The names of one network: applications, process types, containers, reverse ones."""
    host_of = {container.address: container.host for container in network.containers}
    addresses: dict[str, list[str]] = {name: [] for name in network.names.empty}
    for container in network.containers:
        # An application that has containers but none that its bare name stands for.
        addresses.setdefault(f"{container.application}.{network.names.suffix}", [])
    for record in network.names.records:
        for name in record.names:
            addresses.setdefault(name, []).append(record.address)
    for name, found in sorted(addresses.items(), key=lambda item: _order(item[0])):
        hosts = tuple(host_of[address] for address in found)
        yield Name(f"{name}.", "A" if found else "NODATA", tuple(found), hosts, network.id, network.project)
    for record in network.names.records:
        target = (f"{record.names[0]}.",)
        yield Name(_reverse(record.address), "PTR", target, (host_of[record.address],), network.id, network.project)


def _order(name: str) -> tuple[str, str, int]:
    """By application, then type (the bare name first), then index as a number."""
    labels = name.split(".")
    at = next(i for i, label in enumerate(labels) if label.startswith("ap-") and len(label) == 39)
    return labels[at], labels[at - 1] if at else "", int(labels[0]) if at == 2 else 0


def _reverse(address: str) -> str:
    return ".".join(reversed(address.split("."))) + ".in-addr.arpa."


def names_data(plan: Plan) -> list[dict[str, Any]]:
    """All names for machines."""
    return [asdict(name) for name in fleet_names(plan)]


def name_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    """All names as rows of a table; the first row has the titles."""
    yield "NAME", "TYPE", "ADDRESSES", "HOST"
    for name in fleet_names(plan):
        yield name.name, name.type, " ".join(name.answers), " ".join(dict.fromkeys(name.hosts))


def vni_data(compiled: Compiled) -> list[dict[str, Any]]:
    """Every VNI that is used or rests, lowest first."""
    used = [
        {"vni": network.vni, "network": network.id, "project": network.project, "resting_until": None}
        for network in compiled.plan.networks.values()
    ]
    resting = [
        {"vni": rest.number, "network": None, "project": None, "resting_until": rest.until}
        for rest in compiled.lock.quarantine
        if rest.kind == "vni"
    ]
    return sorted([*used, *resting], key=lambda entry: entry["vni"])


def vni_rows(compiled: Compiled) -> Iterator[tuple[str, ...]]:
    """The same as rows of a table; the first row has the titles."""
    yield "VNI", "NETWORK", "PROJECT"
    for entry in vni_data(compiled):
        yield str(entry["vni"]), entry["network"] or "in quarantine", entry["project"] or ""
