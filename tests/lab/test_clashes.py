"""What must hold on a host before anything is changed there, found on real ones: it is left alone, the others go on.

A host of the lab has this machine's clock, so one that is off is shown in `tests/unit/deploy/test_preflight.py` alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kernel import difference, dump
from runs import LISTEN, PAGES, assert_reachable, deploy, edit, listener, plan_of

from privnet.audit.fleet import prepare
from privnet.compiler import compile_fleet
from privnet.deploy.facts import Snapshot
from privnet.deploy.state import HostState, parse_snapshot
from privnet.lab import Lab
from privnet.store import save_lock

SAID = {"user", "machine", "systemd", "enabled", "time", "disk", "os", "release", "applied", "generation", "route"}


@pytest.fixture(scope="module")
def lab(fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]) -> Lab:
    """Three hosts on which privnet has never been."""
    return fleet(inventory_copy("lab"))


@contextmanager
def foreign_routes(lab: Lab, host: str) -> Iterator[None]:
    """One in the main table, and one in a table that is asked before it, as a VPN of addresses of its own makes one.

    A table that is asked for some packets only, or after the main one, is no clash.
    """
    routes = ("100.64.7.0/24 dev eth0", "100.64.0.0/10 dev eth0 table 52", "default dev eth0 table 53")
    rules = ("pref 5270 lookup 52", "from 198.51.100.9 pref 5280 lookup 53", "pref 32768 lookup 53")
    lab.exec(host, "; ".join([f"ip route add {r}" for r in routes] + [f"ip rule add {r}" for r in rules]))
    try:
        yield
    finally:
        lab.exec(host, "; ".join([f"ip rule del {r}" for r in rules] + [f"ip route del {r}" for r in routes]))


@contextmanager
def machine_id_of(lab: Lab, host: str, other: str) -> Iterator[None]:
    """A host that is a copy of another, as far as it can tell."""
    own = lab.exec(host, "cat /etc/machine-id").stdout.strip()
    copied = lab.exec(other, "cat /etc/machine-id").stdout.strip()
    lab.exec(host, f"echo {copied} > /etc/machine-id")
    try:
        yield
    finally:
        lab.exec(host, f"echo {own} > /etc/machine-id")


def containers_on(lab: Lab, host: str) -> set[str]:
    return {name for name in lab.exec(host, "ls /run/netns").stdout.split() if ".ap-" in name}


def planned_on(lab: Lab, host: str) -> set[str]:
    return {c.slot for network in plan_of(lab).networks.values() for c in network.containers if c.host == host}


def test_clashes_on_hosts_that_have_no_mesh_yet(lab: Lab) -> None:
    before = dump(lab)
    busy = ["python3", "-c", LISTEN, "51820"]
    with listener(lab, "lab-2", busy), foreign_routes(lab, "lab-3"):
        refused = deploy(lab, check=False)
    assert refused.code == 1
    assert refused.json["results"]["failed_hosts"] == ["lab-2", "lab-3"]
    assert (
        "privnet: lab-2: another program there uses UDP port 51820, which the mesh needs: `ss -lunp` shows which; "
        "end it, or give the fleet another `wireguard.port`\n"
    ) in refused.output
    assert (
        "privnet: lab-3: its route 100.64.7.0/24 by eth0 lies inside the mesh's prefix 100.64.0.0/16: what is for "
        "other hosts would go there. Take the route away, or give the fleet another `wireguard.mesh`; "
        "its route 100.64.0.0/10 by eth0 in table 52, which is asked before the main one, holds the mesh's prefix "
        "100.64.0.0/16: what is for other hosts would go there. Take the route away, or give the fleet another "
        "`wireguard.mesh`\n"
    ) in refused.output
    after = dump(lab)
    for host in ("lab-2", "lab-3"):
        assert difference({host: before[host]}, {host: after[host]}) == ""
        assert lab.exec(host, "ls /etc/privnet", check=False).returncode != 0
    # The twin: the third one is changed, and has what it is to have.
    assert containers_on(lab, "lab-1") == planned_on(lab, "lab-1") != set()
    deploy(lab)
    assert deploy(lab).changed == {}
    assert_reachable(lab)


FOREIGN = "/etc/systemd/network/50-old.network"


def test_a_networkd_that_would_cut_the_host_off_is_not_started(
    fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]
) -> None:
    """It is off, and somebody has left a file for ports that are to stay dark, which fits the uplink."""
    lab = fleet(inventory_copy("lab"), "lab-1", name="networkd")
    # The other two hosts are not there: without a lock file they might be, with numbers of their own.
    save_lock(lab.inventory, compile_fleet(lab.inventory).lock)

    def write(devices: str) -> None:
        lines = ("[Match]", f"Name={devices}", "[Link]", "ActivationPolicy=always-down")
        lab.exec("lab-1", f"cat > {FOREIGN}", input="".join(f"{line}\n" for line in lines))

    def answers() -> bool:
        return not lab.exec("operator", "timeout 3 bash -c '</dev/tcp/192.0.2.11/22'", check=False).returncode

    write("wl* eth*")
    before = dump(lab)
    refused = deploy(lab, "--limit", "lab-1", check=False)
    assert refused.code == 1
    said = "privnet: lab-1: its systemd-networkd is off, private networks need it, and once started it would set up "
    said += f"devices of the host by {FOREIGN}: "
    assert f"{said}that can cut the host off, and nothing would take it back" in refused.output
    assert difference(before, dump(lab)) == "" and answers()
    # The twin: that is what it would have done.
    lab.exec("lab-1", "systemctl start systemd-networkd.service && sleep 3")
    assert not answers()
    write("wl* tun*")
    lab.reboot("lab-1")
    assert answers()
    # The other one: a file for devices that are not there keeps nobody from anything.
    deploy(lab, "--limit", "lab-1")
    assert answers() and lab.exec("lab-1", "systemctl is-active systemd-networkd.service").stdout == "active\n"


def test_a_copied_machine(lab: Lab) -> None:
    deploy(lab)
    before = dump(lab)
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-3]\n      cron: [lab-1, lab-2]")
    with machine_id_of(lab, "lab-2", "lab-3"):
        refused = deploy(lab, check=False)
    assert refused.code == 1
    assert refused.json["results"]["failed_hosts"] == ["lab-2", "lab-3"]
    for host, other in (("lab-2", "lab-3"), ("lab-3", "lab-2")):
        assert f"privnet: {host}: it has the machine-id of {other}: one is a copy of the other" in refused.output
    after = dump(lab)
    assert difference({h: before[h] for h in ("lab-2", "lab-3")}, {h: after[h] for h in ("lab-2", "lab-3")}) == ""
    assert f"1.cron.{PAGES}" in containers_on(lab, "lab-1"), "the twin"
    deploy(lab)
    assert f"2.cron.{PAGES}" in containers_on(lab, "lab-2")
    assert deploy(lab).changed == {}
    assert_reachable(lab)


GUESTS = {
    "br0p": ("veth", "ip link add br0p type veth peer name br0q"),
    "tap0": ("tun", "ip tuntap add dev tap0 mode tap"),
    "vx0": ("vxlan", "ip link add vx0 type vxlan id 7 dstport 4790 local 192.0.2.11"),
}
"""What engines and people put into a bridge, with its kind, and how it is made."""


def test_devices_of_others_in_and_on_a_private_networks_bridge(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run names each before it changes anything, and so does the audit; without them all is as planned."""
    monkeypatch.setenv("PRIVNET_LAB", lab.name)  # the audit runs in this process
    deploy(lab)
    bridge, before = plan_of(lab).hosts["lab-1"].overlays[0].network.bridge, dump(lab, "lab-1")
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-1]")
    for name, (_, make) in GUESTS.items():
        lab.exec("lab-1", f"{make}; ip link set dev {name} master {bridge} up")
    lab.exec("lab-1", f"ip link add name mv0 link {bridge} type macvlan")
    try:
        refused = deploy(lab, check=False)
        told = " ".join(refused.output.split())
        assert refused.code == 1 and refused.json["results"]["failed_hosts"] == ["lab-1"]
        ports = "br0p (veth), tap0 (tun), vx0 (vxlan)"
        assert f"its bridge {bridge}, which is privnet's, has ports that no plan has: {ports}." in told
        assert f"its device {bridge}, which is privnet's, carries others: mv0 (macvlan)." in told
        assert difference(before, dump(lab, "lab-1")) == ""
        seen = audited(lab, "lab-1")
        wanted = [f"{bridge}: port {name}: expected nothing, actual a foreign {GUESTS[name][0]}" for name in GUESTS]
        assert [line for line in seen if ": port " in line] == wanted
        assert f"{bridge}: device mv0 on it: expected nothing, actual a foreign macvlan" in seen
        for command in re.findall("`(ip link (?:set dev [a-z0-9]+ nomaster|delete dev mv0))`", told):
            lab.exec("lab-1", command)
        deploy(lab)
        assert audited(lab, "lab-1") == []
    finally:
        for name in (*GUESTS, "mv0"):
            lab.exec("lab-1", f"ip link delete dev {name}", check=False)
    assert_reachable(lab)


def audited(lab: Lab, host: str) -> list[str]:
    """What the audit of a host says, without packets between containers."""
    auditing = prepare(lab.inventory, [host], quick=True)
    try:
        findings = [auditing.finding(name, check) for name, check in auditing.items()]
    finally:
        auditing.end()
    return [str(deviation) for finding in findings for deviation in finding.deviations]


def test_a_host_says_all_that_is_judged(lab: Lab) -> None:
    """What it stops to say would be judged by nobody. The ports that it listens on are in the first test."""
    deploy(lab)
    for host in lab.hosts:
        lines = lab.exec(host, Snapshot().command().get_raw_value()).stdout.splitlines()
        system = lines[lines.index("##privnet system") + 1 : lines.index("##privnet packages")]
        assert {line.split(" ")[0] for line in system} >= SAID
        found = parse_snapshot(lines)
        assert isinstance(found, HostState)
        assert abs(found.clock - int(lab.exec(host, "date +%s").stdout)) < 60
        assert found.machine == lab.exec(host, "cat /etc/machine-id").stdout.strip()
        assert all(disk.free > 0 for disk in found.disks.values())
        free = int(lab.exec(host, "stat -f -c %d /run").stdout)
        assert free // 2 <= found.disks["/run"].files <= free * 2
