"""The audit on three real hosts: green after a deploy, red for each drift by hand, green after the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from runs import BLOG, SHOP, deploy, plan_of

from privnet.lab import Lab
from privnet.plan.host import HostPlan
from privnet.plan.overlay import Overlay

HOSTS = ("lab-1", "lab-2", "lab-3")
QUICK_CHECKS = ("answer", "files", "units", "guard", "mesh", "overlay", "containers", "names")
CHECKS = (*QUICK_CHECKS, "reach", "isolation", "handshakes")


@dataclass(frozen=True)
class Audited:
    """One audit: exit code, what a person sees, what a machine reads."""

    code: int
    output: str
    data: dict[str, Any]
    seconds: float

    @property
    def red(self) -> dict[tuple[str, str], list[str]]:
        """``subject: expected …, actual …`` of every deviation, by host and check."""
        return {
            (host, check): [
                f"{d['subject']}: expected {d['expected']}, actual {d['actual']}"
                for d in one["deviations"]
            ]
            for host, checks in self.data["hosts"].items()
            for check, one in checks.items()
            if one["result"] == "deviation"
        }


@dataclass(frozen=True)
class Drift:
    """What a hand does on a host, and what the audit is to say of it: one part of a line for each deviation."""

    host: str
    command: str
    seen: dict[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def lab(fleet, inventory_copy) -> Lab:
    """Three hosts, deployed to."""
    lab = fleet(inventory_copy("lab"))
    deploy(lab)
    return lab


WATCH = "privnet-guard-watch.service"


def audit(lab: Lab, *arguments: str) -> Audited:
    """``privnet audit INVENTORY`` with these arguments."""
    report = lab.inventory.parent / "audit.json"
    report.unlink(missing_ok=True)
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "privnet.audit", str(lab.inventory), "--json", str(report), *arguments],
        capture_output=True, text=True, env={**os.environ, "PRIVNET_LAB": lab.name}, timeout=120, cwd="/",
    )  # fmt: skip
    data = json.loads(report.read_text()) if report.exists() else {}
    return Audited(done.returncode, done.stdout + done.stderr, data, time.monotonic() - begun)


def overlay_of(lab: Lab, host: str, network: str) -> Overlay:
    return next(overlay for overlay in host_plan(lab, host).overlays if overlay.network.id == network)


def host_plan(lab: Lab, host: str) -> HostPlan:
    return plan_of(lab).hosts[host]


def assert_reported(audited: Audited, drifts: list[Drift]) -> None:
    """Every drift is reported on its host and in its check, and nothing else is."""
    expected: dict[tuple[str, str], list[str]] = {}
    for drift in drifts:
        for check, parts in drift.seen.items():
            expected.setdefault((drift.host, check), []).extend(parts)
    assert set(audited.red) == set(expected), audited.output
    for place, parts in expected.items():
        lines = audited.red[place]
        assert len(lines) == len(parts), (place, lines)
        for part in parts:
            assert sum(part in line for line in lines) == 1, (part, lines)
    assert audited.code == 1
    for host, check in expected:
        assert any(line.split()[:3] == [host, check, "DEVIATION"] for line in audited.output.splitlines())


def drift_and_repair(lab: Lab, drifts: list[Drift], *arguments: str) -> None:
    """Make the drifts, see them reported, deploy, see all green, deploy again without a change."""
    for drift in drifts:
        lab.exec(drift.host, ["sh", "-euc", drift.command])
    assert_reported(audit(lab, *arguments), drifts)
    repaired = deploy(lab)
    after = audit(lab, *arguments)
    assert (after.code, after.red) == (0, {}), (repaired.changed, after.output)
    assert deploy(lab).changed == {}


def test_is_green_after_a_deploy_with_a_line_for_each_host_and_check(lab: Lab, tmp_path: Path) -> None:
    audited = audit(lab, "--junit", str(tmp_path / "junit.xml"))
    assert (audited.code, audited.red) == (0, {}), audited.output
    assert audited.seconds < 15
    lines = [line.split() for line in audited.output.splitlines()]
    assert {(line[0], line[1]) for line in lines if line[2] == "ok"} == {(h, c) for h in HOSTS for c in CHECKS}
    assert lines[-1][:2] == ["as", "planned"]
    assert audited.data["green"] is True
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    counts = [int(suite.get(what, "-1")) for what in ("tests", "failures", "errors", "skipped")]
    assert counts == [len(HOSTS) * len(CHECKS), 0, 0, 0]


def test_one_host_alone_is_audited_alone(lab: Lab) -> None:
    audited = audit(lab, "--host", "lab-2")
    assert (audited.code, audited.red, list(audited.data["hosts"])) == (0, {}, ["lab-2"]), audited.output
    unknown = audit(lab, "--host", "lab-9")
    assert unknown.code == 2
    assert "declares no host 'lab-9'; it declares lab-1, lab-2, lab-3" in unknown.output


def test_a_refused_declaration_ends_with_2_and_contacts_no_host(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text("fleet: bad\nhosts: {a: {address: nowhere}}\n")
    done = subprocess.run(
        [sys.executable, "-m", "privnet.audit", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "fleet.yaml:2:" in done.stderr and "No host was contacted." in done.stderr
    assert "Traceback" not in done.stderr


def test_reports_and_repairs_drift_of_running_state(lab: Lab) -> None:
    """Peer, guard element, FDB entry, guard rule, neighbour, stopped unit."""
    one, three = host_plan(lab, "lab-1"), host_plan(lab, "lab-3")
    peer = next(peer for peer in one.mesh.peers if peer.host == "lab-2")
    speaker = one.guard.speakers[0]
    mac = speaker.mac.replace(":", "")
    element = f"{speaker.vtep} . 0x{speaker.vni:x} . 0x{mac} . 0x{mac[4:]}"
    overlay = overlay_of(lab, "lab-2", SHOP)
    vxlan, moved = overlay.network.vxlan, overlay.remotes[0]
    wrong = next(host.mesh.address for host in (one, three) if host.mesh.address != moved.vtep)
    rule = "nft -a list chain inet privnet egress | sed -n 's/.*VXLAN in clear.*handle //p'"
    silent = overlay_of(lab, "lab-3", SHOP).remotes[0].container
    resolver = f"privnet-dns@{SHOP}.service"
    drift_and_repair(
        lab,
        [
            Drift(
                "lab-1",
                f"wg set privnet peer {peer.public_key} remove",
                {"mesh": (f"peer lab-2: expected {peer.public_key}, actual nothing",)},
            ),
            Drift(
                "lab-1",
                f"nft 'delete element inet privnet speakers {{ {element} }}'",
                {"guard": (f"element of inet privnet speakers: expected {speaker.vtep} . {speaker.vni} ",)},
            ),
            Drift(
                "lab-2",
                f"bridge fdb replace {moved.container.mac} dev {vxlan} dst {wrong} self static",
                {"overlay": (f"FDB of {vxlan}: {moved.container.mac}: expected {moved.vtep}, actual {wrong}",)},
            ),
            Drift(
                "lab-2",
                # The host's own watch would have the rule back before anybody looks.
                f"systemctl stop {WATCH}; nft delete rule inet privnet egress handle $({rule})",
                {
                    "guard": ('comment "VXLAN in clear", actual nothing',),
                    "units": (f"{WATCH}: expected active, actual inactive (dead)",),
                },
            ),
            Drift(
                "lab-3",
                f"ip neigh del {silent.address} dev {vxlan}",
                {"overlay": (f"neighbours of {vxlan}: {silent.address}: expected {silent.mac}, actual nothing",)},
            ),
            Drift(
                "lab-3",
                f"systemctl stop {resolver}",
                {
                    "units": (f"{resolver}: expected active, actual inactive (dead)",),
                    "names": (f"resolver of {SHOP}: expected answers, actual refused",),
                },
            ),
        ],
        "--quick",
    )


def test_reports_and_repairs_drift_of_devices_names_and_files(lab: Lab) -> None:
    """Wrong MTU, a wrong name, a deleted device, an extra namespace, a changed file, an extra address on a bridge."""
    shop, blog = overlay_of(lab, "lab-1", SHOP).network, overlay_of(lab, "lab-2", BLOG).network
    record = shop.names.records[0]
    hosts_file = f"/etc/privnet/names/{SHOP}.hosts"
    address = record.address
    drift_and_repair(
        lab,
        [
            Drift(
                "lab-1",
                f"ip link set dev {shop.vxlan} mtu {shop.mtu - 90}",
                {"overlay": (f"{shop.vxlan}: MTU: expected {shop.mtu}, actual {shop.mtu - 90}",)},
            ),
            Drift(
                "lab-1",
                f"printf '10.240.3.3 evil.{shop.names.suffix} {record.names[0]}\n' >> {hosts_file}"
                f" && systemctl reload privnet-dns@{SHOP}.service && sleep 0.5",
                {
                    "files": (f"{hosts_file} (sha256)",),
                    "names": (
                        f"{record.names[0]} A: expected {address}, actual {address} 10.240.3.3",
                        f"{record.names[0]} A over TCP: expected {address}, actual {address} 10.240.3.3",
                    ),
                },
            ),
            Drift(
                "lab-2",
                f"ip link delete dev {blog.vxlan}",
                {"overlay": (f"device {blog.vxlan}: expected a VXLAN device, actual nothing",)},
            ),
            Drift(
                "lab-2",
                "ip netns add 7.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053",
                {"containers": ("namespace 7.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053: expected nothing",)},
            ),
            Drift(
                "lab-3",
                "echo '# by hand' >> /etc/privnet/lib/overlay.sh",
                {"files": ("/etc/privnet/lib/overlay.sh (sha256)",)},
            ),
            Drift(
                "lab-3",
                f"ip address add 203.0.113.77/32 dev {shop.bridge}",
                {"overlay": (f"{shop.bridge}: address: expected nothing, actual 203.0.113.77/32",)},
            ),
        ],
        "--quick",
    )


def test_reports_and_repairs_what_is_too_much_or_half_there(lab: Lab) -> None:
    """Stray peer, forwarding entry and unit file; no barrier; a lost container port; changes inside a namespace."""
    shop = overlay_of(lab, "lab-1", SHOP)
    vxlan = shop.network.vxlan
    key = "A" * 42 + "A="
    lost = overlay_of(lab, "lab-2", SHOP).ports[-1]
    changed = overlay_of(lab, "lab-3", SHOP).ports[-1]
    mesh = host_plan(lab, "lab-2").mesh.prefix
    stray = "/etc/systemd/system/privnet-dns@.service.d/by-hand.conf"
    drift_and_repair(
        lab,
        [
            Drift(
                "lab-1",
                f"wg set privnet peer {key} allowed-ips 100.64.9.9/32",
                {"mesh": (f"peer: expected nothing, actual stray {key} at (none) for 100.64.9.9/32",)},
            ),
            Drift(
                "lab-1",
                f"bridge fdb append 00:00:00:00:00:00 dev {vxlan} dst 100.64.9.9 self permanent",
                {"overlay": (f"FDB of {vxlan}: 00:00:00:00:00:00: expected nothing, actual 100.64.9.9",)},
            ),
            Drift(
                "lab-1",
                f"mkdir -p {Path(stray).parent} && touch {stray}",
                {"files": (f"{stray}: expected nothing",)},
            ),
            Drift(
                "lab-2",
                f"ip route del unreachable {mesh} metric 4294967295",
                {"guard": (f"barrier behind the mesh: expected unreachable {mesh}",)},
            ),
            Drift(
                "lab-2",
                f"ip link delete dev {lost.name}",
                {
                    "containers": (
                        f"port {lost.name} of {lost.netns}: expected a veth device, actual nothing",
                        f"namespace {lost.netns}: interface pn0: expected there, actual nothing",
                    )
                },
            ),
            Drift(
                "lab-3",
                f"ip -n {changed.netns} link set dev pn0 mtu 1280"
                f" && ip -n {changed.netns} address add 10.240.3.9/32 dev pn0",
                {
                    "containers": (
                        f"namespace {changed.netns}: MTU: expected {changed.mtu}, actual 1280",
                        f"namespace {changed.netns}: address: expected {changed.address}/22, "
                        f"actual {changed.address}/22 10.240.3.9/32",
                    )
                },
            ),
        ],
        "--quick",
    )


def test_packets_show_what_a_broken_path_and_a_bridge_with_an_address_mean(lab: Lab) -> None:
    """The whole audit: containers that no longer reach each other, and a host that reaches its containers."""
    one = overlay_of(lab, "lab-1", BLOG)
    broken = next(remote for remote in one.remotes if remote.container.host == "lab-3")
    near = one.ports[1]
    inside = overlay_of(lab, "lab-2", SHOP)
    lab.exec("lab-1", f"bridge fdb del {broken.container.mac} dev {one.network.vxlan} dst {broken.vtep} self")
    opened = f"systemctl stop {WATCH}; nft 'flush chain bridge privnet host; flush chain bridge privnet output'"
    lab.exec("lab-2", f"ip address add 10.240.3.250/22 dev {inside.network.bridge} && {opened}")
    audited = audit(lab)
    red = audited.red
    # The way from lab-1 is gone, and so is the way back to lab-3: both ends say so, with names.
    assert {place for place in red if place[1] in ("reach", "isolation")} == {
        ("lab-1", "reach"), ("lab-3", "reach"), ("lab-2", "isolation"),
    }, audited.output  # fmt: skip
    assert ("lab-1", "overlay") in red and ("lab-2", "overlay") in red
    assert any(line.startswith(f"{near.netns} → {broken.container.slot} on lab-3") for line in red["lab-1", "reach"])
    assert any(line.startswith(f"{broken.container.slot} → {near.netns} on lab-1") for line in red["lab-3", "reach"])
    crossing = f"host lab-2 → {inside.ports[1].netns}"
    assert any(line.startswith(crossing) for line in red["lab-2", "isolation"])
    deploy(lab)
    after = audit(lab)
    assert (after.code, after.red) == (0, {}), after.output


def test_a_host_that_cannot_be_reached_is_one_line_and_stops_nobody(lab: Lab) -> None:
    lab.exec("lab-1", "systemctl stop ssh.service ssh.socket")
    try:
        audited = audit(lab)
    finally:
        lab.exec("lab-1", "systemctl start ssh.service")
    assert set(audited.red) == {("lab-1", "answer")}, audited.output
    assert audited.code == 1
    assert audited.data["hosts"]["lab-1"]["reach"]["result"] == "not possible"
    assert audited.data["hosts"]["lab-2"]["reach"]["result"] == "ok"
    assert sum("lab-1" in line and "DEVIATION" in line for line in audited.output.splitlines()) == 1


@pytest.mark.parametrize("command", ["printf '\\033[31mall is well\\033[0m'", "yes all is well | head -c 3000000"])
def test_a_host_that_prints_nonsense_is_one_line_without_control_characters(lab: Lab, command: str) -> None:
    forced = "/etc/ssh/sshd_config.d/nonsense.conf"
    lab.exec("lab-1", ["sh", "-euc", f'echo "ForceCommand {command}" > {forced}; systemctl reload ssh.service'])
    try:
        audited = audit(lab, "--quick")
    finally:
        lab.exec("lab-1", f"rm {forced}; systemctl reload ssh.service")
    assert set(audited.red) == {("lab-1", "answer")}, audited.output
    assert len(audited.red["lab-1", "answer"]) == 1
    assert "its answer is not complete" in audited.output
    assert "\x1b" not in audited.output.replace("\\x1b", "")
    assert "Traceback" not in audited.output
