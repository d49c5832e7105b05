"""An auditor's questions have answers: who accepted what and when, what is in which network, how it is encrypted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from privnet.cli import app
from privnet.compiler import compile_fleet
from privnet.report.evidence import CIPHER, evidence_data, plan_hash
from privnet.store import save_lock

OVERRIDE = {"by": "boss@test.example", "on": "2025-10-01"}
ALLOW = {"policy": {"hds": "allow", "hds_allowed": {"by": "dpo@test.example", "on": "2025-09-01"}}}


def typed(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture
def fleet(fleets: Any, written: Callable[..., Path]) -> Path:
    """Two hosts; `shop` has a network and an HDS application by decision, `clinic` has none."""
    shop = fleets.project("shop", {"a": {"web": ["h1", "h2"]}}, enabled_on_existing_project=OVERRIDE)
    shop["applications"][fleets.ap("b")] = {"hds": True, "formation": {"web": ["h1"]}}
    clinic = {"applications": {fleets.ap("c"): {"hds": True}}}
    return written({"hosts": fleets.hosts("h1", "h2"), **ALLOW}, {"shop": shop, "clinic": clinic})


def test_the_evidence_as_data(fleet: Path, fleets: Any) -> None:
    data = json.loads(typed("report", fleet, "--format", "json"))
    (network,) = data["networks"]
    assert network["id"] == fleets.network("shop")["id"]
    assert network["terms"] == fleets.network("shop")["terms"]
    assert network["enabled_on_existing_project"] == OVERRIDE
    assert {a["id"]: a["hds"] for a in network["applications"]} == {fleets.ap("a"): False, fleets.ap("b"): True}
    assert (network["vni"], network["cidr"], network["containers"], network["deployed"]) == (
        7000000,
        "10.240.0.0/22",
        3,
        False,
    )
    assert [project["project"] for project in data["without_network"]] == ["clinic"]
    assert data["policy"] == {"hds": "allow", "hds_allowed": ALLOW["policy"]["hds_allowed"]}
    assert data["encryption"]["cipher"] == CIPHER
    assert [(host["name"], host["peers"]) for host in data["hosts"]] == [("h1", ["h2"]), ("h2", ["h1"])]
    assert data["lock"] == {"serial": 0, "up_to_date": False}


def test_the_evidence_for_people_says_the_same(fleet: Path, fleets: Any) -> None:
    text = typed("report", fleet)
    assert f"plan sha256 {plan_hash(compile_fleet(fleet).plan)}\n" in text
    assert "  terms beta-1 accepted by ops@test.example on 2025-09-25\n" in text
    assert "  enabled on a project that was not empty: decided by boss@test.example on 2025-10-01\n" in text
    assert f"  application {fleets.ap('b')}  HDS\n" in text
    assert "project clinic: no private network\n" in text
    assert "allow, decided by dpo@test.example on 2025-09-01\n" in text


def test_equal_plans_have_equal_hashes_and_others_do_not(fleet: Path, fleets: Any) -> None:
    before = evidence_data(compile_fleet(fleet))["plan"]["sha256"]
    save_lock(fleet, compile_fleet(fleet).lock)
    assert plan_hash(compile_fleet(fleet).plan) == before
    path = fleet / "fleet.yaml"
    path.write_text(path.read_text().replace('{"fleet": "test"', '{"fleet": "test", "dns": {"ttl": 6}'))
    assert plan_hash(compile_fleet(fleet).plan) != before


def test_a_plan_names_the_decisions_that_it_is_the_first_to_follow(fleet: Path, fleets: Any) -> None:
    network = fleets.network("shop")["id"]
    text = typed("plan", fleet)
    accepted = "terms beta-1 accepted by ops@test.example on 2025-09-25"
    assert f"  ! private network {network} is enabled on project shop: {accepted}\n" in text
    assert "  ! project shop was not empty: decided by boss@test.example on 2025-10-01\n" in text
    gets = f"HDS application {fleets.ap('b')} gets access in project shop"
    assert f"  ! {gets}: allowed by dpo@test.example on 2025-09-01\n" in text
    said = json.loads(typed("plan", fleet, "--format", "json"))["decisions"]
    assert [decision["what"] for decision in said] == ["enabled", "enabled on existing project", "HDS allowed"]
    save_lock(fleet, compile_fleet(fleet).lock)
    assert "  ! " not in typed("plan", fleet)
