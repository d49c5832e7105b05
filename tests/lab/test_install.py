"""Machines on which nothing but sshd is installed: the run brings all they need, as root and by sudo."""

from __future__ import annotations

import pytest
from runs import SHOP, STOREFRONT, assert_nothing_installed, container_of, deploy, inside, listening, network_of, probe

from privnet.lab import Lab

pytestmark = pytest.mark.lab

BARE = ("lab-1", "lab-3")
"""One is reached as root, the other as an ordinary user who has sudo."""


def test_a_bare_host_gets_its_packages_and_then_serves(fleet, inventory_copy) -> None:
    lab: Lab = fleet(inventory_copy("lab"), bare=BARE)
    for host in BARE:
        assert_nothing_installed(lab, host)
    assert "user: deploy" in (lab.inventory / "fleet.yaml").read_text()
    first = deploy(lab)
    assert set(BARE) <= set(first.changed["prepare host"])
    assert first.seconds < 180
    assert deploy(lab).changed == {}
    # A bare host has no python3 for a listener, so the third one listens, and asks both.
    listener, asking = f"2.web.{STOREFRONT}", (f"1.web.{STOREFRONT}", f"1.worker.{STOREFRONT}")
    assert {container_of(lab, slot).host for slot in asking} == set(BARE)
    suffix = network_of(lab, SHOP).names.suffix
    with listening(lab, listener):
        for slot in asking:
            name = f"{listener}.{suffix}"
            assert inside(lab, slot, "getent", "hosts", name).split()[0] == container_of(lab, listener).address
            echo = f"exec 3<>/dev/tcp/{name}/80; echo canary >&3; read -r -t 5 line <&3; echo $line"
            assert inside(lab, slot, "bash", "-c", echo) == "canary\n"
    for slot in asking:
        assert probe(lab, listener, "tcp", f"{slot}.{suffix}") == "REFUSED", "nobody listens there, but it answers"
    for host in BARE:
        # The package `dnsmasq` would start a resolver of its own on every address.
        assert not lab.exec(host, "dpkg-query -W -f '${db:Status-Abbrev}' dnsmasq", check=False).stdout.startswith("ii")
        assert lab.exec(host, "ss -Hlnu 'sport = 53'").stdout == ""
