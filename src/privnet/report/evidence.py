"""What an auditor asks of a fleet, from declaration, lock file and plan; hosts are asked by `privnet audit`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from privnet.compiler import Compiled, render_fleet
from privnet.diagnostics import plural
from privnet.model.decision import Override
from privnet.model.project import Project
from privnet.plan.host import HostPlan, Plan
from privnet.report.fleet import summary

CIPHER = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
"""WireGuard has this one construction and nothing to negotiate (https://www.wireguard.com/protocol/)."""


def evidence_data(compiled: Compiled) -> dict[str, Any]:
    """Who accepted what and when, which applications are in which network, how it is encrypted, between whom."""
    fleet = compiled.declaration.fleet
    projects = compiled.declaration.projects
    return {
        "fleet": fleet.fleet,
        "plan": {"sha256": plan_hash(compiled.plan)},
        "lock": {"serial": compiled.known.serial, "up_to_date": not compiled.lock_changed},
        "encryption": {"between_hosts": "WireGuard", "cipher": CIPHER, "key_exchange": "Curve25519", "optional": False},
        "policy": {"hds": fleet.policy.hds, "hds_allowed": _override(fleet.policy.hds_allowed)},
        "networks": [_network(compiled, project) for project in projects if project.private_network],
        "without_network": [_applications(project) for project in projects if not project.private_network],
        "hosts": [_host(compiled, host) for _, host in sorted(compiled.plan.hosts.items())],
    }


def plan_hash(plan: Plan) -> str:
    """SHA-256 of every managed file of every host: equal plans have equal hashes, wherever they are made."""
    whole = hashlib.sha256()
    for host, files in sorted(render_fleet(plan).items()):
        for file in files:
            whole.update(f"{host}\0{file.path}\0{file.mode:o}\0{file.text}\0".encode())
    return whole.hexdigest()


def _override(override: Override | None) -> dict[str, str] | None:
    return {"by": override.by, "on": override.on} if override else None


def _network(compiled: Compiled, project: Project) -> dict[str, Any]:
    declared = project.private_network
    if declared is None:
        return {}
    network = compiled.plan.networks[declared.id]
    return {
        **_applications(project),
        "id": network.id,
        "vni": network.vni,
        "cidr": str(network.cidr),
        "deployed": declared.id in compiled.known.networks,
        "terms": declared.terms.model_dump(),
        "enabled_on_existing_project": _override(declared.enabled_on_existing_project),
        "hosts": list(network.hosts),
        "containers": len(network.containers),
    }


def _applications(project: Project) -> dict[str, Any]:
    applications = [
        {"id": name, "name": details.name, "hds": details.hds} for name, details in sorted(project.applications.items())
    ]
    return {"project": project.project, "applications": applications}


def _host(compiled: Compiled, host: HostPlan) -> dict[str, Any]:
    known = compiled.lock.hosts[host.name]
    return {
        "name": host.name,
        "mesh": host.mesh.address,
        "public_key": known.wireguard,
        "peers": sorted((*(peer.host for peer in host.mesh.peers), *host.mesh.pending)),
        "networks": [overlay.network.id for overlay in host.overlays],
    }


def evidence_lines(compiled: Compiled) -> Iterator[str]:
    """The same for people."""
    data = evidence_data(compiled)
    lock = data["lock"]
    yield f"fleet {data['fleet']}: {summary(compiled)}"
    yield f"plan sha256 {data['plan']['sha256']}"
    yield f"lock file serial {lock['serial']}{'' if lock['up_to_date'] else ', and this plan would extend it'}"
    yield f"between hosts: WireGuard, {CIPHER}; nothing of a private network leaves a host in clear"
    allowed = data["policy"]["hds_allowed"]
    decided = f", decided by {allowed['by']} on {allowed['on']}" if allowed else ""
    yield f"HDS applications in private networks: {data['policy']['hds']}{decided}"
    for network in data["networks"]:
        yield ""
        yield from _network_lines(network)
    for project in data["without_network"]:
        yield ""
        yield f"project {project['project']}: no private network"
        yield from _application_lines(project)
    yield ""
    for host in data["hosts"]:
        key = host["public_key"] or "no key yet"
        yield f"host {host['name']}  mesh {host['mesh']}  {key}  {plural(len(host['peers']), 'peer')}"
        if host["peers"]:
            yield f"  peers {' '.join(host['peers'])}"
    yield ""
    yield "This is what is declared; `privnet audit` proves what the hosts are."


def _network_lines(network: dict[str, Any]) -> Iterator[str]:
    terms, override = network["terms"], network["enabled_on_existing_project"]
    yield f"private network {network['id']} of project {network['project']}"
    count = f"{plural(network['containers'], 'container')} on {plural(len(network['hosts']), 'host')}"
    yield f"  VNI {network['vni']}  {network['cidr']}  {count}{'' if network['deployed'] else '  not deployed yet'}"
    yield f"  terms {terms['version']} accepted by {terms['accepted_by']} on {terms['accepted_on']}"
    if override:
        yield f"  enabled on a project that was not empty: decided by {override['by']} on {override['on']}"
    yield from _application_lines(network)


def _application_lines(project: dict[str, Any]) -> Iterator[str]:
    for application in project["applications"]:
        name = f"  {application['name']}" if application["name"] else ""
        yield f"  application {application['id']}{name}{'  HDS' if application['hds'] else ''}"
