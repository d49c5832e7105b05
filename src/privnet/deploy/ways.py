"""How a host reaches its peers on the underlay, judged from what its kernel says of each endpoint. Pure.

A mesh session that runs is left alone, however it does: only peers that are new to a host are judged, and ways to the
others where tunnels are to take larger packets than they do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from privnet.deploy.changes.mesh import INTERFACE
from privnet.deploy.foreign import places
from privnet.deploy.state import HostState, Way
from privnet.diagnostics import some
from privnet.plan.host import HostPlan
from privnet.plan.mesh import OVERHEAD_V4, OVERHEAD_V6

_OURS = (INTERFACE, "pnb", "pnx", "pnc", "pnu")


LOOPBACK = "127.0.0.1"
"""What every host has a way to: one that does not say so was not asked."""


def endpoints(plan: HostPlan) -> tuple[str, ...]:
    """Addresses of the endpoints of this host and its peers: what its kernel is asked the way to."""
    return LOOPBACK, *sorted({_address(endpoint) for _, endpoint in places(plan).values()})


def obstacles(plan: HostPlan, state: HostState) -> Iterator[str]:
    """Peers that this host would not reach, or that would not hear it, and ways that take too small packets."""
    every = {host: _address(endpoint) for host, (_, endpoint) in sorted(places(plan).items())}
    own = every.pop(plan.name, "")
    if LOOPBACK not in state.ways or not every:
        return
    known = {_address(peer.endpoint) for peer in state.mesh.peers.values()} if state.mesh else set[str]()
    new = {host: address for host, address in every.items() if address not in known}
    if lost := [f"{host} ({address})" for host, address in new.items() if address not in state.ways]:
        yield (
            f"it has no route to {some(lost)}: `ip route get ADDRESS` there says so. Give it one, or the peer an "
            "`endpoint` that it reaches"
        )
    local = own in state.ways and state.ways[own].device == "lo"
    for reason, hosts in _reasons(new, state.ways, own if local else "").items():
        yield reason.format(some([f"{host} ({every[host]})" for host in hosts]))
    grows = INTERFACE not in state.links or state.links[INTERFACE].mtu < plan.mesh.mtu
    small = defaultdict[tuple[Way, int], list[str]](list)
    for host, address in (every if grows else new).items():
        way, needed = state.ways.get(address), plan.mesh.mtu + (OVERHEAD_V6 if ":" in address else OVERHEAD_V4)
        if way and not way.device.startswith(("lo", *_OURS)) and way.mtu < needed:
            small[way, needed].append(f"{host} ({address})")
    for (way, needed), whom in small.items():
        yield (
            f"its way to {some(whom)} by {way.device} takes packets of {way.mtu} bytes at most, and the declaration "
            f"says {needed}: larger ones would be lost. Say `mtu: {way.mtu}` in its entry, or raise that of the device "
            "or route"
        )


def _reasons(new: Mapping[str, str], ways: Mapping[str, Way], own: str) -> dict[str, list[str]]:
    """Why ways to peers are no good, each reason with its peers.

    :param own: the address of this host's endpoint; empty where it is translated, and peers hear another one than it
    """
    found = defaultdict[str, list[str]](list)
    for host, address in new.items():
        way = ways.get(address)
        if way is None:
            continue
        if way.device == "lo":
            found["it has the address of {} itself: give each host an `endpoint` of its own"].append(host)
        elif way.device.startswith(_OURS):
            reason = f"its route to {{}} goes by {way.device}, into the tunnel that it is to build: give it another"
            found[reason].append(host)
        elif own and way.source != own:
            reason = (
                f"it would speak to {{}} from {way.source}, and peers hear it from {own} alone, its endpoint: give the "
                f"route that source (`ip route … src {own}`), or the host `endpoint: {way.source}` in its entry"
            )
            found[reason].append(host)
    return found


def _address(endpoint: str) -> str:
    return endpoint.rpartition(":")[0].strip("[]")
