"""Debian's own Docker beside private networks: what its start does to them, and that the remedy of a run lasts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from runs import STOREFRONT, WATCHED, container_of, deploy, inside
from test_audit import audit

from privnet.deploy.remedies import DOCKER_PASSES
from privnet.lab import Lab, image
from privnet.lab.process import wait_until

pytestmark = pytest.mark.lab

RELEASES = {"lab-1": "bookworm", "lab-3": "trixie"}
SLOTS = {"lab-1": f"1.web.{STOREFRONT}", "lab-3": f"1.worker.{STOREFRONT}"}
PACKAGE = ".".join(("docker", "io"))
"""Debian's name of it is a registry's too, and those are named nowhere here."""
FAR = f"2.web.{STOREFRONT}"
"""On `lab-2`."""
COMMANDS = re.findall("`([^`]+)`", DOCKER_PASSES)
"""What a run prints: the rule, and what makes each start of Docker add it."""
DROP_IN = "/etc/systemd/system/docker.service.d/private-networks.conf"


@pytest.fixture(scope="module")
def lab(fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]) -> Lab:
    lab = fleet(inventory_copy("lab"), releases={"lab-3": "trixie"})
    deploy(lab)
    return lab


def install(lab: Lab, host: str) -> None:
    """As apt-get installs Debian's own package: Docker is started at once."""
    release = RELEASES.get(host, "bookworm")
    less = image.full(release)
    packages = image.package_archive(print, release, replace(less, packages=(*less.packages, PACKAGE)), less)
    shutil.copytree(packages, lab.machine(host).root / "root" / "docker")
    lab.exec(host, "DEBIAN_FRONTEND=noninteractive dpkg --install /root/docker/*.deb", timeout=300)
    assert_docker_runs(lab, host)


def assert_docker_runs(lab: Lab, host: str) -> None:
    """It forwards for its containers, and bridged frames pass its rules."""
    active = ["systemctl", "is-active", "docker.service"]
    assert wait_until(lambda: lab.exec(host, active, check=False).returncode == 0, 120)
    said = lab.exec(host, "sysctl -n net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables; iptables -S").stdout
    assert said.startswith("1\n1\n") and "-N DOCKER-USER" in said


def reaches(lab: Lab, host: str) -> bool:
    """Whether a container of the host reaches one of `lab-2`."""
    ping = ("ping", *WATCHED, "-c", "2", "-W", "3", container_of(lab, FAR).address)
    return " 0 received" not in inside(lab, SLOTS[host], *ping, check=False)


def assert_as_planned(lab: Lab, host: str) -> None:
    """Traffic flows, a run finds nothing to do, and the audit, which tries every way, nothing to say."""
    assert reaches(lab, host)
    assert deploy(lab).changed == {}
    found = audit(lab)
    assert (found.code, found.red) == (0, {}), found.output


def refusal(lab: Lab, host: str) -> str:
    """What a run says of the host, on which it changes nothing."""
    refused = deploy(lab, check=False)
    assert refused.code == 1 and refused.json["results"]["failed_hosts"] == [host]
    return next(line for line in refused.output.splitlines() if f"privnet: {host}: " in line)


def test_names_that_another_package_brings_touch_no_rule(lab: Lab) -> None:
    """As netbase, which comes with Docker, brings those of protocols: nft prints rules by them."""
    lab.exec("lab-2", "echo 'udp 17 UDP' > /etc/protocols")
    assert "l4proto udp" in lab.exec("lab-2", "nft list table inet privnet").stdout, "the twin: what is printed differs"
    assert_as_planned(lab, "lab-1")
    lab.exec("lab-2", "rm /etc/protocols")
    assert_as_planned(lab, "lab-1")


@pytest.mark.parametrize("host", RELEASES)
def test_what_a_run_says_against_docker_lasts_over_a_reboot(lab: Lab, host: str) -> None:
    assert reaches(lab, host)
    install(lab, host)
    assert not reaches(lab, host), "the twin: a Docker that starts cuts private networks"
    said = refusal(lab, host)
    assert "its firewall would drop private traffic: chain ip filter FORWARD" in said and DOCKER_PASSES in said
    # The first command alone helps at once, and until the next boot.
    lab.exec(host, COMMANDS[0])
    assert_as_planned(lab, host)
    lab.reboot(host)
    assert_docker_runs(lab, host)
    assert not reaches(lab, host), "the twin: a rule by hand is gone"
    for command in COMMANDS:
        lab.exec(host, command)
    assert_as_planned(lab, host)
    for again in (lambda: lab.reboot(host), lambda: lab.exec(host, "systemctl restart docker.service")):
        again()
        assert_docker_runs(lab, host)
        assert lab.exec(host, "iptables -S DOCKER-USER").stdout.count(" -i pnb+ -o pnb+ ") == 1
        assert_as_planned(lab, host)


def test_docker_that_did_not_switch_forwarding_on_drops_nothing(lab: Lab) -> None:
    """The second of the lasting ways in docs/operations.md, without the first."""
    lab.exec("lab-1", f"rm {DROP_IN}; echo net.ipv4.ip_forward=1 > /etc/sysctl.d/60-forward.conf")
    lab.reboot("lab-1")
    assert_docker_runs(lab, "lab-1")
    assert "pnb" not in lab.exec("lab-1", "iptables -S").stdout
    assert_as_planned(lab, "lab-1")


def test_a_drop_in_that_is_there_before_docker_lets_private_networks_pass_at_its_first_start(lab: Lab) -> None:
    for command in COMMANDS[1:]:
        lab.exec("lab-2", command)
    install(lab, "lab-2")
    for host in SLOTS:
        assert_as_planned(lab, host)
