"""Every attack fails. Its honest twin is in the same run; mutation.py has a control without which it succeeds."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from lab.runs import deploy

from .attacks import ATTACKS
from .mutation import CONTROLS, GUARD, declared, declared_of, noticed, second_barriers, switched_off
from .scene import Scene

REPOSITORY = Path(__file__).parents[2]
# What the outsider sends and what hosts send for the tests; names outside are asked of the outsider.
UNDERLAY = "(src net 192.0.2.0/24 or src net 198.51.100.0/24) and (port 9 or port 53 or icmp) and not (port 4789)"
FLOODS = "what was captured is replayed, and answers are forged, by the thousand"

STATE = (
    "bridge fdb show | grep -Ev 'eth0|33:33|01:00:5e' | sort; ip neigh show nud permanent | sort; "
    "wg show privnet allowed-ips | sort; "
    "for port in /sys/class/net/pnb*/brif/*; do bridge -d link show dev ${port##*/} | tail -n +2; done; "
    "sh /etc/privnet/lib/guard.sh listing; ip route show type unreachable; systemctl is-active privnet-guard"
)


@pytest.mark.proves("P1", cases=("guard_alone", "route_alone", "guard_flushed"))
@pytest.mark.proves("P3", cases=("container_frames", "names_of_others"))
@pytest.mark.proves("P4", cases=("peer_forgery", "outer_spoof", "stolen_from_disk"))
@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_fails(scene: Scene, attack: str) -> None:
    ATTACKS[attack](scene)


def test_every_rule_of_the_guard_is_a_control(scene: Scene) -> None:
    rules = {}
    for family in ("inet", "bridge"):
        text = scene.run("lab-1", f"nft list table {family} privnet")
        for chain, body in re.findall(r"\tchain ([a-z]+) \{\n(.*?)\n\t\}", text, re.DOTALL):
            rules[f"{family} {chain}"] = [line for line in body.splitlines() if "type filter hook" not in line]
    for chain, lines in rules.items():
        known = [control.rule for control in GUARD if control.rule and f" {chain}:" in control.name]
        for line in lines:
            assert [text for text in known if text in line], f"no control for {chain}: {line}"


@pytest.mark.hostless
def test_the_published_tables_are_these() -> None:
    page = (REPOSITORY / "docs/security.md").read_text()
    assert declared() in page, "docs/security.md: put the table of tests.security.mutation.declared() there"
    assert second_barriers() in page, "docs/security.md: put that of tests.security.mutation.second_barriers() there"


@pytest.mark.hostless
def test_the_published_attacks_are_these() -> None:
    page = (REPOSITORY / "docs/security.md").read_text()
    section = page.partition("## Each attack, and its test")[2].partition("\n## ")[0]
    published = {*re.findall("`([a-z_]+)`", section)}
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert {name for name in published if not re.search(rf"def {name}\b", tests)} == ATTACKS.keys()


@pytest.mark.hostless
def test_a_counter_alone_shows_second_barriers_only() -> None:
    assert [str(c) for c in CONTROLS.values() if (c.shown == "counter") != bool(c.second)] == []


@pytest.mark.parametrize("name", CONTROLS)
def test_a_missing_control_is_noticed(scene: Scene, name: str) -> None:
    control = CONTROLS[name]
    before = scene.run(control.host, STATE)
    with switched_off(scene, control):
        told = {attack.__name__: noticed(scene, attack) for attack in control.noticed_by}
    assert told == declared_of(control)
    deadline = time.monotonic() + 15  # a guard that was loaded anew takes the VXLAN devices down for a moment
    while scene.run(control.host, STATE) != before and time.monotonic() < deadline:
        time.sleep(0.3)
    assert scene.run(control.host, STATE) == before, "switched on again, the control is not what it was"


def test_the_fleet_is_as_before(scene: Scene) -> None:
    """Every control is back: a run finds nothing to do, and every attack that came last was met by all of them."""
    result = deploy(scene.lab)
    assert result.changed == {}, result.output
