"""Container ports: a unit each, looked at from both ends of its veth pair."""

from __future__ import annotations

import re
from collections.abc import Iterable

from privnet.deploy.changes.files import named_by_files, units_that_run
from privnet.deploy.changes.guard import UNIT as GUARD
from privnet.deploy.script import Script, command
from privnet.deploy.state import HostState
from privnet.model.identifiers import APPLICATION_ID, LABEL, NETWORK_ID
from privnet.plan.containers import Port
from privnet.plan.host import HostPlan
from privnet.render import ETC, TARGET, WANTS

_OWN_NETNS = re.compile(rf"[1-9][0-9]*[.]{LABEL}[.]{APPLICATION_ID}|{NETWORK_ID}")
_OWN_PORT = re.compile("pn[cu][0-9a-f]+")
"""`pnu` devices were resolvers' ways to a forwarder on the host: a host that had them has to lose them."""
_PORT_UNIT = re.compile(r"privnet-(?:container|namespace)@(pnc[0-9a-f]{10})[.]service")
_PORT_FILE = re.compile(rf"(?:{ETC}/containers/|{WANTS}/privnet-container@)(pnc[0-9a-f]{{10}})[.](?:conf|service)")
_RESOLV_CONF = re.compile(r"/etc/netns/([^/]+)/resolv[.]conf")


def unit_of(port: str) -> str:
    """The unit of a container port."""
    return f"privnet-container@{port}.service"


def namespace_unit_of(port: str) -> str:
    """The unit of a container port's network namespace."""
    return f"privnet-namespace@{port}.service"


def add(plan: HostPlan, state: HostState, script: Script) -> None:
    """Start what is missing, repair in place what is not as it should be."""
    if state.enabled.get(TARGET) != "enabled":
        script.run("systemctl", "enable", "--quiet", TARGET)
    target = state.units.get(TARGET)
    start, repair = [], []
    ports = [port for overlay in plan.overlays for port in overlay.ports]
    for port in ports:
        runs = state.is_active(unit_of(port.name))
        if not runs:
            start.append(unit_of(port.name))
        elif not state.is_active(namespace_unit_of(port.name)):
            start.append(namespace_unit_of(port.name))
        if (runs and not is_connected(port, state)) or _leads_elsewhere(port, ports, state):
            # What ran in a namespace that is gone has to be started again by its owner; the port's own unit follows.
            find = command("sh", f"{ETC}/lib/container.sh", "name", port.name)
            script.after.append(f"{find} || {command('systemctl', 'restart', namespace_unit_of(port.name))}")
        if runs and (f"{ETC}/containers/{port.name}.conf" in script.files or not _attached(port, state)):
            repair.append(unit_of(port.name))
    if start:
        script.run("systemctl", "start", *start)
    if repair:
        script.run("systemctl", "reload", *repair)
    if target is None or target.active != "active":
        # The target alone: it may still want units of the old plan, and each feature starts its own.
        script.run("systemctl", "start", "--job-mode=ignore-dependencies", TARGET)


def retire(plan: HostPlan, state: HostState, script: Script) -> None:
    """Ports that the plan does not have, with their namespaces, and whatever looks like ours and is not."""
    ports = {port.name for overlay in plan.overlays for port in overlay.ports}
    namespaces = {port.netns for overlay in plan.overlays for port in overlay.ports}
    stray = (units_that_run(state, _PORT_UNIT) | named_by_files(state, _PORT_FILE)) - ports
    script.end((unit for name in stray for unit in (unit_of(name), namespace_unit_of(name))), state.failed)
    # An active unit takes its device along. What a hand or a failed unit has left does not go by itself.
    left = {name for name in stray if not state.is_active(unit_of(name))}
    for name in sorted(left | {name for name in state.links if _OWN_PORT.fullmatch(name)} - ports - stray):
        script.after.append(f"[ ! -e /sys/class/net/{name} ] || ip link delete dev {name}")
    known = {*state.namespaces, *named_by_files(state, _RESOLV_CONF)}
    for name in sorted(name for name in known - namespaces if _OWN_NETNS.fullmatch(name)):
        script.after.append(f"[ ! -e /run/netns/{name} ] || ip netns delete {name}")


def is_connected(port: Port, state: HostState) -> bool:
    """Whether the name of a port's namespace leads to the one that has the port's other end."""
    link, inside = state.links.get(port.name), state.namespaces.get(port.netns)
    return link is not None and inside is not None and link.index == inside.outer


def _leads_elsewhere(port: Port, ports: Iterable[Port], state: HostState) -> bool:
    """Whether the name is there and leads to no container's namespace, or to that of another one."""
    if port.netns not in state.namespaces or is_connected(port, state):
        return False
    inside = state.namespaces[port.netns]
    others = {link.index for other in ports if other.netns != port.netns and (link := state.links.get(other.name))}
    return inside is None or inside.outer in others


def _attached(port: Port, state: HostState) -> bool:
    link, inside = state.links.get(port.name), state.namespaces.get(port.netns)
    guard = state.units.get(GUARD)
    # A guard that is away has taken all ports down, and brings them up itself when it is loaded.
    waits = (guard is None or guard.active != "active") and link is not None and not link.up
    return (
        link is not None
        and inside is not None
        and link.index == inside.outer
        and (link.up or waits)
        and link.master == port.bridge
        and link.mtu == port.mtu
        and link.mac == port.host_mac
        and not state.addresses.get(port.name)
        and not state.own_routes.get(port.name)
        and link.is_port(state="disabled" if waits else "forwarding", flood=False)
        and state.port_macs.get(port.name, frozenset()) == {port.mac, port.host_mac}
        and inside.up
        and inside.mac == port.mac
        and inside.mtu == port.mtu
        and inside.addresses == {f"{port.address}/{port.length}"}
    )
