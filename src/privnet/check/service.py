"""Some host is in service, and the canary is a host."""

from __future__ import annotations

from collections.abc import Iterator

from privnet.diagnostics import Problem, nearest, plural, quoted
from privnet.load import Declaration


def check(declaration: Declaration) -> Iterator[Problem]:
    """A run has a host to go to, and `policy.canary` is one of the fleet."""
    fleet = declaration.fleet
    if len(fleet.out) == len(fleet.hosts):
        yield Problem(
            "PN316",
            f"every host of fleet {fleet.fleet} is out of service",
            declaration.place("hosts", fleet.out[0], "state"),
            note="no run would go anywhere, and no container would be reached",
            help="delete `state: out` of the hosts that are there",
        )
    if fleet.policy.canary is not None and fleet.policy.canary not in fleet.hosts:
        yield Problem(
            "PN317",
            f"the fleet has no host {quoted(fleet.policy.canary)}",
            declaration.place("policy", "canary"),
            "a run would change it before any other",
            help=nearest(fleet.policy.canary, fleet.hosts)
            or f"name one of its {plural(len(fleet.hosts), 'host')}, or delete the line to let privnet choose",
        )
