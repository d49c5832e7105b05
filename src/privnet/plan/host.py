"""The plan of a fleet, and of each host pruned to the networks that have a container on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from privnet.load import Declaration
from privnet.model.fleet import Fleet
from privnet.model.identifiers import format_address
from privnet.model.lock import Lock, NetworkLock
from privnet.model.project import Project
from privnet.plan.allocate import RESOLVER_OFFSET
from privnet.plan.containers import (
    HOST_END_MAC_PREFIX,
    Container,
    Port,
    mac_of,
    place_container,
    port_name,
)
from privnet.plan.guard import Guard, network_speakers, plan_guard
from privnet.plan.mesh import Mesh, endpoint_of, path_mtu, plan_mesh, plan_peers
from privnet.plan.names import Outside, plan_names
from privnet.plan.neighbour_table import NeighbourTable, plan_neighbour_table
from privnet.plan.overlay import VXLAN_OVERHEAD, Network, Overlay, Remote
from privnet.plan.record import HostRecord, NetworkRecord, Settings

VXLAN_MAC_PREFIX = "02:73"


@dataclass(frozen=True, slots=True)
class HostPlan:
    """Everything that one host is to be.

    :param overlays: by VNI, only of networks that have a container here
    """

    name: str
    mesh: Mesh
    overlays: tuple[Overlay, ...]
    guard: Guard
    ttl: int
    domain: str
    outside: Outside
    record: HostRecord
    neighbour_table: NeighbourTable


@dataclass(frozen=True, slots=True)
class Plan:
    """What a whole fleet is to be.

    :param hosts: those in service
    """

    fleet: Fleet
    networks: Mapping[str, Network]
    hosts: Mapping[str, HostPlan]


def plan_fleet(declaration: Declaration, lock: Lock) -> Plan:
    """Plan every host from the declaration and its numbers (``lock`` covers the declaration)."""
    fleet = declaration.fleet
    projects = {project.private_network.id: project for project in declaration.projects if project.private_network}
    vteps = {name: format_address(host.mesh) for name, host in lock.hosts.items()}
    networks = {
        network_id: _plan_network(network_id, projects[network_id], known, fleet, vteps)
        for network_id, known in lock.networks.items()
    }
    overlays = _plan_overlays(fleet, lock, networks.values(), vteps)
    speakers = {network_id: network_speakers(network) for network_id, network in networks.items()}
    peers = plan_peers(fleet, lock.hosts)  # also of hosts that are out, which are nobody's: no network is on them
    settings = Settings(fleet)
    outside = Outside(fleet.dns.upstream, fleet.dns.internal)
    hosts = {}
    for name, serves in overlays.items():
        own = tuple(serves)
        others = set[str]().union(*(overlay.network.hosts for overlay in own)) - {name}
        hosts[name] = HostPlan(
            name=name,
            mesh=plan_mesh(name, fleet, lock.hosts, peers, others),
            overlays=own,
            guard=plan_guard(fleet.vxlan.port, str(fleet.wireguard.mesh), fleet.wireguard.port, own, speakers),
            ttl=fleet.dns.ttl,
            domain=fleet.domain,
            outside=outside,
            record=HostRecord(settings, fleet.hosts[name]),
            neighbour_table=plan_neighbour_table(own),
        )
    return Plan(fleet, networks, hosts)


def _plan_network(
    network_id: str, project: Project, known: NetworkLock, fleet: Fleet, vteps: Mapping[str, str]
) -> Network:
    first = known.cidr.network
    every = tuple(
        place_container(slot, place.host, place.address, known.vni, first) for slot, place in known.slots.items()
    )
    # Containers on hosts that are out count as not running. Their hosts count for the MTU all the same: it stays as it
    # is when one goes out, and when it is back.
    places = {
        host: (vteps[host], endpoint_of(fleet.hosts[host], fleet.wireguard.port))
        for host in sorted({container.host for container in every})
    }
    out = tuple(host for host in places if fleet.hosts[host].state == "out")
    containers = tuple(container for container in every if container.host not in out) if out else every
    types = {key: tuple(application.formation) for key, application in project.applications.items()}
    return Network(
        id=network_id,
        project=project.project,
        vni=known.vni,
        cidr=known.cidr,
        mtu=path_mtu([fleet.hosts[host] for host in places], fleet.wireguard.port) - VXLAN_OVERHEAD,
        resolver=format_address(first + RESOLVER_OFFSET),
        containers=containers,
        remotes=tuple(Remote(container, vteps[container.host]) for container in containers),
        hosts=tuple(host for host in places if host not in out),
        names=plan_names(network_id, fleet.domain, containers, types),
        record=NetworkRecord(project, every, places, out),
    )


def _plan_overlays(
    fleet: Fleet, lock: Lock, networks: Iterable[Network], vteps: Mapping[str, str]
) -> dict[str, list[Overlay]]:
    overlays: dict[str, list[Overlay]] = {name: [] for name, host in fleet.hosts.items() if host.state == "in"}
    for network in sorted(networks, key=lambda network: network.vni):
        local: dict[str, list[Container]] = defaultdict(list)
        for container in network.containers:
            local[container.host].append(container)
        resolver = _resolver_port(network)
        for host in network.hosts:
            vtep = vteps[host]
            overlays[host].append(
                Overlay(
                    network=network,
                    vtep=vtep,
                    mac=mac_of(lock.hosts[host].mesh, VXLAN_MAC_PREFIX),
                    ports=(resolver, *(_container_port(network, container) for container in local[host])),
                    remotes=tuple([remote for remote in network.remotes if remote.vtep != vtep]),
                )
            )
    return overlays


def _resolver_port(network: Network) -> Port:
    """The same on every host of the network."""
    number = network.cidr.network + RESOLVER_OFFSET
    return _port(network, port_name(network.vni, RESOLVER_OFFSET), network.id, number, network.resolver)


def _container_port(network: Network, container: Container) -> Port:
    return _port(network, container.port, container.slot, container.number, container.address)


def _port(network: Network, name: str, netns: str, number: int, address: str) -> Port:
    return Port(
        name=name,
        netns=netns,
        vni=network.vni,
        bridge=network.bridge,
        address=address,
        length=network.cidr.length,
        mac=mac_of(number),
        host_mac=mac_of(number, HOST_END_MAC_PREFIX),
        mtu=network.mtu,
    )
