"""Names fit into DNS: a label has at most 63 characters (its own rule), a name at most 253."""

from __future__ import annotations

from collections.abc import Iterator

from privnet.diagnostics import Problem, Related
from privnet.load import Declaration
from privnet.model.application import Spread

NAME_AT_MOST = 253


def check(declaration: Declaration) -> Iterator[Problem]:
    """The longest name of each process type, ``<index>.<type>.<ap>.<pn>.<domain>``, is short enough."""
    domain = declaration.fleet.domain
    for project in declaration.projects:
        if project.private_network is None:
            continue
        network = project.private_network.id
        for application, details in project.applications.items():
            for process_type, placed in details.formation.items():
                count = placed.count if isinstance(placed, Spread) else len(placed)
                name = f"{count}.{process_type}.{application}.{network}.{domain}"
                if len(name) > NAME_AT_MOST:
                    where = ("applications", application, "formation", process_type)
                    yield Problem(
                        "PN314",
                        f"the name of {count}.{process_type} would have {len(name)} characters; "
                        f"a DNS name has at most {NAME_AT_MOST}",
                        declaration.project_place(project.project, *where),
                        note=f"it would be {name[:80]}…",
                        help="shorten the process type or the fleet's `domain:`",
                        related=tuple(_the_domain(declaration)),
                    )


def _the_domain(declaration: Declaration) -> Iterator[Related]:
    if declaration.declares("domain"):
        length = len(declaration.fleet.domain)
        yield Related(declaration.place("domain"), f"the domain has {length} characters")
