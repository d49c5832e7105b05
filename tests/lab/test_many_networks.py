"""Fifty networks on the same hosts: one question a host, whatever their number."""

from __future__ import annotations

import uuid
from pathlib import Path

from runs import count_questions, deploy, plan_of, questions

from privnet.lab import Lab

HOSTS = ("lab-1", "lab-2")
NETWORKS = 50


def declare(directory: Path, networks: int) -> None:
    """As many projects, each with a network and one container on each host."""
    for path in (directory / "projects").iterdir():
        path.unlink()
    for number in range(networks):
        network, application = (uuid.uuid5(uuid.NAMESPACE_DNS, f"{kind}-{number}.test") for kind in ("pn", "ap"))
        (directory / "projects" / f"project-{number}.yaml").write_text(
            f"project: project-{number}\n"
            "private_network:\n"
            f"  id: pn-{network}\n"
            "  terms: {accepted_by: ops@test.example, accepted_on: 2025-09-25, version: beta-1}\n"
            "applications:\n"
            f"  ap-{application}:\n"
            f"    formation: {{web: [{', '.join(HOSTS)}]}}\n"
        )


def test_fifty_networks_cost_one_question(fleet, inventory_copy) -> None:
    directory = inventory_copy("lab")
    declare(directory, NETWORKS)
    lab: Lab = fleet(directory, *HOSTS)
    first = deploy(lab, "--limit", "lab-1", "--limit", "lab-2")
    for host in HOSTS:
        count_questions(lab, host)
    before = {host: questions(lab, host) for host in HOSTS}
    second = deploy(lab, "--limit", "lab-1", "--limit", "lab-2")
    print(f"{NETWORKS} networks: first run {first.seconds:.1f} s, second {second.seconds:.1f} s")
    assert second.changed == {}
    assert {host: questions(lab, host) - before[host] for host in HOSTS} == dict.fromkeys(HOSTS, 1)
    plan = plan_of(lab)
    assert len(plan.networks) == NETWORKS
    # Every network works, by name and alone: each has the same addresses.
    for network in plan.networks.values():
        one, two = network.containers
        assert one.address == "10.240.0.2"
        name = f"{two.slot}.{network.names.suffix}"
        lab.exec("lab-1", ["ip", "netns", "exec", one.slot, "ping", "-c", "1", "-W", "5", name])
