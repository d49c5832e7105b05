"""What hosts have to change together is changed on all of them, or on none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from test_runs import Fleet, Ran, fleet, states, withdrawn

__all__ = ["fleet"]

PORT, MESH, VXLAN = {"wireguard": {"port": 51821}}, {"wireguard": {"mesh": "100.65.0.0/16"}}, {"vxlan": {"port": 4790}}
TOGETHER = {"wireguard.port": PORT, "wireguard.mesh": MESH, "vxlan.port": VXLAN}


def of_three(fleet: Callable[..., Fleet], hosts: int = 3) -> Fleet:
    return fleet(0, hosts, elsewhere=["h1", "h2", "h3"])


def untouched(made: Fleet, ran: Ran, before: bytes) -> bool:
    """No host has been given a program, and the lock file is as it was."""
    return ran.programs == {} and (made.directory / "privnet.lock.yaml").read_bytes() == before


def mtu(made: Fleet, host: str, size: int) -> None:
    file = made.directory / "fleet.yaml"
    declared = json.loads(file.read_text())
    declared["hosts"][host]["mtu"] = size
    file.write_text(json.dumps(declared))


def unfit(made: Fleet, host: str) -> None:
    """Its clock is wrong: a run has to leave it alone."""
    made.answers[host] = ["time 5" if line.startswith("time ") else line for line in made.answers[host]]


UNFIT = "h3 cannot: its clock is "
SILENT = (
    "h3 cannot: it does not answer. Put that right, or let the host be out of service (`state: out`) until it is, and "
    "run again"
)


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("what", ["unfit", "away", "not in the run", "another key"])
def test_one_host_that_cannot_keeps_all_as_they_are(fleet: Callable[..., Fleet], name: str, what: str) -> None:
    made = of_three(fleet)
    before = (made.directory / "privnet.lock.yaml").read_bytes()
    made.settings(**TOGETHER[name])
    limit: tuple[str, ...] = ()
    if what == "unfit":
        unfit(made, "h3")
    elif what == "away":
        made.data["h3"] = {"away": True}
    elif what == "another key":
        made.answers["h3"] = [line.replace("h3AAAA", "h9AAAA") for line in made.answers["h3"]]
    else:
        limit = ("--limit", "h1", "--limit", "h2")
    for mode in ("--dry", "-y"):
        ran = made.run("--json", mode, *limit)
        why = ran.outcome["stopped"]["why"]
        assert ran.outcome["stopped"]["kind"] == "refused"
        assert why.startswith(f"nothing is changed: hosts have to change {name} together, or would lose each other. ")
        assert {"unfit": UNFIT, "away": SILENT, "not in the run": "h3 cannot: it is not in this run",
                "another key": "h3 cannot: PN508: its WireGuard key is "}[what] in why  # fmt: skip
        assert untouched(made, ran, before)


@pytest.mark.parametrize("name", TOGETHER)
def test_all_that_can_change_do(fleet: Callable[..., Fleet], name: str) -> None:
    """The twin; a host that shares no network is of no concern."""
    made = of_three(fleet, 4)
    made.data["h4"] = {"away": True}
    made.settings(**TOGETHER[name])
    ran = made.run("--json", "-y")
    assert ran.outcome["stopped"] is None, ran.stderr
    assert states(ran) == {"h1": "changed", "h2": "changed", "h3": "changed", "h4": "unreached"}


def test_the_mtu_of_a_network_is_changed_on_all_its_hosts_or_on_none(fleet: Callable[..., Fleet]) -> None:
    made = fleet(1, elsewhere=["h1", "h2", "h3"])
    mtu(made, "h1", 1400)
    made.data["h3"] = {"away": True}
    ran = made.run("--json", "-y")
    why = ran.outcome["stopped"]["why"]
    assert "have to change the MTU of pn-00000000-0000-4000-8000-000000000001 (`mtu` of its hosts) together" in why
    assert SILENT in why and ran.programs == {}
    made.data.clear()
    assert set(states(made.run("--json", "-y")).values()) == {"changed"}


def test_a_host_that_is_out_of_service_is_waited_for_by_nobody(fleet: Callable[..., Fleet]) -> None:
    """The way out that the refusal names."""
    made = of_three(fleet)
    made.settings(**PORT)
    file = made.directory / "fleet.yaml"
    declared = json.loads(file.read_text())
    declared["hosts"]["h3"]["state"] = "out"
    file.write_text(json.dumps(declared))
    made.data["h3"] = {"away": True}
    ran = made.run("--json", "-y")
    assert {name: states(ran)[name] for name in ("h1", "h2")} == {"h1": "changed", "h2": "changed"}, ran.stderr


@pytest.mark.parametrize("other", [{"dns": {"ttl": 9}}, {"domain": "other.internal"}])
def test_what_each_host_may_have_for_itself_waits_for_nobody(
    fleet: Callable[..., Fleet], other: dict[str, Any]
) -> None:
    made = of_three(fleet)
    made.settings(**other)
    made.data["h3"] = {"away": True}
    ran = made.run("--json", "-y")
    assert states(ran) == {"h1": "changed", "h2": "changed", "h3": "unreached"}


@pytest.mark.parametrize("first", [["cannot: no"], [None]], ids=["it fails", "it is lost"])
def test_one_that_fails_in_the_middle_takes_all_back(fleet: Callable[..., Fleet], first: list[str | None]) -> None:
    """A third may fail otherwise."""
    made = fleet(0, 6, elsewhere=[f"h{n}" for n in range(1, 7)])
    made.settings(**PORT)
    made.data["h4"] = {"first": first}
    ran = made.run("--json", "-y")
    why = "hosts have to change wireguard.port together, or would lose each other"
    why = f"nothing is confirmed: h4 has failed, and {why}"
    assert ran.code == 1 and ran.outcome["stopped"] == {"why": why, "kind": "failed"}
    assert withdrawn(ran) == ["h1", "h2", "h3", "h5", "h6"]
    assert not any(" privnet confirm " in command or " privnet lost " in command for _, command in ran.executed)


def test_who_was_left_behind_follows_though_another_is_away(fleet: Callable[..., Fleet]) -> None:
    made = of_three(fleet)
    made.answers["h1"] = [line.replace(" 51820 off", " 51999 off") for line in made.answers["h1"]]
    made.data["h3"] = {"away": True}
    ran = made.run("--json", "-y")
    assert states(ran) == {"h1": "changed", "h2": "unchanged", "h3": "unreached"}


def test_a_port_that_somebody_has_changed_is_put_right_alone(fleet: Callable[..., Fleet]) -> None:
    """Nobody else answers who could say that it has the port of the plan; the lock file says so."""
    made = of_three(fleet)
    made.answers["h1"] = [line.replace(" 51820 off", " 51999 off") for line in made.answers["h1"]]
    ran = made.run("--json", "-y", "--limit", "h1")
    assert states(ran)["h1"] == "changed", ran.stderr


def test_after_it_was_taken_back_it_is_still_all_or_none(fleet: Callable[..., Fleet]) -> None:
    """The lock file has the new port by then, and no host does."""
    made = of_three(fleet)
    made.settings(**PORT)
    made.programs["h2"] = ["cannot: no"]
    assert made.run("--json", "-y").outcome["stopped"]["kind"] == "failed"
    made.programs.clear()
    made.data["h3"] = {"away": True}
    ran = made.run("--json", "-y")
    assert ran.outcome["stopped"]["kind"] == "refused" and ran.programs == {}
    assert SILENT in ran.outcome["stopped"]["why"]
