"""docs/audit.md shows what an audit of the tour's fleet prints. Of packets, `tests/lab/test_audit.py` compares more."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from privnet.audit.checks import files, guard, mesh, overlay, units
from privnet.audit.finding import Deviation
from privnet.compiler import compile_fleet
from privnet.plan.host import Plan, plan_fleet

ROOT = Path(__file__).parents[3]
SAMPLE = (ROOT / "docs" / "audit.md").read_text().split("```")[1].splitlines()
CHECKS = {"files": files, "units": units, "guard": guard, "mesh": mesh, "overlay": overlay}


class Nothing:
    """The answer of a host on which there is nothing: what a check has looked at is said all the same."""

    def __getattr__(self, name: str) -> Any:
        return {"tables": frozenset(), "wireguard": None, "owner": ""}.get(name, {})


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Of the fleet after its first run, when each host has a key."""
    fleet = tmp_path_factory.mktemp("page") / "lab"
    shutil.copytree(ROOT / "inventory" / "lab", fleet, ignore=shutil.ignore_patterns("privnet.*", ".*"))
    compiled = compile_fleet(fleet)
    keys = {name: base64.b64encode(hashlib.sha256(name.encode()).digest()).decode() for name in compiled.lock.hosts}
    hosts = {name: replace(host, wireguard=keys[name]) for name, host in compiled.lock.hosts.items()}
    return plan_fleet(compiled.declaration, replace(compiled.lock, hosts=hosts))


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_says_what_the_page_shows(plan: Plan, name: str) -> None:
    head = f"{'lab-1':5}  {name:10}  ok  "
    (shown,) = [line.removeprefix(head) for line in SAMPLE if line.startswith(head)]
    assert CHECKS[name].check(plan.hosts["lab-1"], Nothing()).seen == shown  # type: ignore[attr-defined]


def test_the_entry_that_the_page_has_wrong_is_one_of_the_fleet(plan: Plan) -> None:
    (shown,) = [line.strip() for line in SAMPLE if "expected" in line and "FDB" in line]
    found = re.fullmatch("FDB of (.*): ([0-9a-f:]{17}): expected (.*), actual (.*)", shown)
    assert found is not None
    network = next(one.network for one in plan.hosts["lab-2"].overlays if one.network.vxlan == found[1])
    remote = next(one for one in network.remotes if one.container.mac == found[2])
    assert (remote.container.host, remote.vtep) == ("lab-1", found[3])
    assert found[4] == plan.hosts["lab-3"].mesh.address
    assert str(Deviation(f"FDB of {found[1]}: {found[2]}", found[3], found[4])) == shown
