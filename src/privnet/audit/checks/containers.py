"""Container ports and the inside of their namespaces, the resolvers' among them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from privnet.audit.actual import Actual, Link, Namespace
from privnet.audit.checks.overlay import no_address, port_entries, port_flags
from privnet.audit.finding import NOTHING, Deviation, Finding, about, compare, compare_tables
from privnet.diagnostics import plural
from privnet.model.identifiers import APPLICATION_ID, LABEL, NETWORK_ID
from privnet.plan.containers import Port
from privnet.plan.host import HostPlan

INSIDE = "pn0"
_OWN_NETNS = re.compile(rf"[1-9][0-9]*[.]{LABEL}[.]{APPLICATION_ID}|{NETWORK_ID}")


def check(plan: HostPlan, actual: Actual) -> Finding:
    """Each port with its bridge, MAC and flags, each namespace with its one interface, and no other of ours."""
    ports = [port for overlay in plan.overlays for port in overlay.ports]
    deviations: list[Deviation] = []
    for port in ports:
        deviations += about(f"state of {port.name}", _outside(port, actual))
        namespace = actual.namespaces.get(port.netns)
        if namespace is None:
            missing = Deviation(f"namespace {port.netns}", "there", NOTHING)
            deviations += about(f"namespace {port.netns}", [missing], *_units(port))
        else:
            deviations += about(f"state of {port.name}", _inside(port, namespace, actual.links.get(port.name)))
    known = {port.netns for port in ports}
    for name in sorted(actual.namespaces):
        if _OWN_NETNS.fullmatch(name) and name not in known:
            deviations.append(Deviation(f"namespace {name}", NOTHING, "a stray namespace"))
    names = {port.name for port in ports}
    for name in sorted(actual.links):
        if name.startswith(("pnc", "pnu")) and name not in names:
            deviations.append(Deviation(f"device {name}", NOTHING, "a stray container port"))
    deviations += _neighbour_table(plan, actual)
    containers = len(ports) - len(plan.overlays)
    return Finding(f"{plural(containers, 'container')}, {plural(len(plan.overlays), 'resolver')}", tuple(deviations))


def _neighbour_table(plan: HostPlan, actual: Actual) -> Iterator[Deviation]:
    """One serves all containers of a host. With too few entries one of them can keep others from each other."""
    for family, wanted in (("ipv4", plan.neighbour_table.ipv4), ("ipv6", plan.neighbour_table.ipv6)):
        # A host that is a container itself has no such limit.
        soft, hard = actual.limits.get(family, (wanted, wanted))
        for name, least, found in (("gc_thresh2", wanted // 2, soft), ("gc_thresh3", wanted, hard)):
            if found < least:
                yield Deviation(f"net.{family}.neigh.default.{name}", f"{least} or more", str(found))


def _units(port: Port) -> tuple[str, ...]:
    return tuple(f"unit privnet-{kind}@{port.name}.service" for kind in ("container", "namespace"))


def _outside(port: Port, actual: Actual) -> Iterator[Deviation]:
    name, link = port.name, actual.links.get(port.name)
    if link is None or link.kind != "veth":
        what = link.kind or "a device" if link else NOTHING
        missing = Deviation(f"port {name} of {port.netns}", "a veth device", what)
        yield from about(f"port {name}", [missing], f"namespace {port.netns}", *_units(port))
        return
    yield from compare(f"{name}: MTU", port.mtu, link.mtu)
    yield from compare(f"{name}: MAC", port.host_mac, link.mac)
    # Who takes the guard away takes all ports down.
    up = compare(f"{name}: state", "up", "up" if link.up else "down")
    yield from about(f"state of {name}", up, "unit privnet-guard.service")
    bridge = compare(f"{name}: bridge", port.bridge, link.master or NOTHING)
    yield from about(f"state of {name}", bridge, f"device {port.bridge}")
    if link.master:
        yield from port_flags(name, link, {"flood": False})
        wanted = {port.mac: f"master {port.bridge} static"}
        yield from compare_tables(wanted, port_entries(name, port.host_mac, actual), f"FDB of {name}")
    yield from no_address(name, actual)


def _inside(port: Port, namespace: Namespace, outer: Link | None) -> Iterator[Deviation]:
    where = f"namespace {port.netns}"
    for name in sorted(namespace.links.keys() - {"lo", INSIDE}):
        yield Deviation(f"{where}: interface {name}", NOTHING, namespace.links[name].kind or "an interface")
    if namespace.default_route:
        yield Deviation(f"{where}: default route", NOTHING, namespace.default_route)
    link = namespace.links.get(INSIDE)
    if link is None:
        missing = Deviation(f"{where}: interface {INSIDE}", "there", NOTHING)
        yield from about(f"state of {port.name}", [missing], f"port {port.name}")
        return
    addresses = " ".join(sorted(namespace.addresses.get(INSIDE, ())))
    yield from compare(f"{where}: address", f"{port.address}/{port.length}", addresses or NOTHING)
    yield from compare(f"{where}: MAC", port.mac, link.mac)
    yield from compare(f"{where}: MTU", port.mtu, link.mtu)
    yield from compare(f"{where}: state", "up", "up" if link.up else "down")
    if outer is not None:
        yield from compare(f"{where}: index of the other end of {INSIDE}", outer.index, link.peer_index)
