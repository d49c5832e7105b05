"""Fifty private networks on two hosts: one question each when nothing is to be done, and a fraction of the time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs import count_questions, deploy, inside, plan_of, questions

from privnet.lab import Lab

pytestmark = pytest.mark.lab

NETWORKS = 50
HOSTS = ("lab-1", "lab-2")


def declare(directory: Path) -> Path:
    """A lab fleet of two hosts with a container of each network on both."""
    inventory = directory / "many"
    (inventory / "projects").mkdir(parents=True)
    hosts = {"lab-1": {"address": "192.0.2.11"}, "lab-2": {"address": "192.0.2.12"}}
    (inventory / "fleet.yaml").write_text(json.dumps({"fleet": "many", "lab": True, "hosts": hosts}))
    terms = {"accepted_by": "ops@test.example", "accepted_on": "2025-09-25", "version": "beta-1"}
    for number in range(NETWORKS):
        tail = f"00000000-0000-4000-8000-{number:012d}"
        project = {
            "project": f"p{number}",
            "private_network": {"id": f"pn-{tail}", "terms": terms},
            "applications": {f"ap-{tail}": {"formation": {"web": [*HOSTS]}}},
        }
        (inventory / "projects" / f"p{number}.yaml").write_text(json.dumps(project))
    shim = "from privnet.deploy.inventory import groups as _groups\n\nglobals().update(_groups())\n"
    inventory.with_suffix(".py").write_text(shim)
    return inventory


def test_fifty_networks(fleet, tmp_path: Path, record_property, capsys) -> None:
    lab: Lab = fleet(declare(tmp_path))
    for host in HOSTS:
        count_questions(lab, host)
    first = deploy(lab, cold=True)
    before = {host: questions(lab, host) for host in HOSTS}
    second = deploy(lab, cold=True)
    assert second.changed == {}
    assert {host: questions(lab, host) - before[host] for host in HOSTS} == dict.fromkeys(HOSTS, 1)
    with capsys.disabled():
        print(f"\n{NETWORKS} networks on 2 hosts: first run {first.seconds:.1f} s, no-op {second.seconds:.1f} s")
    record_property("first run, s", round(first.seconds, 1))
    record_property("no-op, s", round(second.seconds, 1))
    # What else the machine does makes all of them longer.
    assert second.seconds < first.seconds / 4
    for host in HOSTS:
        mounts = lab.exec(host, "ls /run/netns | wc -l; grep -c ' - nsfs ' /proc/1/mountinfo").stdout.split()
        assert mounts[0] == mounts[1] == str(2 * NETWORKS), "systemd reads every mount for each command of a unit"
    for network in list(plan_of(lab).networks.values())[:: NETWORKS // 5]:
        near, far = network.containers
        inside(lab, near.slot, "ping", "-c", "1", "-W", "3", f"{far.slot}.{network.names.suffix}")
    # A network more is the difference alone.
    project = lab.inventory / "projects" / "p0.yaml"
    project.write_text(project.read_text().replace('["lab-1", "lab-2"]', '["lab-1", "lab-2", "lab-2"]'))
    more = deploy(lab, cold=True)
    assert set(more.changed) >= {"record numbers", "add what is new", "switch what has moved"}
    assert more.seconds < first.seconds / 2
    assert deploy(lab).changed == {}
