"""Containers are placed on hosts that there are."""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterator
from itertools import islice

from privnet.diagnostics import COUNTED_AT_MOST, Problem, Related, nearest, plural, quoted
from privnet.load import Declaration
from privnet.model.application import Spread
from privnet.model.lock import Lock
from privnet.model.project import Project

COMPARED_AT_MOST = 30_000
"""Names with which unknown ones are compared, in all: a thousand take milliseconds."""


def check(declaration: Declaration, lock: Lock | None) -> Iterator[Problem]:
    """Every host named in a formation is one of the fleet; spreading over zones finds zones."""
    known = lock.hosts if lock else {}
    remedies: dict[str, str] = {}
    for project in declaration.projects:
        yield from islice(_hosts(declaration, project, known, remedies), COUNTED_AT_MOST)
    yield from _zones(declaration)


def _hosts(
    declaration: Declaration, project: Project, known: Container[str], remedies: dict[str, str]
) -> Iterator[Problem]:
    hosts = declaration.fleet.hosts.keys()
    for application, details in project.applications.items():
        for process_type, placed in details.formation.items():
            if isinstance(placed, Spread) or hosts >= set(placed):
                continue
            for index, host in enumerate(placed):
                if host not in hosts:
                    if host not in remedies:
                        remedies[host] = _remedy(host, declaration, known, len(remedies))
                    yield Problem(
                        "PN301",
                        f"the fleet has no host {quoted(host)}",
                        declaration.project_place(
                            project.project, "applications", application, "formation", process_type, index
                        ),
                        f"{index + 1}.{process_type} is placed on it",
                        help=remedies[host],
                    )


def _remedy(host: str, declaration: Declaration, known: Container[str], searched: int) -> str:
    if renamed := next((new for new, of in declaration.fleet.hosts.items() if of.renamed_from == host), None):
        return f"it has another name now: write `{renamed}`"
    if host in known:
        return "it was taken out of fleet.yaml: place its containers on other hosts, or declare it again"
    hosts = declaration.fleet.hosts
    words = re.split("[,; ]+", host[:1000])
    if len(words) > 1 and all(word in hosts for word in words):
        return f"write a comma between hosts: [{', '.join(words)}]"
    if searched * len(hosts) >= COMPARED_AT_MOST:
        return _declare(hosts)
    own = [name for name, details in hosts.items() if details.zone == host]
    if own:
        return f"`{host}` is a zone: name its hosts ({_some(own)}), or write {{count: {len(own)}, spread: zone}}"
    if re.search(r"[.][.]|[*\[{]", host):
        return f"name each host: [{_some(hosts)}]"
    if _commented_out(host, declaration):
        return "it is commented out in fleet.yaml: place its containers on other hosts, or declare it again"
    return nearest(host, hosts) or _declare(hosts)


def _declare(hosts: Collection[str]) -> str:
    count = plural(len(hosts), "host")
    return f"declare it under `hosts:` in fleet.yaml, or place the container on one of its {count}"


def _some(names: Collection[str]) -> str:
    return ", ".join([*islice(names, 3)]) + (", …" if len(names) > 3 else "")


def _commented_out(host: str, declaration: Declaration) -> bool:
    text = declaration.sources[declaration.place("hosts").path]
    return re.search(rf"^ *#[# ]*{re.escape(host)}:", text, re.MULTILINE) is not None


def _zones(declaration: Declaration) -> Iterator[Problem]:
    without = [name for name, host in declaration.fleet.hosts.items() if host.zone is None]
    asked = next(_spread_over_zones(declaration), None) if without else None
    if asked is None:
        return
    project, *keys = asked
    count = "1 host has" if len(without) == 1 else f"{len(without)} hosts have"
    more = " …" if len(without) > 3 else ""
    yield Problem(
        "PN302",
        f"containers are to be spread over zones, and {count} none",
        declaration.project_place(project, *keys),
        note="privnet would not know which hosts fail together",
        help=f"write `zone:` for {', '.join(without[:3])}{more}, or `spread: host`",
        related=(Related(declaration.place("hosts", without[0]), f"`{without[0]}` has no zone"),),
    )


def _spread_over_zones(declaration: Declaration) -> Iterator[tuple[str, ...]]:
    for project in declaration.projects:
        for application, details in project.applications.items():
            for process_type, placed in details.formation.items():
                if isinstance(placed, Spread) and placed.spread == "zone":
                    yield project.project, "applications", application, "formation", process_type, "spread"
