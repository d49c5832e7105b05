"""A fleet of three hosts, planned, with the keys that its hosts have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from answers import key_of

from privnet.model.lock import Lock
from privnet.plan.allocate import allocate
from privnet.plan.host import Plan, plan_fleet

Planned = Callable[..., Plan]


@pytest.fixture(scope="session")
def planned(fleets: Any) -> Planned:
    """``planned(shop=["h1", "h2"], upstream=[…])``: `web` containers of each project, on hosts h1 to h3."""

    def plan(lock: Lock | None = None, /, fleet: Any = None, **placed: list[str]) -> Plan:
        projects = {name: fleets.project(name, {name: {"web": hosts}}) for name, hosts in placed.items()}
        policy = {"policy": {"address_quarantine": "0s"}}
        declaration = fleets.declare({"hosts": fleets.hosts("h1", "h2", "h3"), **policy, **(fleet or {})}, projects)
        numbers = allocate(declaration, lock or Lock(fleet="test"), 0).lock
        keys = {name: replace(host, wireguard=key_of(name)) for name, host in numbers.hosts.items()}
        return plan_fleet(declaration, replace(numbers, hosts=keys))

    return plan
