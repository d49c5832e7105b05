"""The mesh: only peers that differ are touched, since a sync of the whole list would stop all of them for a moment."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from privnet.deploy.changes.files import differs
from privnet.deploy.script import Script
from privnet.deploy.state import HostState, MeshState
from privnet.plan.host import HostPlan
from privnet.plan.mesh import Mesh, Peer
from privnet.plan.printable import NotPrintable, checked
from privnet.render import ETC, KEY, ManagedFile, mesh_text, peer_block

INTERFACE = "privnet"
UNIT = "wg-quick@privnet.service"
IPV6_MTU = 1280
"""A device with less has no IPv6 (RFC 8200, 5)."""


def add(plan: HostPlan, state: HostState, script: Script) -> None:
    """The file a boot reads, and in the running mesh: new and changed peers, key, port, address, MTU."""
    mesh = plan.mesh
    _write(_with_leaving(mesh, state), state, script)
    if state.enabled.get(UNIT) != "enabled":
        script.run("systemctl", "enable", "--quiet", UNIT)
    unit, running = state.units.get(UNIT), state.mesh
    active = unit is not None and unit.active == "active"
    script.disturbs |= _tunnels(mesh, state) != (mesh.port, "off", mesh.mtu, state.public_key)
    if not active or running is None or INTERFACE not in state.links:
        # Active without its interface: wireguard-go was killed, and only a restart brings a new one. An interface
        # without its unit works: the unit takes it over, with all that is in the file.
        script.run("sh", f"{ETC}/lib/mesh.sh", "up", "restart" if active else "start")
        return
    if state.public_key is not None and running.public_key != state.public_key:
        script.run("wg", "set", INTERFACE, "private-key", KEY)
    if running.port != mesh.port:
        script.run("wg", "set", INTERFACE, "listen-port", mesh.port)
    if running.fwmark != "off":
        script.run("wg", "set", INTERFACE, "fwmark", "0")
    for peer in mesh.peers:
        if (found := running.peers.get(peer.public_key)) and found.preshared != "no":
            # A file of peers can give a key, and not take one.
            script.run("wg", "set", INTERFACE, "peer", peer.public_key, "preshared-key", "/dev/null")
    others = [peer for peer in mesh.peers if not _is_running(peer, state)]
    changed = [peer for peer in others if _is_known(peer, running)]
    script.disturbs |= bool(changed)
    # Apart, since only the first are felt. addconf, not syncconf: it touches the peers it is given and nothing else.
    for name, peers in (("peers.conf", changed), ("new-peers.conf", [peer for peer in others if peer not in changed])):
        if peers:
            script.feed(name, "".join(map(peer_block, peers)).splitlines(), "wg", "addconf", INTERFACE)
    _interface(mesh, state, script)


def retire(plan: HostPlan, state: HostState, script: Script) -> None:
    """Peers that share no network any more."""
    leaving = _leaving(plan.mesh, state)
    for peer in leaving:
        script.run("wg", "set", INTERFACE, "peer", peer.public_key, "remove")
    if leaving:
        # A peer that cannot be written down was not written by the first wave either.
        _write(plan.mesh, state, script, force=_with_leaving(plan.mesh, state) != plan.mesh)


def _interface(mesh: Mesh, state: HostState, script: Script) -> None:
    wanted = f"{mesh.address}/{mesh.length}"
    present = state.addresses.get(INTERFACE, frozenset())
    # Those of IPv6 go when it is switched off.
    strays = sorted(address for address in present if "." in address and address != wanted)
    for stray in strays:
        script.run("ip", "address", "delete", stray, "dev", INTERFACE)
    if strays or wanted not in present:
        # Afterwards: an address that came second goes with the first one of its prefix.
        script.run("ip", "address", "replace", wanted, "dev", INTERFACE)
    link = state.links[INTERFACE]
    if link.mtu != mesh.mtu or not link.up:
        script.run("ip", "link", "set", "dev", INTERFACE, "mtu", mesh.mtu, "up")
    if "ipv6" in present or link.mtu < IPV6_MTU <= mesh.mtu:
        # Afterwards: with an MTU that is large enough the kernel gives a device IPv6 anew, switched on.
        off = f"/proc/sys/net/ipv6/conf/{INTERFACE}/disable_ipv6"
        script.run("sh", "-c", f"[ ! -e {off} ] || echo 1 > {off}")
    # It comes with the address; without it the barrier behind it swallows everything for other hosts. mesh.sh says what
    # the lock is for.
    words = ("proto", "kernel", "scope", "link", "src", mesh.address, "mtu", "lock", str(mesh.mtu))
    routes = state.own_routes.get(INTERFACE, frozenset())
    planned = " ".join((mesh.prefix, *words))
    if planned not in routes:
        script.run("ip", "route", "replace", mesh.prefix, "dev", INTERFACE, *words)
    for route in sorted(routes - {planned}):
        found = route.split()
        # One for the same packets has been replaced, and one from an address goes with that.
        same = found[0] == mesh.prefix and not {"table", "metric"} & set(found)
        if not same and not any(f"src {stray.partition('/')[0]}" in route for stray in strays):
            script.run("ip", "route", "delete", found[0], "dev", INTERFACE, *_lasting(found[1:]))


def _write(mesh: Mesh, state: HostState, script: Script, force: bool = False) -> None:
    file = ManagedFile(f"{ETC}/mesh.conf", mesh_text(mesh))
    digest = hashlib.sha256(file.text.encode()).hexdigest()
    if force or differs(file, state):
        script.place(file)
    secret = state.config_mode == 0o600 and state.config_owner == "0:0"
    whole = state.config_digest == digest and secret and state.config_key == state.public_key
    if force or not whole or state.public_key is None:
        script.run("sh", f"{ETC}/lib/mesh.sh", "assemble")


def _lasting(words: list[str]) -> list[str]:
    """A route as it was made: what follows from the state of its device is no part of it."""
    return [word for word in words if word not in ("linkdown", "dead")]


def _is_running(peer: Peer, state: HostState) -> bool:
    found = state.mesh.peers.get(peer.public_key) if state.mesh else None
    return (
        found is not None
        and found.endpoint == peer.endpoint
        and found.allowed == f"{peer.address}/32"
        and found.keepalive == "off"
    )


def _tunnels(mesh: Mesh, state: HostState) -> tuple[int, str, int, str | None] | None:
    """What all tunnels of a host have in common, as it runs; None when there are none."""
    link, running = state.links.get(INTERFACE), state.mesh
    unit = state.units.get(UNIT)
    if link is None or running is None or unit is None or unit.active != "active":
        return None
    return running.port, running.fwmark, link.mtu, running.public_key


def _is_known(peer: Peer, running: MeshState) -> bool:
    """Whether there is a tunnel to a host already, by another key or to another address of it."""
    return peer.public_key in running.peers or any(f"{peer.address}/32" == p.allowed for p in running.peers.values())


def _leaving(mesh: Mesh, state: HostState) -> list[Peer]:
    """Peers that run but are not in the plan, as far as they can be written down again."""
    wanted = {peer.public_key for peer in mesh.peers}
    running = state.mesh.peers if state.mesh else {}
    return [
        Peer("leaving", key, peer.endpoint, peer.allowed.removesuffix("/32"))
        for key, peer in sorted(running.items())
        if key not in wanted
    ]


def _can_be_written(peer: Peer) -> bool:
    """A peer that somebody else has added may have no endpoint, or whole networks as its addresses."""
    try:
        checked(peer)
    except NotPrintable:
        return False
    return True


def _with_leaving(mesh: Mesh, state: HostState) -> Mesh:
    """The mesh while a run goes on: what is about to leave still works after a reboot in the middle."""
    given = {peer.address for peer in mesh.peers}
    stay = [peer for peer in _leaving(mesh, state) if peer.address not in given and _can_be_written(peer)]
    return replace(mesh, peers=(*stay, *mesh.peers)) if stay else mesh
