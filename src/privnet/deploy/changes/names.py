"""Names: hosts files change under a running resolver, which reads them again without missing a query."""

from __future__ import annotations

import hashlib
import re

from privnet.deploy.changes.containers import is_connected
from privnet.deploy.changes.files import differs, named_by_files, units_that_run
from privnet.deploy.script import Script
from privnet.deploy.state import HostState
from privnet.model.identifiers import NETWORK_ID
from privnet.plan.host import HostPlan
from privnet.plan.overlay import Network
from privnet.render import ETC, UNITS, WANTS, ManagedFile, render_forwarder, render_names

FORWARDER = "privnet-forwarder.service"
_FILE = re.compile(rf"(?:{ETC}/names/|{WANTS}/privnet-dns@)({NETWORK_ID})[.](?:conf|service)")
_UNIT = re.compile(rf"privnet-dns@({NETWORK_ID})[.]service")


def unit_of(network: Network) -> str:
    """The unit of a private network's resolver."""
    return f"privnet-dns@{network.id}.service"


def add(plan: HostPlan, state: HostState, script: Script) -> None:
    """Resolvers of networks that are new on this host; nobody asks them yet."""
    start = []
    for network, config, hosts in _files(plan):
        unit = state.units.get(unit_of(network))
        if unit is None or unit.active != "active":
            for file in (config, hosts):
                if differs(file, state):
                    script.place(file)
            start.append(unit_of(network))
    if start:
        script.run("systemctl", "start", *start)
    forwarder = state.units.get(FORWARDER)
    if plan.upstream and (forwarder is None or forwarder.active != "active"):
        script.run("systemctl", "start", FORWARDER)
    elif plan.upstream and state.forwarder != _digest(render_forwarder(plan.domain, plan.upstream)):
        script.run("systemctl", "restart", FORWARDER)


def switch(plan: HostPlan, state: HostState, script: Script) -> None:
    """New and removed names of running resolvers; a new configuration, which only a start reads."""
    resolvers = {overlay.network.id: overlay.ports[0] for overlay in plan.overlays}
    for network, config, hosts in _files(plan):
        if not state.is_active(unit_of(network)):
            continue
        for file in (config, hosts):
            if differs(file, state):
                script.place(file)
        read = state.names.get(network.id)
        # Where the name of its namespace leads elsewhere, the first wave has seen to that.
        lost = read is not None and not read.serves and is_connected(resolvers[network.id], state)
        if read is None or lost or read.config != _digest(config):
            script.run("systemctl", "restart", unit_of(network))
        elif read.hosts != _digest(hosts) or hosts.path in script.files:
            script.run("systemctl", "reload", unit_of(network))


def retire(plan: HostPlan, state: HostState, script: Script) -> None:
    """Resolvers of networks that have no container here any more."""
    kept = {overlay.network.id for overlay in plan.overlays}
    stray = (units_that_run(state, _UNIT) | named_by_files(state, _FILE)) - kept
    script.end((f"privnet-dns@{network}.service" for network in stray), state.failed)
    # Also of a resolver that a program has stopped which was killed before it came here.
    for network in sorted((state.names.keys() | stray) - kept):
        if re.fullmatch(NETWORK_ID, network):
            script.run("rm", "-f", f"/run/privnet/names.{network}", early=True)
    if plan.upstream:
        return
    if f"{UNITS}/{FORWARDER}" in state.files or units_that_run(state, re.compile(f"({re.escape(FORWARDER)})")):
        script.end([FORWARDER], state.failed)
    if state.forwarder or f"{UNITS}/{FORWARDER}" in state.files:
        script.run("rm", "-f", "/run/privnet/forwarder", early=True)


def _files(plan: HostPlan) -> list[tuple[Network, ManagedFile, ManagedFile]]:
    return [
        (overlay.network, *render_names(overlay.network, plan.ttl, plan.domain, bool(plan.upstream)))
        for overlay in plan.overlays
    ]


def _digest(file: ManagedFile) -> str:
    return hashlib.sha256(file.text.encode()).hexdigest()
