"""Overlays: devices from networkd, forwarding tables from us. Both are compared in the kernel, not in files."""

from __future__ import annotations

import re
from collections.abc import Mapping

from privnet.deploy.changes.files import differs, named_by_files, units_that_run
from privnet.deploy.script import Script
from privnet.deploy.state import HostState, Link
from privnet.plan.containers import MAC_PREFIX
from privnet.plan.host import HostPlan
from privnet.plan.overlay import Overlay, source_ports
from privnet.render import ETC, NETWORKD, WANTS, ManagedFile, fdb_text, neighbours_text

_OWN = re.compile(r"pn[bx]([0-9]+)")
_UNIT = re.compile(r"privnet-overlay@([0-9]{1,8})[.]service")
_FILE = re.compile(rf"(?:{ETC}/overlay/|{WANTS}/privnet-overlay@)([0-9]{{1,8}})[.](?:conf|service)")
_NETDEV = re.compile(rf"{NETWORKD}/(?:05|60)-privnet-([0-9]{{1,8}})-(?:bridge|vxlan)[.]netdev")


def unit_of(overlay: Overlay) -> str:
    """The unit that brings up an overlay's VXLAN device."""
    return f"privnet-overlay@{overlay.network.vni}.service"


def add(plan: HostPlan, state: HostState, script: Script) -> None:
    """Devices that are missing or wrong, and entries that are new; where an entry exists it stays for now."""
    wrong = [name for overlay in plan.overlays for name in _wrong_devices(overlay, plan.guard.vxlan_port, state)]
    for name in wrong:
        script.run("ip", "link", "delete", "dev", name)
    missing = [name for overlay in plan.overlays for name in _devices(overlay) if name not in state.links]
    for overlay in plan.overlays:
        if any(name in wrong or name in missing for name in _devices(overlay)):
            script.run("sh", f"{ETC}/lib/overlay.sh", "create", overlay.network.vni)
    sizes = ((overlay.network.mtu, state.links.get(overlay.network.vxlan)) for overlay in plan.overlays)
    script.disturbs |= bool(wrong) or any(link is not None and link.mtu != mtu for mtu, link in sizes)
    start, reload = [], []
    for overlay in plan.overlays:
        entries, neighbours = _superset(overlay, state)
        _write(overlay, entries, neighbours, state, script)
        unit = state.units.get(unit_of(overlay))
        rebuilt = any(name in wrong or name in missing for name in _devices(overlay))
        if unit is None or unit.active != "active":
            start.append(unit_of(overlay))
        elif rebuilt or not _runs(overlay, entries, neighbours, state):
            reload.append(unit_of(overlay))
    # One call for all: systemd does them side by side.
    if start:
        script.run("systemctl", "start", *start)
    if reload:
        script.run("systemctl", "reload", *reload)
    # A bridge that is made anew by this run loses its ports by it.
    lost = [port.name for overlay in plan.overlays if overlay.network.bridge in wrong for port in overlay.ports]
    if lost:
        script.run("systemctl", "try-reload-or-restart", *(f"privnet-container@{name}.service" for name in lost))


def switch(plan: HostPlan, state: HostState, script: Script, held: frozenset[str] = frozenset()) -> None:
    """Frames for containers that have moved go to their new host from here on, but for those that are ``held``."""
    for overlay in plan.overlays:
        present = state.fdb.get(overlay.network.vxlan, {})
        moved = [
            remote
            for remote in overlay.remotes
            if remote.container.mac not in held
            if present.get(remote.container.mac, remote.vtep) != remote.vtep
        ]
        if moved:
            entries = dict(_superset(overlay, state)[0]) | {r.container.mac: r.vtep for r in moved}
            script.place(_fdb_file(overlay, entries))
            batch = fdb_text(overlay.network.vxlan, {r.container.mac: r.vtep for r in moved})
            script.feed(f"moved.{overlay.network.vni}", batch.splitlines(), "bridge", "-batch")


def retire(plan: HostPlan, state: HostState, script: Script) -> None:
    """Entries of containers that are gone or have come here, and networks without a container here."""
    for overlay in plan.overlays:
        _retire_entries(overlay, plan.guard.vxlan_port, state, script)
    kept = {overlay.network.vni for overlay in plan.overlays}
    units = units_that_run(state, _UNIT) | named_by_files(state, _FILE)
    stray = {vni for vni in units if int(vni) not in kept}
    script.end((f"privnet-overlay@{vni}.service" for vni in stray), state.failed)
    # networkd makes devices for files that it finds, so a device that was not there may be there by now.
    made = named_by_files(state, _NETDEV) | stray
    devices = {f"pn{kind}{vni}" for vni in made if int(vni) not in kept for kind in "bx"}
    devices |= {name for name in state.links if (found := _OWN.fullmatch(name)) and int(found[1]) not in kept}
    for name in sorted(devices, reverse=True):  # pnx before pnb
        script.after.append(f"[ ! -e /sys/class/net/{name} ] || ip link delete dev {name}")


def _retire_entries(overlay: Overlay, vxlan_port: int, state: HostState, script: Script) -> None:
    network = overlay.network
    # A device that the first wave has made anew has what that wave has written down.
    anew = network.vxlan in _wrong_devices(overlay, vxlan_port, state)
    present, neighbours = (
        _superset(overlay, state)
        if anew
        else (state.fdb.get(network.vxlan, {}), state.neighbours.get(network.vxlan, {}))
    )
    wanted, known = _wanted(overlay)
    stray = [(mac, present[mac]) for mac in sorted(present) if mac not in wanted]
    stray += () if anew else state.flooded.get(network.vxlan, ())
    unknown = [address for address in sorted(neighbours) if address not in known]
    if stray:
        lines = [f"fdb delete {mac} dev {network.vxlan} dst {vtep} self" for mac, vtep in stray]
        script.feed(f"fdb.{network.vni}", lines, "bridge", "-batch")
    if unknown:
        lines = [f"neighbour delete {address} dev {network.vxlan}" for address in unknown]
        script.feed(f"neighbours.{network.vni}", lines, "ip", "-batch")
    # The first wave has written down what was about to leave, but not what no host of the plan could have put there.
    entries, addresses = _superset(overlay, state)
    if entries.keys() != wanted.keys():
        script.place(_fdb_file(overlay, wanted))
    if addresses.keys() != known.keys():
        script.place(_neighbours_file(overlay, known))


def _devices(overlay: Overlay) -> tuple[str, str]:
    return overlay.network.bridge, overlay.network.vxlan


def _wrong_devices(overlay: Overlay, vxlan_port: int, state: HostState) -> list[str]:
    """Devices whose fixed properties are not the plan's: networkd 252 ignores such a change (systemd #9627)."""
    network = overlay.network
    bridge, vxlan = state.links.get(network.bridge), state.links.get(network.vxlan)
    wrong = []
    if bridge is not None and bridge.kind != "bridge":
        wrong.append(network.bridge)
    if vxlan is not None:
        low, high = source_ports(vxlan_port)
        wanted = {
            "id": network.vni,
            "local": overlay.vtep,
            "port": vxlan_port,
            "port_range": {"low": low, "high": high},
            "learning": False,
            "proxy": True,
        }
        # iproute2 leaves false flags out of its JSON, or prints them.
        found = {key: vxlan.data.get(key, False) for key in wanted}
        # Where it would send what it knows no way for.
        elsewhere = vxlan.data.get("remote") or vxlan.data.get("group")
        if vxlan.kind != "vxlan" or found != wanted or vxlan.mac != overlay.mac or elsewhere:
            wrong.append(network.vxlan)
    return wrong


def _wanted(overlay: Overlay) -> tuple[dict[str, str], dict[str, str]]:
    """MAC to VTEP, and address to MAC, of the plan."""
    entries = {remote.container.mac: remote.vtep for remote in overlay.remotes}
    return entries, {remote.container.address: remote.container.mac for remote in overlay.remotes}


def _superset(overlay: Overlay, state: HostState) -> tuple[dict[str, str], dict[str, str]]:
    """The plan's entries and the running ones; where both have a destination for a MAC, the running one."""
    entries, neighbours = _wanted(overlay)
    vxlan = overlay.network.vxlan
    # Only a container's entry can be on its way out; one that floods cannot even be written again (EOPNOTSUPP).
    present = state.fdb.get(vxlan, {}).items()
    running = {mac: vtep for mac, vtep in present if mac.startswith(MAC_PREFIX) and " " not in vtep}
    # A MAC is a function of its address: another one is nobody's, on no way anywhere, and can be no one of ours.
    answered = state.neighbours.get(vxlan, {}).items()
    known = {address: mac for address, mac in answered if mac.startswith(MAC_PREFIX) and " " not in mac}
    return entries | running, known | neighbours


def _write(
    overlay: Overlay, entries: Mapping[str, str], neighbours: Mapping[str, str], state: HostState, script: Script
) -> None:
    for file in (_fdb_file(overlay, entries), _neighbours_file(overlay, neighbours)):
        if differs(file, state):
            script.place(file)


def _fdb_file(overlay: Overlay, entries: Mapping[str, str]) -> ManagedFile:
    return ManagedFile(f"{ETC}/overlay/{overlay.network.vni}.fdb", fdb_text(overlay.network.vxlan, entries))


def _neighbours_file(overlay: Overlay, neighbours: Mapping[str, str]) -> ManagedFile:
    network = overlay.network
    return ManagedFile(f"{ETC}/overlay/{network.vni}.neighbours", neighbours_text(network.vxlan, neighbours))


def _runs(overlay: Overlay, entries: Mapping[str, str], neighbours: Mapping[str, str], state: HostState) -> bool:
    """Whether the kernel has the devices as they are to be, and every entry that this wave wants."""
    network = overlay.network
    bridge, vxlan = state.links[network.bridge], state.links[network.vxlan]
    return (
        _is_up(bridge, network.mtu)
        and bridge.mac == network.bridge_mac
        and bridge.is_bridge()
        and _is_up(vxlan, network.mtu)
        and vxlan.master == network.bridge
        and not bridge.master
        and _takes_no_part(bridge, state)
        and _takes_no_part(vxlan, state)
        and vxlan.is_port()
        # What is there and nobody's goes by the last wave.
        and entries.items() <= state.fdb.get(network.vxlan, {}).items()
        and neighbours.items() <= state.neighbours.get(network.vxlan, {}).items()
    )


def _takes_no_part(link: Link, state: HostState) -> bool:
    """A host has no address or route in a private network, and a bridge no MAC that somebody has put there."""
    own = state.port_macs.get(link.name, frozenset()) <= {link.mac}
    return own and not state.addresses.get(link.name) and not state.own_routes.get(link.name)


def _is_up(link: Link, mtu: int) -> bool:
    return link.up and link.mtu == mtu
