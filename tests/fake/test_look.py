"""A dry run tells what a run would refuse: what it says of a host is what a run then does."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from test_runs import Fleet, fleet, states

__all__ = ["fleet"]


def clock(made: Fleet) -> None:
    made.answers["h2"] = ["time 5" if line.startswith("time ") else line for line in made.answers["h2"]]


def copy(made: Fleet) -> None:
    machine = next(line for line in made.answers["h3"] if line.startswith("machine "))
    made.answers["h2"] = [machine if line.startswith("machine ") else line for line in made.answers["h2"]]


def other_key(made: Fleet) -> None:
    made.answers["h2"] = [line.replace("h2AAAA", "h9AAAA") for line in made.answers["h2"]]


def lost_key(made: Fleet) -> None:
    found = made.answers["h2"]
    made.answers["h2"] = [line for line in found if not line.startswith("key ") and "privnet.key" not in line]


def silent(made: Fleet) -> None:
    made.answers["h2"] = []


REFUSALS = {
    "its clock": (clock, {"h2": "its clock is "}),
    "a copy": (copy, {"h2": "it has the machine-id of h3", "h3": "it has the machine-id of h2"}),
    "another key": (other_key, {"h2": "PN508: its WireGuard key is "}),
    "no key": (lost_key, {"h2": "PN508: its WireGuard key /etc/wireguard/privnet.key is gone"}),
    "no answer": (silent, {"h2": "it gave no answer"}),
}


@pytest.mark.parametrize("changed", [True, False], ids=["something to change", "nothing to change"])
@pytest.mark.parametrize("what", REFUSALS)
def test_a_refusal_is_told_before_the_run_that_makes_it(fleet: Callable[..., Fleet], what: str, changed: bool) -> None:
    made = fleet()
    if changed:
        made.project("p1", 1, ["h1", "h2", "h3"])
    spoil, reasons = REFUSALS[what]
    spoil(made)
    looked, ran = (made.run("--json", mode) for mode in ("--dry", "-y"))
    for name, why in reasons.items():
        told, done = (found.outcome["hosts"][name] for found in (looked, ran))
        assert told["state"] == done["state"] == "failed"
        # A clock goes on between the two.
        assert told["why"].startswith(why) and (told["why"] == done["why"] or what == "its clock")
    others = {"h1", "h2", "h3"} - reasons.keys()
    assert all(states(looked)[name] == ("pending" if changed else "unchanged") for name in others)
    assert all(states(ran)[name] == ("changed" if changed else "unchanged") for name in others)


def test_who_is_refused_is_not_said_to_be_changed(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    clock(made)
    ran = made.run("--json", "--dry")
    assert ran.outcome["hosts"]["h2"]["changes"] == []
    plan = json.loads(ran.stdout)["plan"]
    found = {o["name"].rpartition(" | ")[2]: sorted(o["hosts_with_change"]) for o in plan if o["hosts_with_change"]}
    assert found["add what is new"] == ["h1", "h3"]
