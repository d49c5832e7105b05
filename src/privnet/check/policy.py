"""Who may have a private network: accepted terms (M6), projects that were empty (M7), no HDS applications (M8)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from privnet.diagnostics import COUNTED_AT_MOST, Place, Problem, Related
from privnet.load import Declaration
from privnet.model.lock import Lock
from privnet.model.project import Project


def check(declaration: Declaration, lock: Lock | None, today: str) -> Iterator[Problem]:
    """HDS applications stay out of networks, a network begins on an empty project, decisions have a past day.

    :param today: the last day that has begun anywhere, as YYYY-MM-DD; empty when days are not judged
    """
    yield from _anonymous(declaration)
    if today:
        yield from _days_to_come(declaration, today)
    for project in declaration.projects:
        if project.private_network is None:
            continue
        if declaration.fleet.policy.hds == "refuse":
            yield from islice(_hds(declaration, project, lock), COUNTED_AT_MOST)
        if lock is not None:
            yield from _not_empty(declaration, project, lock)


# --- HDS ------------------------------------------------------------------------------------------


def _anonymous(declaration: Declaration) -> Iterator[Problem]:
    policy = declaration.fleet.policy
    if policy.hds == "allow" and policy.hds_allowed is None:
        yield Problem(
            "PN404",
            "HDS applications are allowed in private networks, without who decided it",
            declaration.place("policy", "hds"),
            note="HDS applications do not have access to private networks (M8); who departs from that signs it",
            help="add `hds_allowed: {by: NAME, on: YYYY-MM-DD}` beside it, or delete `hds: allow`",
        )


def _hds(declaration: Declaration, project: Project, lock: Lock | None) -> Iterator[Problem]:
    for application, details in project.applications.items():
        if details.hds:
            network = declaration.project_place(project.project, "private_network")
            yield Problem(
                "PN401",
                f"HDS application {application} {_way_in(application, project, lock)}",
                declaration.project_place(project.project, "applications", application, "hds"),
                note="HDS applications do not have access to private networks (M8)",
                help="move its block to a project without a private network; or, where the operator of the fleet "
                "allows it, write `policy: {hds: allow, hds_allowed: {by: NAME, on: YYYY-MM-DD}}` in fleet.yaml",
                related=(Related(network, "the project's private network"),),
            )


def _way_in(application: str, project: Project, lock: Lock | None) -> str:
    """How the application would get access: it is created there, migrated, or the network is enabled on it."""
    before = lock.applications.get(application) if lock else None
    if before not in (None, project.project):
        return f"would migrate from project `{before}` to `{project.project}`, which has a private network"
    network = project.private_network
    if before and network and lock and network.id not in lock.networks:
        return f"is in project `{project.project}`, on which a private network would be enabled"
    return f"is in project `{project.project}`, which has a private network"


# --- enabling a network ---------------------------------------------------------------------------


def _not_empty(declaration: Declaration, project: Project, lock: Lock) -> Iterator[Problem]:
    network = project.private_network
    if network is None or network.id in lock.networks or network.enabled_on_existing_project is not None:
        return
    if project.project in lock.projects_with_applications:
        yield Problem(
            "PN403",
            f"private network {network.id} is new on project `{project.project}`, which has applications already",
            declaration.project_place(project.project, "private_network", "id"),
            note="a network is enabled on an empty project, then applications are created in it or migrated "
            "into it (M7); here all of the project's applications would change at once how they are reached",
            help="enable it on a new, empty project; or record who decided otherwise: "
            "`enabled_on_existing_project: {by: NAME, on: YYYY-MM-DD}`",
        )


# --- days -----------------------------------------------------------------------------------------


def _days_to_come(declaration: Declaration, today: str) -> Iterator[Problem]:
    for what, day, place in _days(declaration):
        if day > today:
            yield Problem(
                "PN405",
                f"{what} on {day}, a day that has not come yet",
                place,
                note="what has not happened yet is no evidence that it did",
                help="write the day on which it happened, as YYYY-MM-DD",
            )


def _days(declaration: Declaration) -> Iterator[tuple[str, str, Place]]:
    """Every recorded day: what is said to have happened, when, and where that stands."""
    allowed = declaration.fleet.policy.hds_allowed
    if allowed is not None:
        yield "HDS applications were allowed", allowed.on, declaration.place("policy", "hds_allowed", "on")
    for project in declaration.projects:
        network, name = project.private_network, project.project
        if network is None:
            continue
        place = declaration.project_place(name, "private_network", "terms", "accepted_on")
        yield "the terms were accepted", network.terms.accepted_on, place
        override = network.enabled_on_existing_project
        if override is not None:
            place = declaration.project_place(name, "private_network", "enabled_on_existing_project", "on")
            yield "the network was enabled on an existing project", override.on, place
