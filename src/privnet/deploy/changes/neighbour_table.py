"""The kernel's limits of its neighbour table: raised, never lowered."""

from __future__ import annotations

from privnet.deploy.script import Script
from privnet.deploy.state import HostState
from privnet.plan.host import HostPlan
from privnet.render import ETC


def add(plan: HostPlan, state: HostState, script: Script) -> None:
    """Raise what is too low; a host that has no such limits has none to raise."""
    table = plan.neighbour_table
    wanted = {"ipv4": table.ipv4, "ipv6": table.ipv6}
    for family, (soft, hard) in state.neighbour_table.items():
        if hard < wanted[family] or soft < wanted[family] // 2:
            script.run("sh", f"{ETC}/lib/neighbour-table.sh")
