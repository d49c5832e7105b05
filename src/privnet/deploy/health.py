"""Whether a change has cut off what it should not: peers that answered a host before it, and do not afterwards. Pure.

SSH goes by another way than private traffic, so a host that takes a new connection may have lost all of its peers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from privnet.diagnostics import plural, some
from privnet.plan.host import HostPlan

LOST_SECONDS = 20
"""How long a peer may take to answer again: four tries of WireGuard to begin a session, 5 s each (REKEY_TIMEOUT)."""
LISTED_AT_MOST = 4
_LOST = re.compile(r"lost ([0-9.]{7,15}) (silent|small)")


@dataclass(frozen=True, slots=True)
class Loss:
    """A peer that has answered before and does not any more.

    :param address: its mesh address, by the plan
    :param small: whether it still answers small packets
    """

    address: str
    small: bool


def losses(lines: Iterable[str]) -> tuple[Loss, ...]:
    """What ``peers.pl lost`` has said; what else a host says is nothing."""
    found = (_LOST.fullmatch(line) for line in lines)
    return tuple(Loss(match[1], match[2] == "small") for match in found if match)


def seconds(rollback: int) -> int:
    """How long to wait for peers, of the time after which a host rolls back."""
    return min(LOST_SECONDS, rollback // 3)


def pairs(lost: Mapping[str, Iterable[Loss]], hosts: Mapping[str, HostPlan]) -> dict[tuple[str, str], bool]:
    """Hosts and the peers that they have lost, by name; whether small packets still pass."""
    names = {host.mesh.address: name for name, host in hosts.items()}
    return {
        (host, names[loss.address]): loss.small
        for host, found in sorted(lost.items())
        for loss in found
        if loss.address in names
    }


def sentence(lost: Mapping[tuple[str, str], bool], hosts: Mapping[str, HostPlan]) -> str:
    """Who has lost whom, and what to look at."""
    # Who is lost by most is most likely the cause: each pair is said of one of its two hosts.
    peers = _by_peer(lost)
    said = [
        f"{peer} ({_endpoint(peer, hosts)}) does not answer {some(sorted(by), LISTED_AT_MOST)}"
        for peer, by in list(peers.items())[:LISTED_AT_MOST]
    ]
    others = len(peers) - LISTED_AT_MOST
    more = f"{plural(others, 'other host')} would be cut off too. " if others > 0 else ""
    small = all(lost.values())
    what = "large packets over the mesh" if small else "over the mesh"
    look = (
        "Look at `mtu` in fleet.yaml, and at the MTU of what is between the hosts"
        if small
        else "Look at `endpoint`, `address` and ports in fleet.yaml, and at firewalls between the hosts"
    )
    head = "the change would cut off peers that answered before it, so it is not confirmed"
    return f"{head}: {', '.join(said)} {what}. {more}{look}"


def _by_peer(lost: Collection[tuple[str, str]]) -> dict[str, set[str]]:
    left, found = set(lost), dict[str, set[str]]()
    while left:
        count: dict[str, int] = {}
        for host, peer in left:
            # Whether one or both sides of a pair have noticed is the same.
            for end in {host, peer}:
                count[end] = count.get(end, 0) + 1
        worst = max(sorted(count), key=lambda name: (count[name], sum(peer == name for _, peer in left)))
        found[worst] = {host for host, peer in left if peer == worst} | {peer for host, peer in left if host == worst}
        left = {pair for pair in left if worst not in pair}
    return found


def _endpoint(peer: str, hosts: Mapping[str, HostPlan]) -> str:
    return next((p.endpoint for host in hosts.values() for p in host.mesh.peers if p.host == peer), "no endpoint")
