"""How many neighbours the kernel of a host has to know: one table, and one limit, serve all of its namespaces.

A container makes at most one entry for each other address of its network's prefix, whether somebody is there or not. So
with room for all of them on all ports of a host no container can take an entry from another one, nor from the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from privnet.plan.overlay import Overlay

OWN = 1024
"""For the host's own neighbours: as many as the kernel allows it by default (gc_thresh3)."""
AT_MOST = 2**20
"""An entry takes half a kibibyte of memory that no container is charged for: 512 MiB."""


@dataclass(frozen=True, slots=True)
class NeighbourTable:
    """Entries that the kernel is to allow at least, by family."""

    ipv4: int
    ipv6: int


def plan_neighbour_table(overlays: Iterable[Overlay]) -> NeighbourTable:
    """The limits of a host with these networks: powers of two, so that they rarely change with a container."""
    ipv4 = OWN
    for overlay in overlays:
        ipv4 += len(overlay.ports) * (2 ** (32 - overlay.network.cidr.length))
    # Private networks have no IPv6.
    return NeighbourTable(_rounded(ipv4), OWN)


def _rounded(entries: int) -> int:
    return min(1 << (entries - 1).bit_length(), AT_MOST)
