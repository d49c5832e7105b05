"""The mesh: the interface, and exactly the planned peers."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from privnet.audit.actual import Actual, Peer
from privnet.audit.checks.guard import barrier_of
from privnet.audit.finding import NOTHING, Deviation, Finding, about, compare
from privnet.diagnostics import plural
from privnet.plan.host import HostPlan

INTERFACE = "privnet"
KINDS = ("wireguard", "tun")
"""In the kernel, or by wireguard-go."""


def check(plan: HostPlan, actual: Actual) -> Finding:
    """Address, MTU, port, and for each peer key, endpoint and its one /32."""
    mesh = plan.mesh
    seen = f"{plural(len(mesh.peers), 'peer')}, {mesh.address}, MTU {mesh.mtu}"
    link = actual.links.get(INTERFACE)
    if link is None or link.kind not in KINDS or actual.wireguard is None:
        what = "no WireGuard interface" if link else NOTHING
        missing = Deviation(f"interface {INTERFACE}", "a WireGuard interface", what)
        return Finding(seen, tuple(about(f"device {INTERFACE}", [missing], "unit wg-quick@privnet.service")))
    addresses = sorted(a for a in actual.addresses.get(INTERFACE, ()) if not a.startswith("fe80:"))
    deviations = [
        *compare(f"{INTERFACE}: address", f"{mesh.address}/{mesh.length}", " ".join(addresses) or NOTHING),
        *compare(f"{INTERFACE}: MTU", mesh.mtu, link.mtu),
        *compare(f"{INTERFACE}: state", "up", "up" if link.up else "down"),
        # What joins datagrams hands the guard several as one (mesh.sh).
        *compare(f"{INTERFACE}: datagrams", "one by one", "joined" if link.data.get("vnet_hdr") else "one by one"),
        *compare(f"{INTERFACE}: UDP port", str(mesh.port), actual.wireguard.port),
        *compare(f"{INTERFACE}: fwmark", "off", actual.wireguard.fwmark),
        *([] if actual.ipv6_off.get(INTERFACE, True) else [Deviation(f"{INTERFACE}: IPv6", "off", "on")]),
        *about("", _routes(plan, actual), f"{INTERFACE}: state", f"{INTERFACE}: address"),
        *(Deviation(f"peer {name}", "a peer", "no key of it in the lock file: deploy first") for name in mesh.pending),
        *_peers(plan, actual.wireguard.peers),
    ]
    return Finding(seen, tuple(deviations))


def _routes(plan: HostPlan, actual: Actual) -> Iterator[Deviation]:
    """One route into the mesh, by which packets are as large as planned whatever ICMP says; no way past it."""
    mesh = plan.mesh
    prefix = ipaddress.IPv4Network(mesh.prefix)
    planned = f"{prefix} dev {INTERFACE} proto kernel scope link src {mesh.address} mtu lock {mesh.mtu}"
    own = {route for route in actual.routes if f" dev {INTERFACE} " in f"{route} "}
    others = {route for route in actual.routes - own if _leads_into(prefix, route)} - {barrier_of(mesh)}
    if planned not in own:
        instead = sorted(route for route in own if route.startswith(f"{prefix} ") and " table " not in route)
        yield Deviation(f"{INTERFACE}: route", planned, " and ".join(instead) or NOTHING)
        own -= {*instead}
    for route in sorted((own | others) - {planned}):
        yield Deviation(f"{INTERFACE}: route", NOTHING, route)


def _leads_into(prefix: ipaddress.IPv4Network, route: str) -> bool:
    words = route.split()
    destination = words[1] if words[0].isalpha() and words[0] != "default" else words[0]
    try:
        return ipaddress.IPv4Network(destination).subnet_of(prefix)
    except ValueError:  # `default`
        return False


def _peers(plan: HostPlan, actual: Mapping[str, Peer]) -> Iterator[Deviation]:
    found = dict(actual)
    for peer in plan.mesh.peers:
        present = found.pop(peer.public_key, None)
        subject = f"peer {peer.host}"
        if present is None:
            yield Deviation(subject, peer.public_key, NOTHING)
            continue
        yield from compare(f"{subject}: allowed addresses", f"{peer.address}/32", present.allowed)
        yield from compare(f"{subject}: endpoint", peer.endpoint, present.endpoint)
        yield from compare(f"{subject}: keepalive", "off", present.keepalive)
        yield from compare(f"{subject}: preshared key", "no", present.preshared)
    for key, present in sorted(found.items()):
        yield Deviation("peer", NOTHING, f"stray {key} at {present.endpoint} for {present.allowed}")
