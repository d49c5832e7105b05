"""What is accepted and may surprise is said: the number of tunnels, and networks in use that get other numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from privnet.compiler import compile_fleet
from privnet.diagnostics import render_text
from privnet.plan import consequences
from privnet.store import save_lock

NOW = 1_700_000_000
AP = "ap-a71da13f-7c70-4c00-a644-eee8558d8053"
PN = "pn-ad0fd6a1-d05e-40ea-bf63-c4f8a75a9d8c"


def fleet(directory: Path, hosts: int, network: str = "") -> Path:
    """A fleet with one network that has a container on each host."""
    (directory / "projects").mkdir(parents=True, exist_ok=True)
    rows = (f"  h{n}: {{address: 10.0.{n >> 8}.{n & 255}}}\n" for n in range(1, hosts + 1))
    (directory / "fleet.yaml").write_text("fleet: wide\nhosts:\n" + "".join(rows))
    places = ", ".join(f"h{n}" for n in range(1, hosts + 1))
    (directory / "projects" / "shop.yaml").write_text(
        f"project: shop\nprivate_network:\n  id: {PN}\n{network}"
        "  terms: {accepted_by: a, accepted_on: 2025-09-25, version: b}\n"
        f"applications:\n  {AP}: {{formation: {{worker: [{places}]}}}}\n"
    )
    return directory


def warned(directory: Path) -> list[str]:
    compiled = compile_fleet(directory, NOW)
    assert {problem.severity for problem in compiled.warnings} <= {"warning"}
    return [f"{problem.code} {problem.message}" for problem in compiled.warnings if problem.code > "PN702"]


def test_the_number_of_tunnel_ends_is_said_beyond_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = fleet(tmp_path, 12)
    assert warned(directory) == []
    monkeypatch.setattr(consequences, "TUNNELS_AT_MOST", 12 * 11)
    assert warned(directory) == []
    monkeypatch.setattr(consequences, "TUNNELS_AT_MOST", 12 * 11 - 1)
    assert warned(directory) == ["PN703 the mesh would have 132 tunnel ends"]
    compiled = compile_fleet(directory, NOW)
    text = render_text(compiled.warnings, color=False, sources=compiled.declaration.sources)
    assert "fleet.yaml:3:3" in text
    assert "this host alone is a peer of 11 hosts" in text
    assert "the widest network on it is that of `shop`" in text


def test_501_hosts_that_share_a_network_are_beyond_the_limit(tmp_path: Path) -> None:
    assert warned(fleet(tmp_path, 501)) == ["PN703 the mesh would have 250,500 tunnel ends"]


def test_hosts_of_a_network_without_a_common_family_are_a_warning(tmp_path: Path) -> None:
    """Each hears the other's endpoint alone: a run would end well, and one host be alone."""
    directory = fleet(tmp_path, 3)
    file = directory / "fleet.yaml"
    assert warned(directory) == []
    file.write_text(file.read_text().replace("h3: {address: 10.0.0.3}", 'h3: {address: "2001:db8::3"}'))
    said = f"`h1` (10.0.0.1) and `h3` (2001:db8::3) share private network {PN} (project `shop`), and no address family"
    assert warned(directory) == [f"PN705 {said}"]
    # An address for SSH may be of another family than the endpoint; and where all have one, all is well.
    file.write_text(file.read_text().replace('"2001:db8::3"}', '"2001:db8::3", endpoint: "10.0.0.3:51820"}'))
    assert warned(directory) == []


def test_new_numbers_of_a_network_are_a_warning_once_it_has_containers(tmp_path: Path) -> None:
    directory = fleet(tmp_path, 2)
    changed = "  vni: 5000\n  cidr: 10.224.0.0/22\n"
    assert warned(fleet(tmp_path, 2, changed)) == []  # nothing was deployed yet
    fleet(tmp_path, 2)
    compiled = compile_fleet(directory, NOW)
    lock = save_lock(directory, compiled.lock)
    assert warned(directory) == []
    name = f"PN704 private network {PN} (project `shop`) gets"
    assert warned(fleet(tmp_path, 2, changed)) == [
        f"{name} VNI 5000 instead of 7000000",
        f"{name} 10.224.0.0/22 instead of 10.240.0.0/22: 2 of its 2 containers get other addresses",
    ]
    assert warned(fleet(tmp_path, 2, "  cidr: 10.240.0.0/20\n")) == []  # larger, and everyone stays
    save_lock(directory, replace(lock, networks={PN: replace(lock.networks[PN], slots={})}))
    assert warned(fleet(tmp_path, 2, changed)) == []  # nobody lives there
