"""There are enough addresses, and none means two things.

Private networks are separate: they may use the same prefix as each other.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from itertools import islice

from privnet.diagnostics import COUNTED_AT_MOST, Problem, Related, plural
from privnet.load import Declaration
from privnet.model.application import Spread
from privnet.model.identifiers import Prefix
from privnet.model.project import Project


def check(declaration: Declaration) -> Iterator[Problem]:
    """The mesh has room for the hosts and is not the underlay; each network has room for its containers."""
    yield from _mesh_size(declaration)
    yield from islice(_mesh_and_underlay(declaration), COUNTED_AT_MOST)
    for project in declaration.projects:
        yield from _network_size(declaration, project)


def _mesh_size(declaration: Declaration) -> Iterator[Problem]:
    mesh = declaration.fleet.wireguard.mesh
    hosts = len(declaration.fleet.hosts)
    if hosts > mesh.size - 2:
        yield Problem(
            "PN310",
            f"mesh prefix {mesh} has {mesh.size - 2:,} addresses for {plural(hosts, 'host')}",
            declaration.place("wireguard", "mesh"),
            help=f"take a prefix of at least /{_length_for(hosts + 2)}",
        )


def _mesh_and_underlay(declaration: Declaration) -> Iterator[Problem]:
    mesh = declaration.fleet.wireguard.mesh
    port = declaration.fleet.wireguard.port
    for name, host in declaration.fleet.hosts.items():
        for field, address in (("address", host.address), ("endpoint", host.wireguard_endpoint(port)[0])):
            if ":" in address or int(ipaddress.IPv4Address(address)) not in mesh:
                continue
            if field == "endpoint" and host.endpoint is None:
                continue
            yield Problem(
                "PN311",
                f"{field} {address} of host `{name}` lies in the mesh prefix {mesh}",
                declaration.place("hosts", name, field),
                note="packets to the host would be sent into the tunnel that they are to build",
                help="take a mesh prefix that nothing on the underlay uses",
                related=tuple(_the_mesh(declaration)),
            )


def _the_mesh(declaration: Declaration) -> Iterator[Related]:
    if declaration.declares("wireguard", "mesh"):
        yield Related(declaration.place("wireguard", "mesh"), "the mesh prefix is given here")


def _network_size(declaration: Declaration, project: Project) -> Iterator[Problem]:
    network = project.private_network
    if network is None:
        return
    cidr = network.cidr or declaration.fleet.network.cidr
    wanted = sum(_containers(project).values())
    if wanted <= usable(cidr):
        return
    count = plural(wanted, "container")
    largest = max(_containers(project).items(), key=lambda item: item[1])
    where = (project.project, "private_network", "cidr")
    yield Problem(
        "PN312",
        f"private network {network.id} has {usable(cidr):,} addresses for {count}",
        declaration.project_place(*where),
        f"{cidr} without network, resolver and broadcast address",
        f"the largest application is {largest[0]} with {plural(largest[1], 'container')}",
        _room_for(cidr, wanted),
    )


def usable(cidr: Prefix) -> int:
    """Addresses for containers: without those of network, resolver (the first usable one) and broadcast."""
    return cidr.size - 3


def _containers(project: Project) -> dict[str, int]:
    return {
        application: sum(
            placed.count if isinstance(placed, Spread) else len(placed) for placed in details.formation.values()
        )
        for application, details in project.applications.items()
    }


def _length_for(addresses: int) -> int:
    return 32 - max(0, addresses - 1).bit_length()


def _room_for(cidr: Prefix, containers: int) -> str:
    length = _length_for(containers + 3)
    if length < 16:
        return "divide the project: a private network has at most a /16"
    larger = Prefix(cidr.network >> (32 - length) << (32 - length), length)
    return f"write `cidr: {larger}` in the network, or fewer containers"
