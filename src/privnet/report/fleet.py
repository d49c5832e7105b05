"""What a compiled fleet is to be and what a run changes in it, as data for machines and as lines for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from privnet.check.removal import Removals, exceeds, removals
from privnet.compiler import Compiled
from privnet.diagnostics import plural, visible
from privnet.model.identifiers import format_address
from privnet.model.lock import Rest
from privnet.plan.host import HostPlan
from privnet.plan.overlay import Network
from privnet.progress import PROGRESS_FILE, load_progress, unfinished
from privnet.report.difference import (
    FLEET_SETTINGS,
    LISTED_AT_MOST,
    Change,
    HostChange,
    change_line,
    changes_in_order,
    changes_of,
    count_line,
    host_changes,
    rest_name,
)
from privnet.report.impact import NEW, ORDER, Impact, Label, impacts
from privnet.report.policy import decision_lines, decisions
from privnet.store import lock_checksum

CONTAINERS_LISTED = 40
PENDING_LISTED = 6
PARTS_LISTED = 30
"""Networks, and hosts, that are listed one by one on a terminal; more are counted."""


def summary(compiled: Compiled) -> str:
    """The fleet in numbers, on one line."""
    declaration, plan = compiled.declaration, compiled.plan
    containers = sum(len(network.containers) for network in plan.networks.values())
    return ", ".join(
        (
            plural(len(plan.hosts), "host")
            + (f" and {len(plan.fleet.out):,} out of service" if plan.fleet.out else ""),
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
        "out": len(plan.fleet.out),
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
        "out": _out_data(compiled),
        "networks": {name: _network_data(network) for name, network in sorted(plan.networks.items())},
        "decisions": [asdict(decision) for decision in decisions(compiled)],
        "changes": [_change_data(change, impact) for change, impact in _changes(compiled)],
        "host_changes": {name: asdict(found) for name, found in _hosts_changed(compiled).items()},
        "removals": removal_data(compiled),
        "settings_compared": compiled.known.settings is not None or not compiled.known.serial,
        "unfinished": open_hosts(compiled),
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


def _out_data(compiled: Compiled) -> dict[str, Any]:
    """Hosts that are out of service: what stays theirs."""
    placed: dict[str, list[str]] = defaultdict(list)
    for network in compiled.lock.networks.values():
        for slot, at in network.slots.items():
            placed[at.host].append(slot)
    hosts = sorted(compiled.plan.fleet.out)
    return {
        name: {"mesh": format_address(compiled.lock.hosts[name].mesh), "containers": placed[name]} for name in hosts
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


def _change_data(change: Change, impact: Impact) -> dict[str, Any]:
    fields = {name: getattr(change, name) for name in ("sign", "kind", "name", "where", "was", "becomes")}
    return {**fields, "impact": {"label": str(impact.label), "flows": impact.flows, "reason": impact.reason}}


def removal_data(compiled: Compiled) -> dict[str, Any]:
    """What goes, how much of it may go unsaid, and the number that a run has to be told otherwise."""
    found, percent = removals(compiled.before, compiled.lock), compiled.declaration.fleet.policy.removal_guard
    return {
        "number": found.number,
        "containers": dict(found.containers),
        "networks": list(found.networks),
        "emptied": list(found.emptied),
        "hosts": list(found.hosts),
        "out": list(found.out),
        "stopped": dict(found.stopped),
        "guard": {"percent": percent, "refused": list(exceeds(found, percent))},
    }


def _rest_data(rest: Rest) -> dict[str, Any]:
    return {"number": rest_name(rest), "network": rest.network, "until": rest.until}


def plan_lines(compiled: Compiled, everything: bool = False, ask: bool = False) -> Iterator[str]:
    """The plan for people: what changes, on one screen when it is little, counted when it is much.

    :param everything: also what stays as it is; so it is before the first deploy, when all is new
    :param ask: who reads it is asked afterwards whether it is to be done
    """
    yield f"fleet {compiled.plan.fleet.fleet}: {summary(compiled)}"
    yield ""
    if everything or not compiled.known.serial:
        yield from _network_lines(compiled)
        yield from _host_lines(compiled)
    yield from decision_lines(compiled)
    yield from _change_lines(compiled, ask)


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
    width = max(map(len, compiled.plan.fleet.hosts))
    for host in hosts:
        vnis = " ".join(str(overlay.network.vni) for overlay in host.overlays)
        containers = sum(len(overlay.ports) - 1 for overlay in host.overlays)
        count = f"{plural(_peers(host), 'peer')}  {plural(containers, 'container')}"
        yield f"host {host.name:{width}}  mesh {host.mesh.address:15}  {count}" + (f"  in VNI {vnis}" if vnis else "")
    for name, host in _out_data(compiled).items():
        count = plural(len(host["containers"]), "container")
        yield f"host {name:{width}}  mesh {host['mesh']:15}  out of service, with {count}"
    yield ""


def _peers(host: HostPlan) -> int:
    return len(host.mesh.peers) + len(host.mesh.pending)


# --- what a run changes -----------------------------------------------------------------------------

Felt = tuple[Change, Impact]


def _changes(compiled: Compiled) -> list[Felt]:
    return list(impacts(compiled.before, compiled.lock, changes_of(compiled)))


def _hosts_changed(compiled: Compiled) -> dict[str, HostChange]:
    return host_changes(compiled.before, compiled.lock)


def _change_lines(compiled: Compiled, ask: bool) -> Iterator[str]:
    every = _changes(compiled)
    felt = [(change, impact) for change, impact in every if change.kind != "quarantine"]
    if compiled.known.serial == 0:
        yield "No lock file yet: everything is new, and the first deploy writes these numbers down."
    elif not every:
        yield f"Nothing differs from the lock file (serial {compiled.known.serial})."
    else:
        worst = max((impact.label for _, impact in felt), key=ORDER.index, default=Label.none)
        yield f"Differs from the lock file (serial {compiled.known.serial}); impact at most: {worst}"
        yield from _felt_lines(compiled, felt)
        yield from _changed_host_lines(compiled)
    if compiled.known.serial and compiled.known.settings is None:
        yield _UNSETTLED
    yield from _progress_lines(compiled)
    yield from _ending_lines(compiled, ask)


def open_hosts(compiled: Compiled) -> dict[str, str] | None:
    """Hosts that no run is known to have brought to the lock file as it stands, with reasons; None: not known."""
    known = compiled.known
    found = load_progress(compiled.declaration.directory, known.fleet)
    if found is None or not known.serial:
        return None
    names = sorted(known.hosts.keys() & compiled.plan.hosts.keys())
    return unfinished(found, names, known.serial, lock_checksum(known))


def _progress_lines(compiled: Compiled) -> Iterator[str]:
    """The lock file is written before hosts are changed: who has what it says is another question."""
    found = open_hosts(compiled)
    if found:
        some = [f"{name} ({visible(why)})" for name, why in [*found.items()][:PENDING_LISTED]]
        more = f", and {len(found) - len(some):,} more" if len(found) > len(some) else ""
        yield (
            f"The last run was not finished on: {', '.join(some)}{more}. "
            "A plain run finishes it; `--live` asks what is missing there."
        )
    elif found is None and compiled.known.serial:
        yield (
            f"Whether each host has serial {compiled.known.serial} is not known here: there is no {PROGRESS_FILE} that "
            "can be read, which each run writes. `--live` asks the hosts."
        )


_UNSETTLED = (
    "Ports, names, MTUs and addresses of hosts are not compared: the lock file is of an older privnet and does not say "
    "which were deployed. `--live` asks the hosts; the next run writes them down."
)


def _ending_lines(compiled: Compiled, ask: bool) -> Iterator[str]:
    resting = len(compiled.lock.quarantine)
    if resting:
        yield f"{plural(resting, 'number')} in quarantine: `privnet plan --format json` lists them."
    found = removals(compiled.before, compiled.lock)
    if found.number:
        yield f"Removes {found.counts}."
    why = exceeds(found, compiled.declaration.fleet.policy.removal_guard)
    if why and ask:
        yield f"That is more than goes unsaid (PN601): {' and '.join(why)}."
    elif why:
        yield refusal_line(found, why)


def refusal_line(found: Removals, why: Iterable[str]) -> str:
    """That a run would be stopped by the removal guard, and what lets it go."""
    return (
        f"REFUSED unless told: {' and '.join(why)} (PN601). If all of it is meant: at a terminal `privnet deploy` "
        f"asks, a saved plan needs no number, elsewhere `privnet deploy … --allow-removals {found.number}`"
    )


def _felt_lines(compiled: Compiled, felt: list[Felt]) -> Iterator[str]:
    """By network when they are few, else all together; what belongs to no network comes first."""
    networks = {network for change, _ in felt if (network := _network_of(change))}
    if len(networks) > LISTED_AT_MOST:
        yield f"{plural(len(networks), 'private network')} with changes:"
        yield from _grouped(felt)
        return
    yield from _grouped([(change, impact) for change, impact in felt if not _network_of(change)])
    for network in sorted(networks):
        yield network_title(compiled, network)
        yield from _grouped([(change, impact) for change, impact in felt if _network_of(change) == network])


def _network_of(change: Change) -> str:
    return change.name if change.kind == "network" else change.where


def network_title(compiled: Compiled, network: str) -> str:
    """What a private network is called above what is said of it, whether it is, is to be, or both."""
    known = compiled.lock.networks.get(network) or compiled.known.networks[network]
    return f"private network {network} of project {known.project}, VNI {known.vni}"


def _grouped(felt: list[Felt]) -> Iterator[str]:
    """The changes, the least felt first, each impact said once below those that have it."""
    by_impact: dict[Impact, list[Change]] = defaultdict(list)
    for change, impact in felt:
        by_impact[impact].append(change)
    for impact, changes in sorted(by_impact.items(), key=lambda item: (ORDER.index(item[0].label), item[0] != NEW)):
        by_kind: dict[tuple[str, str], list[Change]] = defaultdict(list)
        for change in changes_in_order(tuple(changes)):
            by_kind[change.kind, change.sign].append(change)
        for (kind, sign), some in by_kind.items():
            if len(some) > LISTED_AT_MOST:
                yield f"  {count_line(sign, kind, len(some))}"
            else:
                yield from (f"  {change_line(change)}" for change in some)
        if impact != NEW:
            yield f"      {impact}"


def _changed_host_lines(compiled: Compiled) -> Iterator[str]:
    found = _hosts_changed(compiled)
    if not found:
        return
    if len(found) > LISTED_AT_MOST:
        comes, goes = (sum(bool(getattr(host, name)) for host in found.values()) for name in ("comes", "goes"))
        told = sum(bool(host.settings) for host in found.values())
        settings = f"; other settings on {told:,}" if told else ""
        moves = f"containers come to {comes:,} of them and go from {goes:,}"
        yield f"{plural(len(found), 'host')} with changes: {moves}{settings}"
        return
    yield "hosts"
    parts = {name: ", ".join(_host_parts(compiled, name, host)) for name, host in found.items()}
    everywhere = [setting for setting in FLEET_SETTINGS if any(setting in host.settings for host in found.values())]
    if everywhere:
        yield f"  all hosts  setting {' '.join(everywhere)}"
    width = max(map(len, found))
    yield from (f"  {name:{width}}  {said}" for name, said in parts.items() if said)


def _host_parts(compiled: Compiled, name: str, host: HostChange) -> Iterator[str]:
    if host.comes:
        yield f"{plural(len(host.comes), 'container')} more"
    if host.goes:
        yield f"{plural(len(host.goes), 'container')} less"
    for sign, peers in (("+", host.meets), ("-", host.parts)):
        if peers:
            yield f"{sign} {'peer' if len(peers) == 1 else 'peers'} {_first(peers)}"
    for what, networks in (("enters", host.joins), ("leaves", host.leaves), ("new entries in", host.told)):
        if networks:
            yield f"{what} VNI {_first([_vni(compiled, network) for network in networks])}"
    places = [setting.split(".")[1:] for setting in host.settings if setting not in FLEET_SETTINGS]
    own = [setting for of, setting in places if of == name]
    if own:
        yield f"its {' and '.join(own)}"
    if others := sorted({of for of, _ in places} - {name}):
        yield f"where {_first(others)} {'is' if len(others) == 1 else 'are'}"


def _vni(compiled: Compiled, network: str) -> str:
    return str((compiled.lock.networks.get(network) or compiled.known.networks[network]).vni)


def _first(words: list[str]) -> str:
    return " ".join(words[:6]) + (f" and {len(words) - 6:,} more" if len(words) > 6 else "")
