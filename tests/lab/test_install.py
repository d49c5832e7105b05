"""Machines on which nothing but sshd is installed: the run brings all they need, as root and by sudo."""

from __future__ import annotations

import os
import subprocess
import time

import pytest
from runs import (
    DEPLOY,
    PYINFRA,
    SHOP,
    STOREFRONT,
    assert_nothing_installed,
    container_of,
    deploy,
    inside,
    listening,
    network_of,
    probe,
)

from privnet.compiler import compile_fleet
from privnet.lab import Lab
from privnet.store import save_lock

pytestmark = pytest.mark.lab

BARE = ("lab-1", "lab-3")
"""One is reached as root, the other as an ordinary user who has sudo."""


@pytest.mark.proves("bare hosts")
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


# What dpkg says of itself (--status-logger of dpkg(1)); it is held at one line, so that the power is cut there.
HELD = """#!/bin/sh
while read -r line; do
	case $line in
	"status: nftables: STATE"* | "status: nftables:"*": STATE"*)
		kill -STOP $(pidof dpkg)
		: > /root/held
		;;
	esac
done
"""


@pytest.mark.parametrize(("host", "state"), [("lab-1", "half-installed"), ("lab-2", "half-configured")])
def test_a_power_cut_amid_the_packages_is_got_over(fleet, inventory_copy, host: str, state: str) -> None:
    """apt refuses to go on from there by itself; a plain run does."""
    lab: Lab = fleet(inventory_copy("lab"), host, bare=(host,), name=host)
    # The other two hosts are not there: without a lock file they might be, with numbers of their own.
    save_lock(lab.inventory, compile_fleet(lab.inventory).lock)
    lab.exec(host, "cat > /root/hold; chmod 0755 /root/hold", input=HELD.replace("STATE", state))
    lab.exec(host, "mkdir -p /etc/dpkg/dpkg.cfg.d; echo status-logger=/root/hold > /etc/dpkg/dpkg.cfg.d/hold")
    environment = {**os.environ, "PRIVNET_LAB": lab.name, "PYINFRA_PROGRESS": "off"}
    command = [str(PYINFRA), "-y", "--limit", host, str(lab.inventory.with_suffix(".py")), str(DEPLOY)]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, cwd="/", **streams) as run:  # type: ignore[call-overload]
        until = time.monotonic() + 120
        while lab.exec(host, "test -e /root/held", check=False).returncode:
            assert run.poll() is None and time.monotonic() < until
            time.sleep(0.2)
        lab.kill(host)
        run.kill()
    lab.start(host)
    lab.exec(host, "rm /etc/dpkg/dpkg.cfg.d/hold")
    # The twin: nobody else has put it right.
    refused = lab.exec(host, "apt-get -y install nftables < /dev/null", check=False)
    assert refused.returncode == 100 and "dpkg was interrupted" in refused.stderr, refused.stdout + refused.stderr
    done = deploy(lab, "--limit", host)
    assert done.changed["prepare host"] == [host]
    assert lab.exec(host, "dpkg --audit").stdout == ""
    assert deploy(lab, "--limit", host).changed == {}
