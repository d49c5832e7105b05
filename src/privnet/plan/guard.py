"""Who may speak: from which peer into which network as which container, and from which port as whom."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from privnet.plan.overlay import Overlay


@dataclass(frozen=True, slots=True, order=True)
class Speaker:
    """A container of another host: frames of ``vni`` with its MAC and address may come from ``vtep`` alone."""

    vtep: str
    vni: int
    mac: str
    address: str


@dataclass(frozen=True, slots=True, order=True)
class Binding:
    """A local port and the one MAC and address it may use."""

    port: str
    mac: str
    address: str


@dataclass(frozen=True, slots=True)
class Guard:
    """The elements of the guard's sets on one host; its rules are the same everywhere."""

    vxlan_port: int
    speakers: tuple[Speaker, ...]
    bindings: tuple[Binding, ...]


def plan_guard(vxlan_port: int, overlays: Iterable[Overlay]) -> Guard:
    """The guard of one host, from its networks."""
    speakers: list[Speaker] = []
    bindings: list[Binding] = []
    for overlay in overlays:
        vni = overlay.network.vni
        speakers += [
            Speaker(remote.vtep, vni, remote.container.mac, remote.container.address) for remote in overlay.remotes
        ]
        bindings += [Binding(port.name, port.mac, port.address) for port in overlay.ports]
    return Guard(vxlan_port, tuple(speakers), tuple(bindings))
