"""Overlays: bridges and VXLAN devices, and their forwarding tables exactly as planned."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from privnet.audit.actual import Actual, Forwarding, Link
from privnet.audit.finding import NOTHING, Deviation, Finding, about, compare, compare_tables
from privnet.diagnostics import plural
from privnet.plan.host import HostPlan
from privnet.plan.overlay import Overlay

_OWN = re.compile(r"pn[bx].*")
_ANY_OF_OURS = re.compile(r"privnet|pn[bxcu].*")
BRIDGE = {
    "stp_state": (0, "STP"),
    "ageing_time": (0, "ageing time"),
    "mcast_snooping": (0, "multicast snooping"),
    "vlan_filtering": (0, "VLAN filtering"),
    "group_fwd_mask": ("0", "link-local groups that it forwards"),
    "nf_call_iptables": (0, "frames through iptables"),
    "nf_call_ip6tables": (0, "frames through ip6tables"),
    "nf_call_arptables": (0, "frames through arptables"),
}
"""Settings of a bridge with their names: a bridge that ages nothing learns nothing."""
OFF = (
    "hairpin", "guard", "root_block", "fastleave", "learning", "proxy_arp", "proxy_arp_wifi", "mcast_to_unicast",
    "neigh_suppress", "vlan_tunnel", "isolated", "locked",
)  # fmt: skip
"""Flags of a bridge's port that are off."""
_FILES = "/etc/systemd/network/05-privnet-"
"""How the files begin by which networkd sets up our devices; one of somebody else's takes them out of their bridges."""


def check(plan: HostPlan, actual: Actual) -> Finding:
    """Devices, no address on any of them, FDB and neighbours; no device of a network that has no container here."""
    # First: it is why devices are no ports of their bridges.
    deviations = [*_set_up_by_others(actual)]
    devices = set()
    for overlay in plan.overlays:
        devices |= {overlay.network.bridge, overlay.network.vxlan}
        deviations += _bridge(overlay, actual)
        deviations += _vxlan(overlay, plan.guard.vxlan_port, actual)
    deviations += _guests(plan, actual)
    for name in sorted(actual.links):
        if _OWN.fullmatch(name) and name not in devices:
            deviations.append(Deviation(f"device {name}", NOTHING, f"a stray {actual.links[name].kind or 'device'}"))
    remotes = sum(len(overlay.remotes) for overlay in plan.overlays)
    seen = f"{plural(len(plan.overlays), 'network')}, {remotes} forwarding entries and neighbours"
    return Finding(seen, tuple(deviations))


def _set_up_by_others(actual: Actual) -> Iterator[Deviation]:
    for name, link in sorted(actual.links.items()):
        path = actual.setups.get(link.index, _FILES)
        if _ANY_OF_OURS.fullmatch(name) and not path.startswith(_FILES):
            yield Deviation(f"{name}: set up by", "no file of others", path)


def _bridge(overlay: Overlay, actual: Actual) -> Iterator[Deviation]:
    network = overlay.network
    name, link = network.bridge, actual.links.get(network.bridge)
    if link is None or link.kind != "bridge":
        missing = Deviation(f"device {name}", "a bridge", link.kind or "a device" if link else NOTHING)
        yield from about(f"device {name}", [missing])
        return
    yield from _device(name, link, network.mtu, network.bridge_mac)
    for key, (value, what) in BRIDGE.items():
        yield from compare(f"{name}: {what}", value, link.data.get(key, value))
    yield from compare(f"{name}: master", NOTHING, link.master or NOTHING)
    yield from no_address(name, actual)
    own = [entry for entry in actual.fdb if entry.device == name]
    yield from (_stray(entry) for entry in own if not _kernel_made(entry, network.bridge_mac))


def _guests(plan: HostPlan, actual: Actual) -> Iterator[Deviation]:
    """Devices of others in a bridge of ours or upon a device of ours. One that is named like ours is told as stray."""
    bridges = {overlay.network.bridge for overlay in plan.overlays}
    for name, link in sorted(actual.links.items()):
        kind = link.kind or "device"
        if _ANY_OF_OURS.fullmatch(name):
            continue
        if link.master in bridges:
            yield Deviation(f"{link.master}: port {name}", NOTHING, f"a foreign {kind}")
        if _ANY_OF_OURS.fullmatch(link.upon):
            yield Deviation(f"{link.upon}: device {name} on it", NOTHING, f"a foreign {kind}")


def _vxlan(overlay: Overlay, port: int, actual: Actual) -> Iterator[Deviation]:
    network = overlay.network
    name, link = network.vxlan, actual.links.get(network.vxlan)
    if link is None or link.kind != "vxlan":
        missing = Deviation(f"device {name}", "a VXLAN device", link.kind or "a device" if link else NOTHING)
        yield from about(f"device {name}", [missing])
        return
    yield from _device(name, link, network.mtu, overlay.mac, f"unit privnet-overlay@{network.vni}.service")
    yield from compare(f"{name}: VNI", network.vni, link.data.get("id"))
    yield from compare(f"{name}: local", overlay.vtep, link.data.get("local"))
    yield from compare(f"{name}: port", port, link.data.get("port"))
    # One source port, whatever the flow inside: else a container fills the connection tracking of hosts.
    yield from compare(f"{name}: source ports", f"{min(port, 65534)} alone", _source_ports(link))
    yield from compare(f"{name}: learning", False, link.data.get("learning", False))
    yield from compare(f"{name}: proxy", True, link.data.get("proxy", False))
    yield from compare(f"{name}: remote", NOTHING, link.data.get("remote") or link.data.get("group") or NOTHING)
    master = compare(f"{name}: master", network.bridge, link.master or NOTHING)
    yield from about("", master, f"device {network.bridge}")
    if link.master:
        yield from port_flags(name, link, {"flood": True})
    yield from no_address(name, actual)
    yield from _tables(overlay, actual)


def _source_ports(link: Link) -> str:
    found = link.data.get("port_range")
    low, high = (found.get("low", 0), found.get("high", 0)) if isinstance(found, dict) else (0, 0)
    return f"{low} alone" if high == low + 1 else f"{low} to {high}"


def _tables(overlay: Overlay, actual: Actual) -> Iterator[Deviation]:
    name = overlay.network.vxlan
    entries: dict[str, str] = {}
    for entry in actual.fdb:
        if entry.device != name or _kernel_made(entry, overlay.mac):
            continue
        word, destination, *flags = *entry.words, "", ""
        if word != "dst" or not set(flags) <= {"self", "static", "permanent", ""}:
            destination = " ".join(entry.words)
        entries[entry.mac] = f"{entries[entry.mac]} and {destination}" if entry.mac in entries else destination
    wanted = {remote.container.mac: remote.vtep for remote in overlay.remotes}
    yield from compare_tables(wanted, entries, f"FDB of {name}")
    neighbours = {
        neighbour.address: f"{neighbour.mac} {neighbour.state}".removesuffix(" PERMANENT")
        for neighbour in actual.neighbours
        if neighbour.device == name and neighbour.mac and not neighbour.address.startswith("ff")
    }
    planned = {remote.container.address: remote.container.mac for remote in overlay.remotes}
    for deviation in compare_tables(planned, neighbours, f"neighbours of {name}"):
        # The kernel forgets the neighbours of a device that goes down, and nothing else of it.
        gone = deviation.actual == NOTHING
        yield from about("", [deviation], *([f"state of {name}"] if gone else []))


def _device(name: str, link: Link, mtu: int, mac: str, *stands_on: str) -> Iterator[Deviation]:
    yield from compare(f"{name}: MTU", mtu, link.mtu)
    yield from compare(f"{name}: MAC", mac, link.mac)
    yield from about(f"state of {name}", compare(f"{name}: state", "up", "up" if link.up else "down"), *stands_on)


def no_address(name: str, actual: Actual) -> Iterator[Deviation]:
    """A host takes no part in a private network."""
    for address in sorted(actual.addresses.get(name, ())):
        yield Deviation(f"{name}: address", NOTHING, address)
    # A host without IPv6 has no such switch.
    if not actual.ipv6_off.get(name, True):
        yield Deviation(f"{name}: IPv6", "off", "on")
    for route in sorted(actual.routes):
        if f" dev {name} " in f"{route} ":
            yield Deviation(f"{name}: route", NOTHING, route)


def port_flags(name: str, link: Link, flags: Mapping[str, bool]) -> Iterator[Deviation]:
    """Flags of a bridge port; but for ``flags`` each is as the kernel makes it, and it learns nothing."""
    wanted = {**dict.fromkeys(OFF, False), "mcast_flood": True, "bcast_flood": True, **flags}
    for flag, value in sorted(wanted.items()):
        yield from compare(f"{name}: {flag}", "on" if value else "off", "on" if link.port.get(flag, value) else "off")
    yield from compare(f"{name}: group_fwd_mask", "0", str(link.port.get("group_fwd_mask", "0")))
    if link.up:
        yield from compare(f"{name}: forwarding", "forwarding", str(link.port.get("state")))


def _kernel_made(entry: Forwarding, own_mac: str) -> bool:
    """The device's own MAC, and the multicast groups that the host listens to: no way to another host among them."""
    words = set(entry.words)
    if words & {"dst", "via", "port", "vni"}:
        return False
    multicast = int(entry.mac[:2], 16) & 1
    return "permanent" in words and (entry.mac == own_mac or bool(multicast and "self" in words))


def _stray(entry: Forwarding) -> Deviation:
    return Deviation(f"FDB of {entry.device}: {entry.mac}", NOTHING, " ".join(entry.words) or "an entry")


def port_entries(name: str, host_mac: str, actual: Actual) -> dict[str, str]:
    """The MACs that a bridge has behind a container port."""
    return {
        entry.mac: " ".join(entry.words)
        for entry in actual.fdb
        if entry.device == name and not _kernel_made(entry, host_mac)
    }
