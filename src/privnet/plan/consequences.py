"""What is accepted, and may surprise whoever deploys it: warnings about a whole plan."""

from __future__ import annotations

from collections.abc import Iterator

from privnet.diagnostics import Problem, plural, some
from privnet.load import Declaration
from privnet.model.lock import Lock, NetworkLock
from privnet.plan.host import Plan

TUNNELS_AT_MOST = 250_000
"""Tunnel ends of a fleet that are usual: as many as 500 hosts have of which each shares a network with each."""


def consequences(declaration: Declaration, known: Lock, lock: Lock, plan: Plan) -> Iterator[Problem]:
    """Warnings about a plan, and about the way to it from the numbers that running hosts have."""
    yield from _tunnels(declaration, plan)
    yield from _families(declaration, plan)
    yield from _placed_on_hosts_that_are_out(declaration, lock)
    for network_id, now in lock.networks.items():
        before = known.networks.get(network_id)
        if before is not None and before.slots:
            yield from _renumbered(declaration, network_id, before, now)


def _tunnels(declaration: Declaration, plan: Plan) -> Iterator[Problem]:
    peers = {name: len(host.mesh.peers) + len(host.mesh.pending) for name, host in plan.hosts.items()}
    total = sum(peers.values())
    if total <= TUNNELS_AT_MOST:
        return
    most = max(peers, key=peers.__getitem__)
    networks = sorted(plan.hosts[most].overlays, key=lambda overlay: -len(overlay.network.hosts))[:1]
    widest = "".join(f"; the widest network on it is that of `{o.network.project}`" for o in networks)
    yield Problem(
        "PN703",
        f"the mesh would have {total:,} tunnel ends",
        declaration.place("hosts", most),
        f"this host alone is a peer of {plural(peers[most], 'host')}",
        "each is a section of a file, a route and a handshake, and grows with the square of the hosts that share a "
        "network" + widest,
        "place a network on fewer hosts, or divide the fleet",
        severity="warning",
    )


def _families(declaration: Declaration, plan: Plan) -> Iterator[Problem]:
    """One warning a network: each host hears WireGuard from the endpoints of its peers alone (`guard.sh`)."""
    hosts, port = declaration.fleet.hosts, declaration.fleet.wireguard.port
    for network in plan.networks.values():
        places = {name: hosts[name].wireguard_endpoint(port)[0] for name in sorted(network.hosts)}
        six = [name for name, address in places.items() if ":" in address]
        four = [name for name in places if name not in six]
        if not six or not four:
            continue
        one, other = four[0], six[0]
        yield Problem(
            "PN705",
            f"`{one}` ({places[one]}) and `{other}` ({places[other]}) share private network {network.id} (project "
            f"`{network.project}`), and no address family",
            declaration.place("hosts", other, "endpoint" if hosts[other].endpoint else "address"),
            note="each hears its peers from their endpoints alone: no packet passes between them",
            help="give the hosts of a network endpoints of one family",
            severity="warning",
        )


def _placed_on_hosts_that_are_out(declaration: Declaration, lock: Lock) -> Iterator[Problem]:
    """One warning a host: its containers are declared, and nobody reaches them."""
    slots = {slot: at.host for network in lock.networks.values() for slot, at in network.slots.items()}
    for host in declaration.fleet.out:
        placed = [slot for slot, where in slots.items() if where == host]
        if placed:
            yield Problem(
                "PN706",
                f"{plural(len(placed), 'container')} on `{host}` {'counts' if len(placed) == 1 else 'count'} as not "
                f"running: {some(placed)}",
                declaration.place("hosts", host, "state"),
                "it is out of service",
                "no other host has them in its names, its forwarding or its guard; their addresses stay their own",
                "place them on other hosts, or delete `state: out` when the host is to serve again",
                severity="warning",
            )


def _renumbered(declaration: Declaration, network_id: str, before: NetworkLock, now: NetworkLock) -> Iterator[Problem]:
    name = f"private network {network_id} (project `{now.project}`)"
    if before.vni != now.vni:
        yield Problem(
            "PN704",
            f"{name} gets VNI {now.vni} instead of {before.vni}",
            declaration.project_place(now.project, "private_network", "vni"),
            note=f"its {plural(len(before.slots), 'container')} are attached to another bridge, host by host: "
            "they do not all reach each other while a run goes on",
            help=f"if that is not meant, write `vni: {before.vni}` in the network",
            severity="warning",
        )
    if before.cidr == now.cidr:
        return
    kept = before.slots.keys() & now.slots.keys()
    moved = [slot for slot in kept if before.slots[slot].address != now.slots[slot].address]
    if moved:
        yield Problem(
            "PN704",
            f"{name} gets {now.cidr} instead of {before.cidr}: {len(moved):,} of its "
            f"{plural(len(before.slots), 'container')} get other addresses",
            declaration.project_place(now.project, "private_network", "cidr"),
            note="connections to the old addresses end; names lead to the new ones",
            help=f"if that is not meant, write `cidr: {before.cidr}` in the network",
            severity="warning",
        )
