"""The WireGuard tunnels of one host: one peer for each host with which it shares a private network."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from privnet.model.fleet import Fleet, Host
from privnet.model.identifiers import format_address
from privnet.model.lock import HostLock, HostSettings

OVERHEAD_V4 = 60
"""Bytes that WireGuard adds on an IPv4 underlay: IPv4 20 + UDP 8 + WireGuard 32."""
OVERHEAD_V6 = 80
"""The same on an IPv6 underlay."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another host, as a WireGuard peer. ``address`` is its mesh address, the only one it may speak as."""

    host: str
    public_key: str
    endpoint: str
    address: str


@dataclass(frozen=True, slots=True)
class Mesh:
    """One host's place in the mesh.

    :param pending: hosts that will be peers once they have made their keys
    """

    address: str
    prefix: str
    length: int
    port: int
    mtu: int
    peers: tuple[Peer, ...]
    pending: tuple[str, ...]


def endpoint_of(host: Host | HostSettings, port: int) -> str:
    """``address:port`` at which a host's WireGuard is reached, IPv6 in brackets."""
    if host.endpoint is not None:
        return host.endpoint
    return f"[{host.address}]:{port}" if ":" in host.address else f"{host.address}:{port}"


def mesh_mtu(host: Host, port: int) -> int:
    """Largest packet that fits a host's tunnels, in bytes."""
    return host.mtu - _overhead([host], port)


def path_mtu(hosts: Collection[Host | HostSettings], port: int) -> int:
    """Largest packet that fits every tunnel between some hosts, in bytes.

    A tunnel speaks IPv6 when either end is reached by it, so one such end costs the smallest underlay its bytes too.
    """
    return min((host.mtu for host in hosts), default=1500) - _overhead(hosts, port)


def _overhead(hosts: Iterable[Host | HostSettings], port: int) -> int:
    return OVERHEAD_V6 if any(endpoint_of(host, port).startswith("[") for host in hosts) else OVERHEAD_V4


def plan_peers(fleet: Fleet, hosts: Mapping[str, HostLock]) -> dict[str, Peer]:
    """Every host that has a key, as others see it."""
    port = fleet.wireguard.port
    return {
        name: Peer(name, known.wireguard, endpoint_of(fleet.hosts[name], port), format_address(known.mesh))
        for name, known in hosts.items()
        if known.wireguard is not None
    }


def plan_mesh(
    name: str, fleet: Fleet, hosts: Mapping[str, HostLock], peers: Mapping[str, Peer], others: Iterable[str]
) -> Mesh:
    """The mesh of one host; ``others`` are the hosts with which it shares a network."""
    sharing = sorted(others)
    return Mesh(
        address=format_address(hosts[name].mesh),
        prefix=str(fleet.wireguard.mesh),
        length=fleet.wireguard.mesh.length,
        port=fleet.wireguard.port,
        mtu=mesh_mtu(fleet.hosts[name], fleet.wireguard.port),
        peers=tuple(peers[other] for other in sharing if other in peers),
        pending=tuple(other for other in sharing if other not in peers),
    )
