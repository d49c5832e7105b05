"""Programs that answer in a resolver's place, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from privnet.deploy.changes.names import SYSTEMD
from privnet.deploy.state import Answering, HostState
from privnet.plan.host import HostPlan


def obstacles(plan: HostPlan, state: HostState) -> Iterator[str]:
    """Programs that hear what a resolver, or its forwarder, is asked: only root of that host can let one in."""
    for network in (overlay.network.id for overlay in plan.overlays):
        found = state.answering.get(network, Answering())
        for listener in found.listeners:
            if not listener.processes & {SYSTEMD, found.resolver}:
                who = f"{listener.program or 'somebody'} (process {min(listener.processes, default=0)})"
                place = f"{listener.protocol.upper()} port 53 of {listener.address}"
                yield (
                    f"another program, {who}, answers at {place} in the network namespace {network}, where only "
                    f"privnet's resolver may: `ip netns pids {network}` shows who is there; end it, then run again"
                )
