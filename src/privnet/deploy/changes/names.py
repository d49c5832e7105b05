"""Names: hosts files change under a running resolver, which reads them again without missing a query."""

from __future__ import annotations

import hashlib
import re

from privnet.deploy.changes.containers import is_connected
from privnet.deploy.changes.files import differs, named_by_files, units_that_run
from privnet.deploy.script import Script
from privnet.deploy.state import Answering, HostState
from privnet.model.identifiers import NETWORK_ID
from privnet.plan.host import HostPlan
from privnet.plan.overlay import Network
from privnet.render import ETC, WANTS, ManagedFile, render_forwarder, render_names

SYSTEMD = 1
"""The process that opens a socket, and holds it while its service does not run."""
_FILE = re.compile(rf"(?:{ETC}/names/|{WANTS}/privnet-dns@)({NETWORK_ID})[.](?:conf|service)")
_UNIT = re.compile(rf"privnet-dns@({NETWORK_ID})[.]service")
_FORWARDER_FILE = re.compile(rf"{WANTS}/privnet-forwarder@({NETWORK_ID})[.]socket")
_FORWARDER = re.compile(rf"privnet-forwarder@({NETWORK_ID})[.](?:service|socket)")


def unit_of(network: Network) -> str:
    """The unit of a private network's resolver."""
    return f"privnet-dns@{network.id}.service"


def forwarder_of(network: Network) -> str:
    """The unit that opens the sockets of a private network's forwarder; its service is started by a question."""
    return f"privnet-forwarder@{network.id}.socket"


def add(plan: HostPlan, state: HostState, script: Script) -> None:
    """Resolvers of networks that are new on this host, whom nobody asks yet; and what carries questions outside."""
    if plan.outside.upstream:
        _forwarders(plan, state, script)
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


def _forwarders(plan: HostPlan, state: HostState, script: Script) -> None:
    renewed = any(file.path in script.files for file in render_forwarder(plan.outside))
    start, restart = [], []
    for network in (overlay.network for overlay in plan.overlays):
        unit = state.units.get(forwarder_of(network))
        if unit is None or unit.active != "active":
            start.append(forwarder_of(network))
        elif renewed or not _carries(network, plan, state):
            restart.append(forwarder_of(network))
    if restart:
        # The sockets alone first: a question that waits there would start a service while it is stopped.
        script.run("systemctl", "stop", "--job-mode=ignore-dependencies", *restart)
        script.run("systemctl", "stop", *(unit.replace(".socket", ".service") for unit in restart))
    if start or restart:
        script.run("systemctl", "start", *start, *restart)


def _carries(network: Network, plan: HostPlan, state: HostState) -> bool:
    """Whether questions are heard where the resolver asks them, and carried to whom they are for."""
    found = state.answering.get(network.id, Answering())
    heard = all(found.hears(f"{place}%lo", SYSTEMD) for place in plan.outside.places)
    return heard and found.servers in (None, plan.outside.servers)


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
    """Resolvers of networks that have no container here any more, and forwarders that nobody needs."""
    kept = {overlay.network.id for overlay in plan.overlays}
    stray = (units_that_run(state, _UNIT) | named_by_files(state, _FILE)) - kept
    script.end((f"privnet-dns@{network}.service" for network in stray), state.failed)
    asking = kept if plan.outside.upstream else set[str]()
    silent = (units_that_run(state, _FORWARDER) | named_by_files(state, _FORWARDER_FILE)) - asking
    script.end((f"privnet-forwarder@{n}.{kind}" for n in silent for kind in ("service", "socket")), state.failed)
    # Also of a resolver that a program has stopped which was killed before it came here.
    for network in sorted((state.names.keys() | stray) - kept):
        if re.fullmatch(NETWORK_ID, network):
            script.run("rm", "-f", f"/run/privnet/names.{network}", early=True)


def _files(plan: HostPlan) -> list[tuple[Network, ManagedFile, ManagedFile]]:
    return [
        (overlay.network, *render_names(overlay.network, plan.ttl, plan.domain, plan.outside))
        for overlay in plan.overlays
    ]


def _digest(file: ManagedFile) -> str:
    return hashlib.sha256(file.text.encode()).hexdigest()
