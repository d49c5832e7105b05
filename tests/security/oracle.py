"""Who must reach whom, read from the YAML by itself. Shares no code with privnet: what both get wrong, nobody sees.

Addresses come from the lock file; everything else from the declaration.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

PROTOCOLS = ("tcp", "udp", "icmp")
STRAY = "stray"
"""A container of a host's own, outside any private network."""
STRAY_HOST = "lab-1"
OPERATOR, OUTSIDER = "192.0.2.253", "192.0.2.252"


@dataclass(frozen=True)
class Endpoint:
    """Something with an address.

    :param place: host, or `operator`, `outsider`
    :param netns: named namespace on that host; empty for the host's own
    :param network: `pn-…` of a container or resolver
    :param gone: it was declared before, and is no more
    """

    name: str
    kind: str
    place: str
    netns: str
    address: str
    network: str = ""
    gone: bool = False

    def __str__(self) -> str:
        return self.name


def documents(inventory: Path) -> tuple[dict, list[dict], dict]:
    """Fleet, projects and lock file, as YAML has them."""
    fleet = yaml.safe_load((inventory / "fleet.yaml").read_text())
    projects = [yaml.safe_load(path.read_text()) for path in sorted((inventory / "projects").glob("*.yaml"))]
    return fleet, projects, yaml.safe_load((inventory / "privnet.lock.yaml").read_text())


def endpoints(inventory: Path) -> list[Endpoint]:
    """Everybody, by the declaration."""
    fleet, projects, lock = documents(inventory)
    found = []
    for host, settings in fleet["hosts"].items():
        found.append(Endpoint(host, "host", host, "", settings["address"]))
        found.append(Endpoint(f"{host} mesh", "mesh", host, "", lock["hosts"][host]["mesh"]))
    for project in projects:
        if "private_network" in project:
            found += _network(project, lock["networks"][project["private_network"]["id"]])
    found.append(Endpoint("operator", "outside", "operator", "", OPERATOR))
    found.append(Endpoint("outsider", "outside", "outsider", "", OUTSIDER))
    found.append(Endpoint(STRAY, "stray", STRAY_HOST, STRAY, "198.51.100.2"))
    return found


def _network(project: dict, numbers: dict) -> list[Endpoint]:
    network = project["private_network"]["id"]
    slots = {slot: place.split() for slot, place in numbers["slots"].items()}
    found = []
    for application, settings in project["applications"].items():
        for process_type, hosts in settings["formation"].items():
            for index, host in enumerate(hosts, 1):
                slot = f"{index}.{process_type}.{application}"
                address, placed = slots[slot]
                assert placed == host, f"{slot} is declared on {host}, the lock file says {placed}"
                found.append(Endpoint(slot, "container", host, slot, address, network))
    resolver = str(ipaddress.ip_network(numbers["cidr"])[1])
    for host in sorted({endpoint.place for endpoint in found}):
        found.append(Endpoint(f"resolver of {network} on {host}", "resolver", host, network, resolver, network))
    return found


def gone(before: list[Endpoint], now: list[Endpoint]) -> list[Endpoint]:
    """What was declared before and is no more: removed, elsewhere, or with another address."""
    there = {(endpoint.kind, endpoint.place, endpoint.netns, endpoint.address) for endpoint in now}
    return [
        replace(endpoint, name=f"{endpoint.name} of before on {endpoint.place}", gone=True)
        for endpoint in before
        if (endpoint.kind, endpoint.place, endpoint.netns, endpoint.address) not in there
    ]


def sources(everybody: list[Endpoint]) -> list[Endpoint]:
    """One endpoint for each namespace: a host speaks once."""
    return [endpoint for endpoint in everybody if endpoint.kind != "mesh"]


def must_reach(source: Endpoint, target: Endpoint, protocol: str, everybody: list[Endpoint]) -> bool | None:
    """Whether a packet from one must arrive at the other (True) or must not (False). None: no business of privnet's."""
    if source.place == target.place and source.netns == target.netns:
        return None
    kinds = {source.kind, target.kind}
    if source.gone or target.gone:
        # Private networks have nothing to do with it, in neither direction. What a removed host, which nobody asks any
        # more, does within itself is its own.
        within = source.gone and target.gone and source.place == target.place
        return False if kinds & {"container", "resolver", "mesh"} and not within else None
    if kinds & {"container", "resolver"}:
        if source.network != target.network:
            return False
        return source.kind == target.kind == "container" or source.place == target.place
    if target.kind == "mesh":
        return (
            source.kind == "host"
            and protocol == "icmp"
            and bool(_networks(source, everybody) & _networks(target, everybody))
        )
    if "stray" in kinds:
        return None
    return True


def _networks(host: Endpoint, everybody: list[Endpoint]) -> set[str]:
    return {endpoint.network for endpoint in everybody if endpoint.place == host.place and endpoint.network}
