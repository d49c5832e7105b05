# ruff: noqa: E501 - sentences stand as they are printed
"""Which releases a host may run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from answers import answer, text

from privnet.deploy.releases import TESTED, obstacles
from privnet.deploy.state import HostState, parse_snapshot
from privnet.lab import archive
from privnet.plan.host import Plan


@pytest.fixture
def state(planned: Callable[..., Plan]) -> HostState:
    found = parse_snapshot(text(answer(planned(shop=["h1", "h2"]).hosts["h1"])))
    assert isinstance(found, HostState)
    return found


def test_releases_that_are_tested_are_those_that_lab_hosts_run() -> None:
    assert tuple(version.lower() for version in archive.RELEASES.values()) == TESTED


@pytest.mark.parametrize("release", TESTED)
def test_a_tested_release_is_no_obstacle(state: HostState, release: str) -> None:
    assert state.release == "debian 12"
    assert list(obstacles((), replace(state, release=release))) == []


def test_another_release_is_refused_unless_the_fleet_accepts_it(state: HostState) -> None:
    other = replace(state, release="ubuntu 24.04")
    assert list(obstacles((), other)) == [
        "its release is `ubuntu 24.04`, on which private networks are not tested: a program of it may fail in a way that a run "
        "cannot take back. Tested are `debian 12` and `debian 13`. To accept it, write `policy: {releases: [ubuntu 24.04]}` in "
        "fleet.yaml"
    ]
    assert list(obstacles(("ubuntu 24.04",), other)) == []
    assert len(list(obstacles(("ubuntu 22.04",), other))) == 1
