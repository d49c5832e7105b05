"""What every host and network of a compiled fleet is to be, as data for machines and as lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from privnet.compiler import Compiled
from privnet.diagnostics import plural
from privnet.model.lock import Rest
from privnet.plan.host import HostPlan
from privnet.plan.overlay import Network
from privnet.report.difference import Change, difference_lines, differences, rest_name
from privnet.report.policy import decision_lines, decisions

CONTAINERS_LISTED = 40
PARTS_LISTED = 30
"""Networks, and hosts, that are listed one by one on a terminal; more are counted."""


def summary(compiled: Compiled) -> str:
    """The fleet in numbers, on one line."""
    declaration, plan = compiled.declaration, compiled.plan
    containers = sum(len(network.containers) for network in plan.networks.values())
    return ", ".join(
        (
            plural(len(plan.hosts), "host"),
            plural(len(declaration.projects), "project"),
            plural(len(plan.networks), "private network"),
            plural(containers, "container"),
        )
    )


def lock_state(compiled: Compiled) -> str:
    """What a deploy would do to the lock file."""
    if not compiled.lock_changed:
        return "lock file up to date"
    return "lock file would be extended" if compiled.known.serial else "no lock file yet: the first deploy writes it"


def summary_data(compiled: Compiled) -> dict[str, Any]:
    """The same for machines."""
    plan = compiled.plan
    return {
        "fleet": plan.fleet.fleet,
        "hosts": len(plan.hosts),
        "projects": len(compiled.declaration.projects),
        "networks": len(plan.networks),
        "containers": sum(len(network.containers) for network in plan.networks.values()),
        "lock": {"serial": compiled.known.serial, "up_to_date": not compiled.lock_changed},
    }


def plan_data(compiled: Compiled) -> dict[str, Any]:
    """The whole plan and what it changes, for machines."""
    plan = compiled.plan
    return {
        "summary": summary_data(compiled),
        "hosts": {name: _host_data(host) for name, host in sorted(plan.hosts.items())},
        "networks": {name: _network_data(network) for name, network in sorted(plan.networks.items())},
        "decisions": [asdict(decision) for decision in decisions(compiled)],
        "changes": [_change_data(change) for change in differences(compiled.known, compiled.lock)],
        "quarantine": [_rest_data(rest) for rest in compiled.lock.quarantine],
    }


def _host_data(host: HostPlan) -> dict[str, Any]:
    return {
        "mesh": host.mesh.address,
        "mtu": host.mesh.mtu,
        "peers": sorted((*(peer.host for peer in host.mesh.peers), *host.mesh.pending)),
        "without_key": list(host.mesh.pending),
        "networks": [overlay.network.id for overlay in host.overlays],
        "containers": sum(len(overlay.ports) - 1 for overlay in host.overlays),
    }


def _network_data(network: Network) -> dict[str, Any]:
    return {
        "project": network.project,
        "vni": network.vni,
        "cidr": str(network.cidr),
        "mtu": network.mtu,
        "resolver": network.resolver,
        "hosts": list(network.hosts),
        "containers": {
            container.slot: {"address": container.address, "host": container.host} for container in network.containers
        },
    }


def _change_data(change: Change) -> dict[str, str]:
    return {name: getattr(change, name) for name in ("sign", "kind", "name", "where", "was", "becomes")}


def _rest_data(rest: Rest) -> dict[str, Any]:
    return {"number": rest_name(rest), "network": rest.network, "until": rest.until}


def plan_lines(compiled: Compiled) -> Iterator[str]:
    """The plan for people: on one screen for a small fleet, counted for a large one."""
    plan = compiled.plan
    yield f"fleet {plan.fleet.fleet}: {summary(compiled)}"
    yield ""
    yield from _network_lines(compiled)
    yield from _host_lines(compiled)
    yield from decision_lines(compiled)
    yield from _change_lines(compiled)


def _network_lines(compiled: Compiled) -> Iterator[str]:
    networks = sorted(compiled.plan.networks.values(), key=lambda network: network.project)
    if len(networks) > PARTS_LISTED:
        vnis = [network.vni for network in networks]
        yield f"{plural(len(networks), 'private network')}, VNI {min(vnis)} to {max(vnis)}"
        yield ""
        return
    list_containers = sum(len(network.containers) for network in networks) <= CONTAINERS_LISTED
    for network in networks:
        count = f"{plural(len(network.containers), 'container')} on {plural(len(network.hosts), 'host')}"
        yield f"private network {network.id} of project {network.project}"
        yield f"  VNI {network.vni}  {network.cidr}  MTU {network.mtu}  {count}"
        yield from _container_lines(network) if list_containers else _type_lines(network)
        yield ""


def _container_lines(network: Network) -> Iterator[str]:
    width = max((len(container.slot) for container in network.containers), default=0)
    for container in network.containers:
        yield f"  {container.slot:{width}}  {container.address:15}  {container.host}"


def _type_lines(network: Network) -> Iterator[str]:
    counts = Counter((container.application, container.process_type) for container in network.containers)
    if len(counts) <= CONTAINERS_LISTED:
        for (application, process_type), count in sorted(counts.items()):
            yield f"  {process_type}.{application}  {plural(count, 'container')}"


def _host_lines(compiled: Compiled) -> Iterator[str]:
    hosts = sorted(compiled.plan.hosts.values(), key=lambda host: host.name)
    if len(hosts) > PARTS_LISTED:
        peers = [_peers(host) for host in hosts]
        yield f"{plural(len(hosts), 'host')}, each with {min(peers)} to {max(peers)} peers"
        yield ""
        return
    width = max(len(host.name) for host in hosts)
    for host in hosts:
        vnis = " ".join(str(overlay.network.vni) for overlay in host.overlays)
        containers = sum(len(overlay.ports) - 1 for overlay in host.overlays)
        count = f"{plural(_peers(host), 'peer')}  {plural(containers, 'container')}"
        yield f"host {host.name:{width}}  mesh {host.mesh.address:15}  {count}" + (f"  in VNI {vnis}" if vnis else "")
    yield ""


def _peers(host: HostPlan) -> int:
    return len(host.mesh.peers) + len(host.mesh.pending)


def _change_lines(compiled: Compiled) -> Iterator[str]:
    changes = differences(compiled.known, compiled.lock)
    if compiled.known.serial == 0:
        yield "No lock file yet: everything is new, and the first deploy writes these numbers down."
    elif not changes:
        yield f"Nothing differs from the lock file (serial {compiled.known.serial})."
    else:
        yield f"Differs from the lock file (serial {compiled.known.serial}):"
        yield from difference_lines(changes)
    resting = len(compiled.lock.quarantine)
    if resting:
        yield f"{plural(resting, 'number')} in quarantine: `privnet plan --format json` lists them."
