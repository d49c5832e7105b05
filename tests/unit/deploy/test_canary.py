"""The first host of a change is one whose failure says something about the change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from answers import answer, text

from privnet.deploy.canary import canary
from privnet.deploy.state import HostState, UnitState, parse_snapshot

HOSTS = ("h1", "h2", "h3")


@pytest.fixture
def states(planned: Any) -> dict[str, HostState]:
    """Hosts that are well."""
    found = {name: parse_snapshot(text(answer(plan))) for name, plan in planned(shop=[*HOSTS]).hosts.items()}
    return {name: state for name, state in found.items() if isinstance(state, HostState)}


def unit(state: HostState, name: str, active: str, sub: str) -> HostState:
    return replace(state, units={**state.units, name: UnitState(active, sub, False)})


def test_the_first_by_name_when_all_are_alike(states: dict[str, HostState]) -> None:
    assert canary(states, None, (), ()) == canary(states, None, HOSTS, HOSTS) == "h1"
    assert canary({}, "h1", (), ()) is None


def test_the_declared_one_if_it_is_fit_and_has_something_to_do(states: dict[str, HostState]) -> None:
    assert canary(states, "h3", ("h3",), ("h1",)) == "h3"
    del states["h3"]
    assert canary(states, "h3", (), ()) == "h1"


def test_not_one_on_which_the_last_run_has_failed(states: dict[str, HostState]) -> None:
    assert canary(states, None, ("h1", "h2"), ("h1", "h2")) == "h3"


def test_not_one_that_the_change_does_not_concern(states: dict[str, HostState]) -> None:
    """What is to be done there was wrong before."""
    assert canary(states, None, (), ("h2", "h3")) == "h2"


@pytest.mark.parametrize(
    ("name", "active", "sub", "first"),
    [
        ("privnet-dns@pn-1.service", "failed", "failed", "h2"),
        ("privnet-dns@pn-1.service", "activating", "auto-restart", "h2"),
        ("wg-quick@privnet.service", "failed", "failed", "h2"),
        ("apache2.service", "failed", "failed", "h1"),
        ("privnet-dns@pn-1.service", "active", "running", "h1"),
    ],
)
def test_not_one_with_a_unit_of_ours_that_fails(
    states: dict[str, HostState], name: str, active: str, sub: str, first: str
) -> None:
    states["h1"] = unit(states["h1"], name, active, sub)
    assert canary(states, None, (), HOSTS) == first
