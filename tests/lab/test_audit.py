"""The audit on three real hosts: green after a deploy, red for each drift by hand, green after the next."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from kernel import as_owner
from runs import BLOG, SHOP, deploy, plan_of

from privnet.lab import Lab
from privnet.plan.host import HostPlan
from privnet.plan.overlay import Overlay

HOSTS = ("lab-1", "lab-2", "lab-3")
QUICK_CHECKS = ("answer", "files", "units", "guard", "mesh", "overlay", "containers", "resolvers", "names")
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
                f"{d['subject']}: expected {d['expected']}, actual {d['actual']}" for d in one["deviations"]
            ]
            for host, checks in self.data["hosts"].items()
            for check, one in checks.items()
            if one["result"] == "deviation"
        }


@pytest.fixture(scope="module")
def lab(shared_fleet) -> Lab:
    """Three hosts, deployed to."""
    return shared_fleet("lab")


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


@pytest.mark.proves("P14", "audit")
def test_is_green_after_a_deploy_with_a_line_for_each_host_and_check(lab: Lab, tmp_path: Path) -> None:
    audited = audit(lab, "--junit", str(tmp_path / "junit.xml"))
    assert (audited.code, audited.red) == (0, {}), audited.output
    assert audited.seconds < 30
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


@pytest.mark.proves("P8")
def test_a_refused_declaration_ends_with_2_and_contacts_no_host(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text("fleet: bad\nhosts: {a: {address: nowhere}}\n")
    done = subprocess.run(
        [sys.executable, "-m", "privnet.audit", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "fleet.yaml:2:" in done.stderr and "No host was contacted." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.proves("P14", "audit")
def test_a_deviation_is_a_line_and_what_follows_from_it_is_beside_it(lab: Lab) -> None:
    """Each drift alone, and its repair, is in test_drift.py; here is what a person and a machine get to see."""
    peer = next(peer for peer in host_plan(lab, "lab-1").mesh.peers if peer.host == "lab-2")
    resolver = f"privnet-dns@{SHOP}.service"
    lab.exec("lab-1", f"wg set privnet peer {peer.public_key} remove")
    lab.exec("lab-3", f"systemctl stop {resolver}")
    audited = audit(lab, "--quick")
    assert audited.code == 1
    assert audited.red == {
        ("lab-1", "mesh"): [f"peer lab-2: expected {peer.public_key}, actual nothing"],
        ("lab-3", "units"): [f"{resolver}: expected active, actual inactive (dead)"],
    }, audited.output
    lines = [line.split() for line in audited.output.splitlines()]
    assert sorted(line[:2] for line in lines if "DEVIATION" in line) == [["lab-1", "mesh"], ["lab-3", "units"]]
    assert [line[:3] for line in lines if "FOLLOWS" in line] == [["lab-3", "names", "FOLLOWS"]]
    assert lines[-1][:5] == ["2", "deviations", "on", "lab-1,", "lab-3"]
    follows = audited.data["hosts"]["lab-3"]["names"]
    assert (follows["result"], follows["deviations"]) == ("follows", [])
    assert [(one["subject"], one["expected"], one["from"], one["on"]) for one in follows["follows"]] == [
        (f"resolver of {SHOP}", "answers", resolver, "lab-3")
    ]
    deploy(lab)
    after = audit(lab, "--quick")
    assert (after.code, after.red) == (0, {}), after.output


def sampled(shown: str, line: str) -> bool:
    """Whether a line is one of the page: `…` stands for anything, and a time is never the same."""
    shown, line = (re.sub("[0-9.]+ s[)]$", "T)", text) for text in (shown, line))
    return re.fullmatch(".*".join(map(re.escape, shown.split("…"))), line) is not None


def test_the_page_shows_what_an_audit_prints(lab: Lab) -> None:
    """docs/audit.md: one forwarding entry of lab-2 is wrong."""
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    sample = [line for line in page.split("```")[1].splitlines()[2:] if line != "…"]
    overlay = overlay_of(lab, "lab-2", BLOG)
    remote = next(remote for remote in overlay.remotes if remote.container.host == "lab-1")
    other = host_plan(lab, "lab-3").mesh.address
    lab.exec("lab-2", f"bridge fdb replace {remote.container.mac} dev {overlay.network.vxlan} dst {other} self")
    try:
        audited = audit(lab)
    finally:
        deploy(lab)
    lines = audited.output.splitlines()
    missing = [shown for shown in sample if not any(sampled(shown, line) for line in lines)]
    assert len(sample) > 10 and missing == [], audited.output


def test_saved_rules_that_hold_the_guard_are_told_before_they_fail(lab: Lab) -> None:
    """Who saves all rules that are loaded saves the guard's; the host's own firewall would be gone after a restart."""
    saved = "/etc/nftables.conf"
    save = f"nft add table inet mine; {{ echo flush ruleset; nft list ruleset; }} > {saved}"
    lab.exec("lab-2", f"cp -a {saved} /run/kept; systemctl start nftables.service; {save}")
    try:
        assert lab.exec("lab-2", "systemctl restart nftables.service", check=False).returncode != 0
        assert "table inet mine" not in lab.exec("lab-2", "nft list tables").stdout
        audited = audit(lab, "--quick")
        told = f"saved rules in {saved}: expected no table of the guard, or nft refuses them all, actual has one"
        assert audited.red == {("lab-2", "guard"): [told]}, audited.output
        lab.exec("lab-2", f"sed -i '/^table [a-z]* privnet /,/^}}/d' {saved}; systemctl restart nftables.service")
        assert "table inet mine" in lab.exec("lab-2", "nft list tables").stdout
        after = audit(lab, "--quick")
        assert (after.code, after.red) == (0, {}), after.output
    finally:
        lab.exec("lab-2", f"mv /run/kept {saved}; systemctl stop nftables.service; nft flush ruleset")


# --- what was done once is told once, whoever feels it -----------------------------------------------


@dataclass(frozen=True)
class Done:
    """Something done to a host; how the one deviation begins, and where it is felt."""

    host: str
    command: str
    check: str
    begins: str
    felt: frozenset[tuple[str, str]]


def felt(*places: str) -> frozenset[tuple[str, str]]:
    """``lab-1 reach``, as pairs."""
    return frozenset((host, check) for host, _, check in (place.partition(" ") for place in places))


def done_to(lab: Lab) -> dict[str, Done]:
    """One thing of each kind, on each of the hosts."""
    one, three = overlay_of(lab, "lab-1", SHOP), overlay_of(lab, "lab-3", SHOP)
    vxlan, resolver = one.network.vxlan, f"privnet-dns@{SHOP}.service"
    remote = next(remote for remote in one.remotes if remote.container.host == "lab-3")
    peer = next(peer for peer in host_plan(lab, "lab-2").mesh.peers if peer.host == "lab-3")
    mac = one.ports[1].mac.replace(":", "")
    element = f"{one.vtep} . 0x{one.network.vni:x}00 . 0x{mac[4:]} . 0x{mac[4:]}"
    inside = one.ports[1].netns
    return {
        "a forwarding entry": Done(
            "lab-1", f"bridge fdb del {remote.container.mac} dev {vxlan} dst {remote.vtep} self",
            "overlay", f"FDB of {vxlan}: {remote.container.mac}: expected {remote.vtep}",
            felt("lab-1 reach", "lab-3 reach"),
        ),
        "a peer": Done(
            "lab-2", f"wg set privnet peer {peer.public_key} remove", "mesh", "peer lab-3: expected ",
            felt("lab-2 reach", "lab-3 reach", "lab-2 handshakes"),
        ),
        "a resolver": Done(
            "lab-3", f"systemctl stop {resolver}", "units", f"{resolver}: expected active",
            felt("lab-3 names", "lab-3 reach"),
        ),
        "a container's address": Done(
            "lab-1", f"ip -n {inside} address flush dev pn0",
            "containers", f"namespace {inside}: address: expected {one.ports[1].address}",
            felt("lab-1 names", "lab-1 reach"),
        ),
        "an element of the guard": Done(
            "lab-3", as_owner(f"delete element inet privnet speakers {{ {element} }}"),
            "guard", "element of inet privnet speakers: expected ", felt("lab-1 reach", "lab-3 reach"),
        ),
        "the size of packets": Done(
            "lab-3", f"ip link set {vxlan} mtu 1300", "overlay", f"{vxlan}: MTU: expected {three.network.mtu}",
            felt("lab-1 reach", "lab-2 reach", "lab-3 reach"),
        ),
    }  # fmt: skip


DONE = ("a forwarding entry", "a peer", "a resolver", "a container's address", "an element of the guard")


@pytest.mark.parametrize("what", (*DONE, "the size of packets"))
def test_what_was_done_once_is_one_deviation_with_its_consequences(lab: Lab, tmp_path: Path, what: str) -> None:
    done = done_to(lab)[what]
    lab.exec(done.host, done.command)
    try:
        audited = audit(lab, "--junit", str(tmp_path / "junit.xml"))
    finally:
        deploy(lab)
    assert {*audited.red} == {(done.host, done.check)}, audited.output
    (deviation,) = audited.red[done.host, done.check]
    assert deviation.startswith(done.begins), deviation
    assert (audited.code, audited.data["deviations"]) == (1, 1)
    follows = consequences(audited)
    assert {place[:2] for place in follows} == done.felt, audited.output
    # A person: one line that is red, and below it all that it has led to.
    lines = audited.output.splitlines()
    (at,) = [number for number, line in enumerate(lines) if "DEVIATION" in line]
    assert lines[at + 1].strip() == deviation
    indent = lines[at + 1].index(deviation) + 1
    below = [*takewhile(lambda line: line.startswith(" " * indent), lines[at + 2 :])]
    assert len(below) == min(len(follows), 11), audited.output
    assert f"1 deviation on {done.host}  ({len(follows)} consequence" in lines[-1]
    # JUnit: one failure, the rest is skipped and says why.
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert [int(suite.get(count, "-1")) for count in ("failures", "errors")] == [1, 0]
    assert int(suite.get("skipped", "-1")) == len(done.felt)
    (failure,) = suite.iter("failure")
    assert all(subject in (failure.text or "") for *_, subject in follows)


def consequences(audited: Audited) -> set[tuple[str, str, str]]:
    """Host, check and subject of all that follows from something, as its causes tell it, which is all there is."""
    checks = [(host, name, one) for host, ones in audited.data["hosts"].items() for name, one in ones.items()]
    told = {
        (felt["host"], felt["check"], felt["subject"])
        for _, _, one in checks for cause in one["deviations"] for felt in cause["consequences"]
    }  # fmt: skip
    assert told == {(host, name, what["subject"]) for host, name, one in checks for what in one.get("follows", ())}
    return told


def test_two_that_have_nothing_to_do_with_each_other_are_two(lab: Lab) -> None:
    """The twin: neither is taken for a consequence of the other, and what nobody explains stays red."""
    first, second = done_to(lab)["a forwarding entry"], done_to(lab)["a resolver"]
    for done in (first, second):
        lab.exec(done.host, done.command)
    two = overlay_of(lab, "lab-2", BLOG)
    # The audit does not look into a container's firewall.
    silence = "nft add table ip mine; nft add chain ip mine in '{ type filter hook input priority 0; policy drop; }'"
    lab.exec("lab-2", f"ip netns exec {two.ports[1].netns} sh -c {shlex.quote(silence)}")
    try:
        audited = audit(lab)
    finally:
        lab.exec("lab-2", f"ip netns exec {two.ports[1].netns} nft delete table ip mine")
        deploy(lab)
    silent = {place for place in audited.red if place[1] in ("reach", "names")}
    assert {*audited.red} - silent == {(first.host, first.check), (second.host, second.check)}, audited.output
    assert all(two.ports[1].netns in line for place in silent for line in audited.red[place] if place[1] == "reach")
    assert {("lab-1", "reach"), ("lab-3", "reach")} <= silent
    assert {place[:2] for place in consequences(audited)} >= first.felt | second.felt
    after = audit(lab)
    assert (after.code, after.red) == (0, {}), after.output


def test_packets_show_what_a_bridge_with_an_address_means(lab: Lab) -> None:
    """A host that reaches its containers."""
    inside = overlay_of(lab, "lab-2", SHOP)
    opened = as_owner("flush chain bridge privnet host; flush chain bridge privnet output")
    lab.exec("lab-2", f"ip address add 10.240.3.250/22 dev {inside.network.bridge} && {opened}")
    audited = audit(lab)
    deploy(lab)
    assert {*audited.red} == {("lab-2", "overlay"), ("lab-2", "guard")}, audited.output
    crossing = f"host lab-2 → {inside.ports[1].netns}"
    assert any(place[1] == "isolation" and place[2].startswith(crossing) for place in consequences(audited))
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
