"""A private network as a whole, and one host's part in its VXLAN."""

from __future__ import annotations

from dataclasses import dataclass

from privnet.model.identifiers import Prefix
from privnet.plan.containers import Container, Port
from privnet.plan.names import Names
from privnet.plan.record import NetworkRecord

VXLAN_OVERHEAD = 50
"""Bytes: IPv4 20 + UDP 8 + VXLAN 8 + inner Ethernet 14 (kernel: vxlan_headroom)."""


def source_ports(vxlan_port: int) -> tuple[int, int]:
    """The first port and the one after the last from which VXLAN is sent: one, whatever the flow inside.

    The kernel takes one of a range by the flow's hash (udp_flow_src_port), and a range of one for no range at all.
    """
    low = min(vxlan_port, 65534)
    return low, low + 1


@dataclass(frozen=True, slots=True)
class Remote:
    """A container as other hosts see it: where its frames go (``vtep``: its host's mesh address)."""

    container: Container
    vtep: str


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A private network: what is the same on all of its hosts. One object per network and plan, compared by identity.

    :param mtu: bytes, of bridge, VXLAN and both ends of each veth pair; the smallest path of its hosts decides
    :param containers: by slot name within application, type and index
    :param remotes: the same as hosts see those of other hosts
    """

    id: str
    project: str
    vni: int
    cidr: Prefix
    mtu: int
    resolver: str
    containers: tuple[Container, ...]
    remotes: tuple[Remote, ...]
    hosts: tuple[str, ...]
    names: Names
    record: NetworkRecord

    @property
    def bridge(self) -> str:
        return f"pnb{self.vni}"

    @property
    def vxlan(self) -> str:
        return f"pnx{self.vni}"

    @property
    def bridge_mac(self) -> str:
        """Belongs to the bridge device itself, which never speaks; so it may be the same on all hosts."""
        digits = f"{self.vni:08x}"
        return f"02:72:{digits[:2]}:{digits[2:4]}:{digits[4:6]}:{digits[6:]}"


@dataclass(frozen=True, slots=True)
class Overlay:
    """One host's end of a private network.

    :param vtep: this host's mesh address
    :param mac: of the VXLAN device; differs from host to host, since a VXLAN device drops frames that carry its own
    :param ports: this host's resolver and its containers
    """

    network: Network
    vtep: str
    mac: str
    ports: tuple[Port, ...]
    remotes: tuple[Remote, ...]
