# ruff: noqa: E501 - sentences stand as they are printed
"""Devices of others in, or on, a private network's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from answers import answer, text

from privnet.deploy.guests import obstacles
from privnet.deploy.state import HostState, Link, parse_snapshot
from privnet.plan.host import HostPlan, Plan


def _with(state: HostState, *links: Link) -> HostState:
    return replace(state, links={**state.links, **{link.name: link for link in links}})


def _link(name: str, kind: str, master: str = "", upon: str = "") -> Link:
    return Link(name, kind, 90, True, 1500, "02:00:00:00:00:01", master, {}, {}, upon)


@pytest.fixture(scope="module")
def plan(planned: Callable[..., Plan]) -> Plan:
    return planned(shop=["h1", "h2"])


def _h1(plan: Plan) -> tuple[HostPlan, HostState]:
    host = plan.hosts["h1"]
    state = parse_snapshot(text(answer(host)))
    assert isinstance(state, HostState)
    return host, state


def test_as_planned_there_is_none(plan: Plan) -> None:
    assert list(obstacles(*_h1(plan))) == []


def test_ports_that_no_plan_has(plan: Plan) -> None:
    host, state = _h1(plan)
    found = obstacles(
        host, _with(state, _link("tap0", "tun", "pnb7000000"), _link("eno2", "", "pnb7000000"), _link("br0", "bridge"))
    )
    assert list(found) == [
        "its bridge pnb7000000, which is privnet's, has ports that no plan has: eno2, tap0 (tun). The guard drops what they send "
        "there and what is for them: a private network has the containers of its declaration and no others. Take them out: "
        "`ip link set dev eno2 nomaster`, `ip link set dev tap0 nomaster`, and out of what has put them there (Incus "
        "`parent=`, libvirt `<source bridge=>`, Docker `com.docker.network.bridge.name`)"
    ]


def test_devices_that_stand_on_ours(plan: Plan) -> None:
    host, state = _h1(plan)
    port = host.overlays[0].ports[0].name
    found = obstacles(host, _with(state, _link("mv0", "macvlan", upon="pnb7000000"), _link("v7", "vlan", upon=port)))
    assert list(found) == [
        "its device pnb7000000, which is privnet's, carries others: mv0 (macvlan). They would be a way between a private network "
        "and its host. Remove them: `ip link delete dev mv0`, and what has made them",
        f"its device {port}, which is privnet's, carries others: v7 (vlan). They would be a way between a private network and "
        "its host. Remove them: `ip link delete dev v7`, and what has made them",
    ]


def test_what_a_run_removes_by_itself_is_no_guest(plan: Plan) -> None:
    host, state = _h1(plan)
    assert (
        list(
            obstacles(
                host, _with(state, _link("pnx99", "vxlan", "pnb7000000"), _link("pnc6acfc000ff", "veth", "pnb7000000"))
            )
        )
        == []
    )
