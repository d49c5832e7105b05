"""Who hears questions in the resolvers' namespaces, and whom their forwarders ask."""

from __future__ import annotations

from collections.abc import Iterator

from privnet.audit.actual import Actual, Listener
from privnet.audit.finding import NOTHING, Deviation, Finding, about, compare
from privnet.diagnostics import plural
from privnet.plan.host import HostPlan
from privnet.plan.names import Outside
from privnet.plan.overlay import Network

SYSTEMD = 1
"""The process that opens a forwarder's sockets, and holds them."""


def check(plan: HostPlan, actual: Actual) -> Finding:
    """Where questions are asked, its network's resolver and forwarder hear them, and nobody beside them."""
    deviations: list[Deviation] = []
    for overlay in plan.overlays:
        network = overlay.network
        deviations += about(hearers(network), _heard(network, plan.outside, actual))
        deviations += _servers(network, plan.outside, actual)
    return Finding(f"{plural(len(plan.overlays), 'resolver')} heard by nobody else", tuple(deviations))


def hearers(network: Network) -> str:
    """What answers of a resolver stand on."""
    return f"who answers in namespace {network.id}"


def grounds(network: Network) -> tuple[str, ...]:
    """What those who hear there stand on."""
    units = (f"unit privnet-dns@{network.id}.service", f"unit {forwarder(network)}")
    return (*units, f"namespace {network.id}")


def forwarder(network: Network) -> str:
    """The unit of a forwarder's sockets."""
    return f"privnet-forwarder@{network.id}.socket"


def _heard(network: Network, outside: Outside, actual: Actual) -> Iterator[Deviation]:
    unit = f"privnet-dns@{network.id}.service"
    expected: dict[str, tuple[int | None, str]] = {network.resolver: (actual.processes.get(unit), unit)}
    expected |= {f"{place}%lo": (SYSTEMD, forwarder(network)) for place in outside.places}
    found: dict[tuple[str, str], list[Listener]] = {
        (protocol, address): [] for address in expected for protocol in ("tcp", "udp")
    }
    for listener in actual.listeners.get(network.id, ()):
        found.setdefault((listener.protocol, listener.address), []).append(listener)
    for (protocol, address), listeners in sorted(found.items()):
        process, wanted = expected.get(address, (None, NOTHING))
        subject = f"{protocol} port 53 of {address.removesuffix('%lo')} in namespace {network.id}"
        if process is not None and not any(process in each.processes for each in listeners):
            yield from about(hearers(network), [Deviation(subject, wanted, _shown(listeners))], *grounds(network))
        elif strangers := [each for each in listeners if process not in each.processes]:
            yield Deviation(subject, wanted, _shown(strangers))


def _shown(listeners: list[Listener]) -> str:
    programs = [f"{each.program} (process {min(each.processes, default=0)})" for each in listeners]
    return ", ".join(sorted(programs)) or NOTHING


def _servers(network: Network, outside: Outside, actual: Actual) -> Iterator[Deviation]:
    asked = actual.servers.get(network.id)
    if asked is not None:
        yield from compare(f"{network.id}: servers that are asked", " ".join(outside.servers) or NOTHING, asked)
