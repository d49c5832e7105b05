"""Hosts whose names mean something to others: keywords of ip(8), and devices that are there already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runs import BLOG, PAGES, deploy, listening, probe

from privnet.lab import Lab

HOSTS = ("master", "a", "vf", "lo", "underlay")


def test_a_fleet_of_hosts_with_such_names_boots_and_serves(
    fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]
) -> None:
    inventory = inventory_copy("lab")
    hosts = "".join(
        f"  {name}: {{address: 192.0.2.{number}, zone: z{number}}}\n" for number, name in enumerate(HOSTS, 11)
    )
    (inventory / "fleet.yaml").write_text(f"fleet: lab\nlab: true\nhosts:\n{hosts}")
    for project in (inventory / "projects").iterdir():
        text = project.read_text()
        for name, host in (("lab-1", "master"), ("lab-2", "a"), ("lab-3", "lo")):
            text = text.replace(name, host)
        project.write_text(text)
    lab = fleet(inventory)
    deploy(lab)
    assert deploy(lab).changed == {}
    lab.reboot("master")
    assert deploy(lab).changed == {}
    with listening(lab, f"2.web.{PAGES}"):
        assert probe(lab, f"1.web.{PAGES}", "tcp", f"2.web.{PAGES}.{BLOG}.private-network.internal") == "REACHED"
