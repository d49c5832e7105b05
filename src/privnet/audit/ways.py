"""What a packet, an answer or a barrier stands on, on which host: what may be the cause when it is not as planned.

Named as the checks name what they are about. Only what that very packet comes by, and what can stop it or let it
through, is named: what is missing here is told as a deviation of its own, what is too much would be told as a
consequence of something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from privnet.audit.checks.guard import UNIT, binding, speaker
from privnet.audit.finding import on
from privnet.audit.session import HOST
from privnet.plan.containers import Port
from privnet.plan.host import HostPlan, Plan
from privnet.plan.overlay import Overlay
from privnet.render import ETC

End = tuple[str, str]
"""A host and a namespace there, or HOST."""
MESH = "privnet"


def of_packet(plan: Plan, source: End, target: End, full: bool = False) -> list[str]:
    """What stands between two containers of a network, there and back; ``full``: a packet of the largest size."""
    ends = [(host, *_attached(plan.hosts[host], netns)) for host, netns in (source, target)]
    found = []
    for (host, overlay, port), (other, _, partner) in (ends, ends[::-1]):
        found += _on(host, inside(port), _bridged(overlay))
        if full:
            found += _on(host, _sizes(overlay, port, far=host != other))
        if host != other:
            vtep = plan.hosts[other].mesh.address
            found += _on(host, _overlay(overlay, partner, vtep), _tunnel(plan, host, other))
    return found


def of_handshake(plan: Plan, host: str, other: str) -> list[str]:
    """The mesh at both ends."""
    return [*_on(host, _tunnel(plan, host, other)), *_on(other, _tunnel(plan, other, host))]


def of_question(plan: Plan, host: str, netns: str, name: str) -> list[str]:
    """What the answer to a container's question for another one's name stands on."""
    overlay, port = _attached(plan.hosts[host], netns)
    network = overlay.network
    own = [f"resolver of {network.id}", f"{name}.{network.names.suffix} A", f"unit privnet-dns@{network.id}.service"]
    own += [f"file {ETC}/names/{network.id}.{kind}" for kind in ("hosts", "conf")]
    return [*_on(host, own, _bridged(overlay), inside(port), inside(overlay.ports[0]))]


def of_listener(host: HostPlan, netns: str) -> tuple[str, ...]:
    """What somebody who listens there stands on, on that host itself."""
    if netns == HOST:
        return f"device {MESH}", f"unit wg-quick@{MESH}.service", f"{MESH}: address", f"{MESH}: state"
    return tuple(_namespace(_attached(host, netns)[1]))


def of_sender(plan: Plan, host: str, netns: str) -> list[str]:
    """What somebody who sends there stands on."""
    return [] if netns == HOST else _on(host, of_listener(plan.hosts[host], netns))


def of_crossing(plan: Plan, source: End, target: End) -> list[str]:
    """What keeps a container from other networks and from its host, and a host from its containers."""
    (host, netns), (_, inside) = source, target
    if HOST not in (netns, inside):
        found = [*_apart(plan, source), *_apart(plan, target)]
        return [*found, on(host, f"namespace {netns}: default route")]
    overlay, _ = _attached(plan.hosts[host], inside if netns == HOST else netns)
    bridge = overlay.network.bridge
    own = [f"{bridge}: address", f"{bridge}: route", "table bridge", f"unit {UNIT}"]
    if netns == HOST:
        return _on(host, own, ["barrier of bridge output"])
    chains = [f"barrier of bridge {chain}" for chain in ("input", "host")]
    return _on(host, own, chains, [f"namespace {netns}: default route"])


def _attached(host: HostPlan, netns: str) -> tuple[Overlay, Port]:
    return next((overlay, port) for overlay in host.overlays for port in overlay.ports if port.netns == netns)


def _on(host: str, *things: Iterable[str]) -> list[str]:
    return [on(host, thing) for ones in things for thing in ones]


def _namespace(port: Port) -> Iterator[str]:
    yield from (f"unit privnet-{kind}@{port.name}.service" for kind in ("container", "namespace"))
    yield f"port {port.name}"
    inner = f"namespace {port.netns}"
    yield inner
    yield from (f"{inner}: {what}" for what in ("interface pn0", "address", "state"))


def inside(port: Port) -> Iterator[str]:
    """A container, its port, and as whom it may speak."""
    yield from _namespace(port)
    yield from (f"{port.name}: {what}" for what in ("state", "bridge"))
    yield f"FDB of {port.name}: {port.mac}"
    yield from (f"namespace {port.netns}: {what}" for what in ("MAC", "index of the other end of pn0"))
    yield f"element of bridge privnet ports: {binding(port.name, port.mac, port.address)}"
    yield "set bridge privnet ports"
    yield from (f"way through bridge {chain}" for chain in ("prerouting", "port"))


def _bridged(overlay: Overlay) -> Iterator[str]:
    bridge = overlay.network.bridge
    yield f"device {bridge}"
    yield from (f"{bridge}: {what}" for what in ("state", "STP"))


def _sizes(overlay: Overlay, port: Port, far: bool) -> Iterator[str]:
    network = overlay.network
    names = [port.name, f"namespace {port.netns}", network.bridge, *([network.vxlan, MESH] if far else [])]
    yield from (f"{name}: MTU" for name in names)


def _overlay(overlay: Overlay, partner: Port, vtep: str) -> Iterator[str]:
    """The way to one container of another host, and the leave that it has to speak here."""
    network = overlay.network
    name = network.vxlan
    yield from (f"unit privnet-overlay@{network.vni}.service", f"device {name}", f"unit {UNIT}")
    settings = ("state", "VNI", "local", "port", "proxy", "master", "flood", "neigh_suppress")
    yield from (f"{name}: {what}" for what in settings)
    yield from (f"FDB of {name}: {partner.mac}", f"neighbours of {name}: {partner.address}")
    element = speaker(vtep, network.vni, partner.mac, partner.address)
    yield from (f"element of inet privnet speakers: {element}", "set inet privnet speakers")
    yield from (f"way through inet {chain}" for chain in ("ingress", "decapsulate", "egress"))


def _tunnel(plan: Plan, host: str, other: str) -> Iterator[str]:
    yield from (f"device {MESH}", f"unit wg-quick@{MESH}.service", "WireGuard key")
    yield from (f"{MESH}: {what}" for what in ("address", "state", "UDP port", "fwmark", "route"))
    yield f"peer {other}"
    yield from (f"peer {other}: {what}" for what in ("allowed addresses", "endpoint", "preshared key"))
    yield from (f"way through inet {chain}" for chain in ("ingress", "wireguard"))
    for peer in plan.hosts[host].mesh.peers:
        if peer.host == other:
            address = peer.endpoint.rpartition(":")[0]
            kind = "peers6" if address.startswith("[") else "peers"
            yield from (f"element of inet privnet {kind}: {address.strip('[]')}", f"set inet privnet {kind}")


def _apart(plan: Plan, end: End) -> Iterator[str]:
    """What keeps a container in its own network."""
    host, netns = end
    overlay, port = _attached(plan.hosts[host], netns)
    things = (f"{port.name}: bridge", *(f"{overlay.network.vxlan}: {what}" for what in ("VNI", "master")))
    yield from (on(host, thing) for thing in things)
