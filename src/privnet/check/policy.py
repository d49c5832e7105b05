"""Who may have a private network: HDS applications (M8), and projects that were not empty (M7)."""

from __future__ import annotations

from collections.abc import Iterator

from privnet.diagnostics import Problem, Related
from privnet.load import Declaration
from privnet.model.lock import Lock
from privnet.model.project import Project


def check(declaration: Declaration, lock: Lock | None) -> Iterator[Problem]:
    """HDS applications stay out of projects with a network; a network begins on an empty project."""
    for project in declaration.projects:
        if project.private_network is None:
            continue
        if declaration.fleet.policy.hds == "refuse":
            yield from _hds(declaration, project)
        if lock is not None:
            yield from _not_empty(declaration, project, lock)


def _hds(declaration: Declaration, project: Project) -> Iterator[Problem]:
    for application, details in project.applications.items():
        if details.hds:
            network = declaration.project_place(project.project, "private_network")
            yield Problem(
                "PN401",
                f"HDS application {application} is in project `{project.project}`, which has a private network",
                declaration.project_place(project.project, "applications", application, "hds"),
                note="HDS applications do not have access to private networks (M8)",
                help="move its block to a project without a private network; "
                "where the operator of the fleet allows it, write `policy: {hds: allow}` in fleet.yaml",
                related=(Related(network, "the project's private network"),),
            )


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
