"""Devices of others in a private network's bridge, or on top of a device of ours. Pure.

The guard drops what they send and what is sent to them. A run says so before it changes anything, and takes nobody's
device away: the program that has put it there would put it there again.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from privnet.deploy.changes.mesh import INTERFACE
from privnet.deploy.state import HostState, Link
from privnet.diagnostics import some
from privnet.plan.host import HostPlan

_NAMED_LIKE_OURS = re.compile("pn[bx][0-9]+|pn[cu][0-9a-f]+")
"""What the last wave removes by its name."""


def obstacles(plan: HostPlan, state: HostState) -> Iterator[str]:
    """Why this host has to be left alone: one reason a bridge, and one a device on which others stand."""
    bridges = {overlay.network.bridge for overlay in plan.overlays}
    ours = _ours(plan)
    inside, upon = defaultdict[str, list[Link]](list), defaultdict[str, list[Link]](list)
    for link in sorted(state.links.values(), key=lambda link: link.name):
        if link.name not in ours and not _NAMED_LIKE_OURS.fullmatch(link.name):
            inside[link.master].append(link)
            upon[link.upon].append(link)
    for bridge in sorted(bridges & inside.keys()):
        commands = some([f"`ip link set dev {link.name} nomaster`" for link in inside[bridge]])
        yield (
            f"its bridge {bridge}, which is privnet's, has ports that no plan has: {_named(inside[bridge])}. The guard "
            "drops what they send there and what is for them: a private network has the containers of its declaration "
            f"and no others. Take them out: {commands}, and out of what has put them there (Incus `parent=`, libvirt "
            "`<source bridge=>`, Docker `com.docker.network.bridge.name`)"
        )
    for device in sorted(ours & upon.keys()):
        commands = some([f"`ip link delete dev {link.name}`" for link in upon[device]])
        yield (
            f"its device {device}, which is privnet's, carries others: {_named(upon[device])}. They would be a way "
            f"between a private network and its host. Remove them: {commands}, and what has made them"
        )


def _ours(plan: HostPlan) -> set[str]:
    found = {INTERFACE}
    for overlay in plan.overlays:
        found |= {overlay.network.bridge, overlay.network.vxlan}
        found |= {port.name for port in overlay.ports}
    return found


def _named(links: list[Link]) -> str:
    return some([f"{link.name} ({link.kind})" if link.kind else link.name for link in links])
