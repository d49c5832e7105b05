"""Identifiers mean one thing in the whole fleet: applications, networks, VNIs."""

from __future__ import annotations

from collections.abc import Iterator

from privnet.diagnostics import Problem, Related
from privnet.load import Declaration
from privnet.model.project import Project

_VLANS = range(1, 4096)
"""What makes VXLANs of VLANs gives them their numbers: who wants one of these declares a range."""


def check(declaration: Declaration) -> Iterator[Problem]:
    """No application, network or VNI is declared twice; a declared VNI is one of the fleet's."""
    yield from _applications(declaration)
    yield from _networks(declaration)
    yield from _vnis(declaration)


def _applications(declaration: Declaration) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for project in declaration.projects:
        for application in project.applications:
            other = first.setdefault(application, project.project)
            if other == project.project:
                continue
            place = declaration.project_place(other, "applications", application)
            yield Problem(
                "PN303",
                f"application {application} is in two projects, `{other}` and `{project.project}`",
                declaration.project_place(project.project, "applications", application),
                note="an application belongs to one project (M1)",
                help="to migrate it, move its block: delete it in the project that it leaves",
                related=(Related(place, f"it is in project `{other}` here"),),
            )


def _networks(declaration: Declaration) -> Iterator[Problem]:
    first: dict[str, Project] = {}
    for project in declaration.projects:
        if project.private_network is None:
            continue
        other = first.setdefault(project.private_network.id, project)
        if other is not project:
            place = declaration.project_place(other.project, "private_network", "id")
            yield Problem(
                "PN305",
                f"private network {project.private_network.id} belongs to two projects, "
                f"`{other.project}` and `{project.project}`",
                declaration.project_place(project.project, "private_network", "id"),
                note="a private network belongs to one project (M1)",
                help="take a new id: python3 -c 'import uuid; print(f\"pn-{uuid.uuid4()}\")'",
                related=(Related(place, f"it is the network of project `{other.project}` here"),),
            )


def _vnis(declaration: Declaration) -> Iterator[Problem]:
    allowed = declaration.fleet.vxlan.vni
    first: dict[int, Project] = {}
    for project in declaration.projects:
        network = project.private_network
        if network is None or network.vni is None:
            continue
        place = declaration.project_place(project.project, "private_network", "vni")
        if network.vni not in allowed and (network.vni in _VLANS or not declaration.keeps_vni(network.vni)):
            yield Problem(
                "PN307",
                f"VNI {network.vni} is outside the fleet's range {allowed}",
                place,
                help="delete the `vni:` line to let privnet choose, or take a number of the range",
                related=tuple(_the_range(declaration)),
            )
        other = first.setdefault(network.vni, project)
        if other is not project:
            yield _vni_twice(declaration, network.vni, other, project)


def _the_range(declaration: Declaration) -> Iterator[Related]:
    if declaration.declares("vxlan", "vni"):
        yield Related(declaration.place("vxlan", "vni"), "the fleet's range is given here")


def _vni_twice(declaration: Declaration, vni: int, other: Project, project: Project) -> Problem:
    place = declaration.project_place(other.project, "private_network", "vni")
    return Problem(
        "PN304",
        f"VNI {vni} is used by two networks",
        declaration.project_place(project.project, "private_network", "vni"),
        f"private network {_short(project)} ({project.project})",
        help="delete the `vni:` line to let privnet choose, or pick a number not listed by `privnet names --vni`",
        related=(Related(place, f"it was given to private network {_short(other)} ({other.project}) here"),),
    )


def _short(project: Project) -> str:
    return f"{project.private_network.id[:11]}…" if project.private_network else project.project
