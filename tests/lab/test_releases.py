"""A fleet of hosts with different releases of Debian, and what keeps our units alive on each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kernel import until_rested
from runs import (
    STOREFRONT,
    assert_lossless,
    assert_reachable,
    container_of,
    deploy,
    edit,
    flowing,
    killed_at,
    replace_once,
)

from privnet.lab import Lab

RELEASES = {"lab-1": "bookworm", "lab-2": "trixie", "lab-3": "trixie"}
NAMESPACE, GUARD = "privnet-namespace@.service", "privnet-guard.service"
ON_BOOKWORM, ON_TRIXIE = f"1.web.{STOREFRONT}", f"2.web.{STOREFRONT}"


@pytest.fixture(scope="module")
def lab(fleet, inventory_copy) -> Lab:
    lab = fleet(inventory_copy("lab"), releases=RELEASES)
    deploy(lab)
    return lab


def audit(lab: Lab) -> str:
    """The last line of `privnet audit`."""
    done = subprocess.run(
        [sys.executable, "-m", "privnet.audit", str(lab.inventory)],
        env={**os.environ, "PRIVNET_LAB": lab.name},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]


def assert_as_planned(lab: Lab) -> None:
    assert deploy(lab).changed == {}
    assert audit(lab).startswith("as planned")
    assert_reachable(lab)


def test_the_second_run_changes_nothing_and_all_is_as_planned(lab: Lab) -> None:
    found = {host: lab.exec(host, ". /etc/os-release; echo $VERSION_CODENAME").stdout.strip() for host in lab.hosts}
    assert found == RELEASES
    assert_as_planned(lab)


@pytest.mark.parametrize("host", ["lab-1", "lab-2"])
def test_a_reboot_restores_a_host_of_each_release(lab: Lab, host: str) -> None:
    lab.reboot(host)
    assert_as_planned(lab)


def test_a_power_cut_is_survived_by_a_host_of_the_newer_release(lab: Lab) -> None:
    lab.kill("lab-3")
    lab.start("lab-3")
    assert_as_planned(lab)


def test_a_container_moves_to_a_host_of_another_release_and_back(lab: Lab) -> None:
    edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-3, lab-2]")
    deploy(lab)
    assert container_of(lab, ON_BOOKWORM).host == "lab-3"
    assert_as_planned(lab)
    edit(lab, "shop", "web: [lab-3, lab-2]", "web: [lab-1, lab-2]")
    deploy(lab)
    assert_as_planned(lab)


def test_an_unknown_release_is_refused_before_the_first_change_unless_the_fleet_accepts_it(lab: Lab) -> None:
    lab.exec("lab-2", "cp -L /etc/os-release /root/kept && rm /etc/os-release")
    lab.exec("lab-2", "sed 's/^ID=.*/ID=ubuntu/; s/^VERSION_ID=.*/VERSION_ID=\"24.04\"/' /root/kept > /etc/os-release")
    edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-1, lab-2, lab-2]")
    refused = deploy(lab, check=False)
    assert refused.code == 1
    assert "lab-2: its release is `ubuntu 24.04`, on which private networks are not tested" in refused.output
    assert f"NETNS=3.web.{STOREFRONT}" not in lab.exec("lab-2", "cat /etc/privnet/containers/*.conf").stdout
    fleet = lab.inventory / "fleet.yaml"
    declared = fleet.read_text()
    replace_once(fleet, "policy:\n", "policy:\n  releases: [ubuntu 24.04]\n")
    deploy(lab)
    assert_as_planned(lab)
    fleet.write_text(declared)
    lab.exec("lab-2", "rm /etc/os-release && ln -s ../usr/lib/os-release /etc/os-release")
    edit(lab, "shop", "web: [lab-1, lab-2, lab-2]", "web: [lab-1, lab-2]")
    deploy(lab, allow=True)
    assert_as_planned(lab)


@contextmanager
def drop_in(lab: Lab, host: str, unit: str, *lines: str) -> Iterator[None]:
    """These lines come after those of a unit's own file for the length of the block."""
    text = "\\n".join(["[Service]", *lines, ""])
    directory = f"/run/systemd/system/{unit}.d"
    lab.exec(host, f"mkdir -p {directory} && printf '{text}' > {directory}/test.conf && systemctl daemon-reload")
    try:
        yield
    finally:
        lab.exec(host, f"rm -r {directory} && systemctl daemon-reload")


def made_anew(lab: Lab, slot: str) -> str:
    """Let a container's namespace be made anew: what systemctl says, and whether the namespace can be entered."""
    container = container_of(lab, slot)
    unit = NAMESPACE.replace("@", f"@{container.port}")
    said = lab.exec(container.host, f"systemctl stop {unit}; systemctl start {unit} 2>&1; true").stdout
    entered = lab.exec(container.host, ["ip", "netns", "exec", slot, "true"], check=False)
    return said + entered.stderr


UNDONE = {
    "mount would use other system calls": (("UnsetEnvironment=LIBMOUNT_FORCE_MOUNT2",), "failed"),
    "its mounts would be its own": (("PrivateMounts=yes",), "setting the network namespace"),
}


@pytest.mark.parametrize("what", UNDONE)
def test_no_namespace_is_made_on_debian_13_without_a_line_of_its_unit(lab: Lab, what: str) -> None:
    lines, expected = UNDONE[what]
    with drop_in(lab, "lab-2", NAMESPACE, *lines):
        assert expected in made_anew(lab, ON_TRIXIE)
    assert made_anew(lab, ON_TRIXIE) == ""
    deploy(lab)
    assert_as_planned(lab)


def test_no_guard_runs_on_debian_13_without_a_line_of_its_unit(lab: Lab) -> None:
    lines = ("SystemCallFilter=", "SystemCallFilter=@system-service", "SystemCallFilter=~@resources @privileged")
    with drop_in(lab, "lab-3", GUARD, *lines):
        lab.exec("lab-3", f"systemctl restart {GUARD}", check=False)
        assert "status=31/SYS" in lab.exec("lab-3", f"journalctl -u {GUARD} -o cat --no-pager").stdout
    lab.exec("lab-3", f"systemctl restart {GUARD}")
    deploy(lab)
    assert_as_planned(lab)


KEY, OLD_KEY = "/etc/wireguard/privnet.key", "/etc/privnet/wireguard.key"
AS_EARLIER = f"mv {KEY} {OLD_KEY}; sed -i 's|^key=.*|key={OLD_KEY}|; /^old=/d; /^. -s /d' /etc/privnet/lib/mesh.sh"
"""Where an earlier version kept the key, and a program that looks for it there."""


def key_of(lab: Lab, host: str, path: str) -> str:
    return lab.exec(host, f"stat -c '%F %a %U' {path} && wg pubkey < {path}", check=False).stdout


def test_a_key_of_an_earlier_version_moves(lab: Lab) -> None:
    before = {host: key_of(lab, host, KEY) for host in ("lab-1", "lab-2")}
    assert before["lab-1"].startswith("regular file 600 root\n")
    for host in before:
        lab.exec(host, AS_EARLIER)
        assert key_of(lab, host, OLD_KEY) == before[host]
    with flowing(lab, (ON_BOOKWORM, ON_TRIXIE)) as flows:
        deploy(lab)
    assert_lossless(flows)
    for host in before:
        assert (key_of(lab, host, KEY), key_of(lab, host, OLD_KEY)) == (before[host], "")
    assert_as_planned(lab)


@pytest.mark.parametrize("at", ["add what is new to one host", "switch on one host", "retire on one host", "confirm"])
def test_a_host_whose_key_moves_goes_back_when_its_run_is_killed(lab: Lab, at: str) -> None:
    """The programs of the earlier version find the key when they are back."""
    before = key_of(lab, "lab-1", KEY)
    replace_once(lab.inventory / "fleet.yaml", "policy:\n", "policy:\n  rollback: 10s\n")
    lab.exec("lab-1", AS_EARLIER)
    edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-1, lab-3]")
    with flowing(lab, (ON_BOOKWORM, f"1.worker.{STOREFRONT}")) as flows:
        killed_at(lab, at)
        until_rested(lab, within=60)
    assert_lossless(flows)
    wanted = lab.exec("lab-1", "sed -n 's/^key=//p' /etc/privnet/lib/mesh.sh | head -1").stdout.strip()
    assert key_of(lab, "lab-1", wanted) == before
    lab.exec("lab-1", "sh /etc/privnet/lib/mesh.sh assemble")
    deploy(lab)
    assert (key_of(lab, "lab-1", KEY), key_of(lab, "lab-1", OLD_KEY)) == (before, "")
    edit(lab, "shop", "web: [lab-1, lab-3]", "web: [lab-1, lab-2]")
    replace_once(lab.inventory / "fleet.yaml", "policy:\n  rollback: 10s\n", "policy:\n")
    deploy(lab)
    assert_as_planned(lab)


UUTILS = """
for path in /usr/lib/cargo/bin/coreutils/*; do
    program=/usr/bin/${path##*/}
    [ ! -f "$program" ] || [ -L "$program" ] || mount --bind /usr/bin/coreutils "$program"
done
mv --version
"""


def test_a_host_with_the_programs_of_uutils_is_changed_twice_by_a_run_and_goes_back(lab: Lab) -> None:
    """As Ubuntu has them since 25.10. Its `mv -T` cannot put a link in the place of a link to a directory."""
    assert lab.exec("lab-2", UUTILS).stdout.startswith("mv 0."), "not those of GNU"
    links = "cd /root; mkdir x y; ln -s x old; ln -s y new; mv -T new old"
    assert lab.exec("lab-2", links, check=False).returncode != 0, "the twin"
    edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-1, lab-3]")
    deploy(lab)
    assert container_of(lab, ON_TRIXIE).host == "lab-3"
    assert_as_planned(lab)
    edit(lab, "shop", "web: [lab-1, lab-3]", "web: [lab-1, lab-2]")
    deploy(lab)
    assert_as_planned(lab)
    lab.reboot("lab-2")  # the mounts are gone
    assert_as_planned(lab)


# --- what a filter of a unit does to the namespace that is made in it ----------------------------------


def answers_over_ipv6(lab: Lab, slot: str) -> bool:
    """Whether neighbours find each other on a device that somebody else puts into a container's namespace."""
    host = container_of(lab, slot).host
    there = f"ip netns exec {slot}"
    lab.exec(
        host,
        "ip link add other0 type veth peer name other1 && "
        f"ip link set other1 netns {slot} && "
        "ip address add fe80::a/64 dev other0 nodad && ip link set other0 up && "
        f"{there} ip address add fe80::b/64 dev other1 nodad && {there} ip link set other1 up",
    )
    try:
        return lab.exec(host, f"{there} ping -c 1 -W 3 fe80::a%other1", check=False).returncode == 0
    finally:
        lab.exec(host, "ip link delete other0")


@pytest.mark.parametrize("slot", [ON_BOOKWORM, ON_TRIXIE], ids=["bookworm", "trixie"])
def test_no_filter_of_a_unit_stays_with_a_containers_namespace(lab: Lab, slot: str) -> None:
    """Sockets that the kernel opens for a namespace keep the filter of the unit in which it was made."""
    host = container_of(lab, slot).host
    assert answers_over_ipv6(lab, slot)
    with drop_in(lab, host, NAMESPACE, "IPAddressDeny=any"):
        assert made_anew(lab, slot) == ""
    deploy(lab)
    assert not answers_over_ipv6(lab, slot), "the twin: as earlier versions made it"
    assert_as_planned(lab)  # IPv4 does not feel it
    assert made_anew(lab, slot) == ""
    deploy(lab)
    assert answers_over_ipv6(lab, slot)
    assert_as_planned(lab)
