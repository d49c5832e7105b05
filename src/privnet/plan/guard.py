"""Who may speak: from which peer into which network as which container, and from which port as whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from privnet.plan.overlay import Network, Overlay

# Tuples, since there is one for each container of each of a host's networks: a quarter of a dataclass's cost.


class Speaker(NamedTuple):
    """A container of another host: frames of ``vni`` with its MAC and address may come from ``vtep`` alone."""

    vtep: str
    vni: int
    mac: str
    address: str


class Binding(NamedTuple):
    """A local port and the one MAC and address it may use."""

    port: str
    mac: str
    address: str


@dataclass(frozen=True, slots=True)
class Guard:
    """The elements of the guard's sets on one host; its rules are the same everywhere.

    :param mesh: the prefix of all mesh addresses
    :param port: WireGuard's
    """

    vxlan_port: int
    mesh: str
    port: int
    speakers: tuple[Speaker, ...]
    bindings: tuple[Binding, ...]


def network_speakers(network: Network) -> tuple[Speaker, ...]:
    """Every container of a network as other hosts see it."""
    return tuple(
        Speaker(remote.vtep, network.vni, remote.container.mac, remote.container.address) for remote in network.remotes
    )


def plan_guard(
    vxlan_port: int, mesh: str, port: int, overlays: Iterable[Overlay], in_network: Mapping[str, tuple[Speaker, ...]]
) -> Guard:
    """The guard of one host, from its overlays; ``in_network`` has the speakers of each network by its id."""
    speakers: list[Speaker] = []
    bindings: list[Binding] = []
    for overlay in overlays:
        own = overlay.vtep
        speakers += [speaker for speaker in in_network[overlay.network.id] if speaker.vtep != own]
        bindings += [Binding(port.name, port.mac, port.address) for port in overlay.ports]
    return Guard(vxlan_port, mesh, port, tuple(speakers), tuple(bindings))
