"""Container ports: a unit each, looked at from both ends of its veth pair."""

from __future__ import annotations

import re

from privnet.deploy.script import Script
from privnet.deploy.state import HostState
from privnet.model.identifiers import APPLICATION_ID, LABEL, NETWORK_ID
from privnet.plan.containers import Port
from privnet.plan.host import HostPlan
from privnet.render import ETC, TARGET

_OWN_NETNS = re.compile(rf"[1-9][0-9]*[.]{LABEL}[.]{APPLICATION_ID}|{NETWORK_ID}")
_PORT_UNIT = re.compile(r"privnet-container@(pnc[0-9a-f]{10})[.]service")


def unit_of(port: str) -> str:
    """The unit of a container port."""
    return f"privnet-container@{port}.service"


def add(plan: HostPlan, state: HostState, script: Script) -> None:
    """Start what is missing, repair in place what is not as it should be."""
    if state.enabled.get(TARGET) != "enabled":
        script.run("systemctl", "enable", "--quiet", TARGET)
    start, repair = [], []
    for port in (port for overlay in plan.overlays for port in overlay.ports):
        unit = state.units.get(unit_of(port.name))
        if unit is None or unit.active != "active":
            start.append(unit_of(port.name))
        elif f"{ETC}/containers/{port.name}.conf" in script.files or not _attached(port, state):
            repair.append(unit_of(port.name))
    if start:
        script.run("systemctl", "start", *start)
    if repair:
        script.run("systemctl", "reload", *repair)


def retire(plan: HostPlan, state: HostState, script: Script) -> None:
    """Ports that the plan does not have, with their namespaces, and whatever looks like ours and is not."""
    ports = {port.name for overlay in plan.overlays for port in overlay.ports}
    namespaces = {port.netns for overlay in plan.overlays for port in overlay.ports}
    stop = [
        unit
        for unit in sorted(state.units)
        if (found := _PORT_UNIT.fullmatch(unit)) and found[1] not in ports and state.units[unit].active != "inactive"
    ]
    if stop:
        script.run("systemctl", "stop", *stop, early=True)
    stopped = {found[1] for unit in stop if (found := _PORT_UNIT.fullmatch(unit))}
    for name in sorted(state.links):
        if name.startswith("pnc") and name not in ports | stopped:
            script.run("ip", "link", "delete", "dev", name)
    for name in sorted(state.namespaces):
        if _OWN_NETNS.fullmatch(name) and name not in namespaces:
            script.after.append(f"[ ! -e /run/netns/{name} ] || ip netns delete {name}")


def _attached(port: Port, state: HostState) -> bool:
    link, inside = state.links.get(port.name), state.namespaces.get(port.netns)
    return (
        link is not None
        and inside is not None
        and link.index == inside.outer
        and link.up
        and link.master == port.bridge
        and link.mtu == port.mtu
        and link.mac == port.host_mac
        and link.port.get("learning") is False
        and link.port.get("flood") is False
        and link.port.get("guard") is True
        and port.mac in state.port_macs.get(port.name, frozenset())
        and inside.up
        and inside.mac == port.mac
        and inside.mtu == port.mtu
        and inside.addresses == {f"{port.address}/{port.length}"}
    )
