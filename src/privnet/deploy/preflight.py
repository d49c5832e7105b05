"""What must hold on a host before anything is changed there, judged from its answer. Pure.

Each reason names what is found, why private networks cannot live with it, and what to do.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping

from privnet.deploy import answering, foreign, guests, networkd, ways
from privnet.deploy.changes.host import USERSPACE
from privnet.deploy.changes.mesh import INTERFACE
from privnet.deploy.state import HostState
from privnet.plan.host import HostPlan

CLOCK_SECONDS = 120
"""How far a host's clock may be from this machine's: logs, leases and certificates are compared across hosts."""
FREE_BYTES = 50 * 2**20
FREE_FILES = 1000
OLDEST: Mapping[str, tuple[int, ...]] = {
    # Debian 12's: nothing older was ever tried.
    "dnsmasq-base": (2, 89),
    "iproute2": (6, 1),
    "nftables": (1, 0, 6),
    "wireguard-tools": (1, 0, 20210914),
}
OLDEST_SYSTEMD = 252
JOINS_DATAGRAMS = (0, 0, 20231211)
"""The first wireguard-go that hands several datagrams to the kernel as one: the guard looks at the first alone."""
_UPGRADE = "upgrade to Debian 12 or newer"


def obstacles(plan: HostPlan, state: HostState, now: float) -> Iterator[str]:
    """Why this host has to be left alone.

    :param now: this machine's clock, in seconds since the epoch
    """
    yield from foreign.obstacles(plan, state)
    yield from answering.obstacles(plan, state)
    yield from guests.obstacles(plan, state)
    yield from _room(state)
    yield from _clock(state, now)
    yield from _versions(state)
    yield from _joins_datagrams(state)
    yield from _ports(plan, state)
    yield from _routes(plan, state)
    yield from ways.obstacles(plan, state)
    yield from networkd.obstacles(plan, state)


def twins(states: Mapping[str, HostState]) -> dict[str, str]:
    """Hosts that are copies of another, by their machine-id, each with the name of that other."""
    first: dict[str, str] = {}
    found = {}
    for name, state in sorted(states.items()):
        other = first.setdefault(state.machine, name)
        if state.machine and other != name:
            found[name], found[other] = other, name
    return found


def _room(state: HostState) -> Iterator[str]:
    for path, disk in sorted(state.disks.items()):
        if disk.free < FREE_BYTES:
            left, needed = disk.free // 2**20, FREE_BYTES // 2**20
            yield f"the file system of {path} has {left} MiB left, a run needs {needed}: make room there"
        # Some file systems do not count them, and say 0.
        elif 0 < disk.files < FREE_FILES:
            left, needed = disk.files, FREE_FILES
            yield f"the file system of {path} can hold {left} more files, a run needs {needed}: make room there"


def _clock(state: HostState, now: float) -> Iterator[str]:
    away = state.clock - now
    if abs(away) > CLOCK_SECONDS:
        side = "ahead of" if away > 0 else "behind"
        yield (
            f"its clock is {_span(abs(away))} {side} this machine's. A host whose clock is set back cannot begin "
            "WireGuard sessions with peers that saw a later time: let a time service set it (`timedatectl`)"
        )


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _versions(state: HostState) -> Iterator[str]:
    for package, oldest in OLDEST.items():
        found = state.packages.get(package)
        if found is not None and _upstream(found) < oldest:
            yield f"its {package} has version {found}, private networks need {_dotted(oldest)}: {_UPGRADE}"
    systemd = re.match("[0-9]+", state.systemd_version)
    if systemd and int(systemd[0]) < OLDEST_SYSTEMD:
        yield f"its systemd has version {systemd[0]}, private networks need {OLDEST_SYSTEMD}: {_UPGRADE}"


def _joins_datagrams(state: HostState) -> Iterator[str]:
    mesh = state.links.get(INTERFACE)
    found = "" if state.kernel_wireguard else state.packages.get(USERSPACE, "")
    if (mesh is not None and mesh.data.get("vnet_hdr")) or (found and _upstream(found) >= JOINS_DATAGRAMS):
        yield (
            f"its kernel has no WireGuard, and its {USERSPACE} {found or 'in use'} joins datagrams, which the guard "
            "cannot look into: a taken-over host could speak there as any container. Boot a kernel that has WireGuard, "
            f"as Debian's have, or install {USERSPACE} 0.0.20220316"
        )


def _upstream(version: str) -> tuple[int, ...]:
    """The numbers of a Debian version without its epoch and revision (deb-version(7))."""
    return tuple(int(part) for part in re.findall("[0-9]+", version.partition(":")[2] or version)[: _parts(version)])


def _parts(version: str) -> int:
    upstream = (version.partition(":")[2] or version).partition("-")[0]
    return len(re.findall("[0-9]+", upstream))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _ports(plan: HostPlan, state: HostState) -> Iterator[str]:
    # What has the port is the mesh itself, unless that has another one.
    others = state.mesh is None or state.mesh.port != plan.mesh.port
    if others and plan.mesh.port in state.listening:
        yield (
            f"another program there uses UDP port {plan.mesh.port}, which the mesh needs: `ss -lunp` shows which; "
            "end it, or give the fleet another `wireguard.port`"
        )
    elif others and plan.mesh.port in state.clients:
        yield (
            f"a program there has UDP port {plan.mesh.port}, which the mesh needs, as the port of a connection: run "
            "again when it has ended. To keep the port from connections: "
            f"`sysctl -w net.ipv4.ip_local_reserved_ports={plan.mesh.port}`, and the same in /etc/sysctl.d"
        )
    port = plan.guard.vxlan_port
    yield from _hidden(plan, state)
    for name, link in sorted(state.links.items()):
        if link.kind == "vxlan" and not name.startswith("pnx") and link.data.get("port") == port:
            yield (
                f"its VXLAN device {name}, which is not privnet's, uses UDP port {port}: the guard would stop its "
                "traffic. Give it another port, or the fleet another `vxlan.port`"
            )


def _hidden(plan: HostPlan, state: HostState) -> Iterator[str]:
    """VXLAN devices that were made in the host's namespace and moved to another one, as engines do for their overlays.

    The kernel then uses the port, without a process. Where a device of ours does too, only its namespace tells of it.
    """
    port = plan.guard.vxlan_port
    seen = [hidden for hidden in state.hidden if hidden.port == port]
    for hidden in seen:
        yield (
            f"its VXLAN device {hidden.device} (VNI {hidden.vni}) in namespace {hidden.namespace} of a container "
            f"engine uses UDP port {port} of the host: the guard would stop its traffic. Give the fleet another "
            "`vxlan.port`, or the engine another one (`docker swarm init --data-path-port`)"
        )
    vxlan = [link for link in state.links.values() if link.kind == "vxlan" and link.data.get("port") == port]
    if port in state.listening and not seen and not any(link.up or link.name[:3] != "pnx" for link in vxlan):
        yield (
            f"something there uses UDP port {port}, which the overlays need: `ss -lunp` shows which program; where it "
            "names none, a VXLAN or Geneve device that was moved to another network namespace, as container engines "
            "do. End it, or give the fleet another `vxlan.port`"
        )


def _routes(plan: HostPlan, state: HostState) -> Iterator[str]:
    mesh = ipaddress.IPv4Network(plan.mesh.prefix)
    for destination, device in state.routes:
        # A wider route is no clash: the mesh's own is the more specific one.
        if device != INTERFACE and _lies_in(destination, mesh):
            yield (
                f"its route {destination} by {device} lies inside the mesh's prefix {mesh}: what is for other hosts "
                "would go there. Take the route away, or give the fleet another `wireguard.mesh`"
            )

    passed_on = {table for where, device, table in state.earlier if device == "throw" and _holds(where, mesh)}
    for destination, device, table in state.earlier:
        inside = _lies_in(destination, mesh)
        if device not in (INTERFACE, "throw") and (inside or (table not in passed_on and _holds(destination, mesh))):
            yield (
                f"its route {destination} by {device} in table {table}, which is asked before the main one, "
                f"{'lies inside' if inside else 'holds'} the mesh's prefix {mesh}: what is for other hosts would go "
                "there. Take the route away, or give the fleet another `wireguard.mesh`"
            )


def _holds(destination: str, mesh: ipaddress.IPv4Network) -> bool:
    try:
        return destination == "default" or ipaddress.IPv4Network(destination, strict=False).supernet_of(mesh)
    except ValueError:
        return False


def _lies_in(destination: str, mesh: ipaddress.IPv4Network) -> bool:
    try:
        return ipaddress.IPv4Network(destination, strict=False).subnet_of(mesh)
    except ValueError:  # `default`, or what is no address
        return False
