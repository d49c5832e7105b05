"""Decisions of people that a plan rests on: accepted terms, and who departed from a rule and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from privnet.compiler import Compiled
from privnet.diagnostics import plural
from privnet.model.decision import Override
from privnet.model.project import Project

LISTED_AT_MOST = 30


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing that somebody decided.

    :param what: ``enabled``, ``enabled on existing project`` or ``HDS allowed``
    :param subject: the private network's or application's id
    """

    what: str
    project: str
    subject: str
    by: str
    on: str
    version: str = ""


def decisions(compiled: Compiled) -> Iterator[Decision]:
    """Those that this plan is the first to follow: networks that begin, and HDS applications that get access."""
    for project in compiled.declaration.projects:
        network = project.private_network
        if network is None:
            continue
        if network.id not in compiled.known.networks:
            terms = network.terms
            yield Decision("enabled", project.project, network.id, terms.accepted_by, terms.accepted_on, terms.version)
            override = network.enabled_on_existing_project
            if override is not None:
                yield Decision("enabled on existing project", project.project, network.id, override.by, override.on)
        yield from _hds(compiled, project, compiled.declaration.fleet.policy.hds_allowed)


def _hds(compiled: Compiled, project: Project, allowed: Override | None) -> Iterator[Decision]:
    for application, details in project.applications.items():
        if details.hds and allowed and compiled.known.applications.get(application) != project.project:
            yield Decision("HDS allowed", project.project, application, allowed.by, allowed.on)


def decision_lines(compiled: Compiled) -> Iterator[str]:
    """The same for people."""
    every = list(decisions(compiled))
    for decision in every[:LISTED_AT_MOST]:
        yield f"  ! {_said(decision)}"
    if len(every) > LISTED_AT_MOST:
        yield f"  ! {plural(len(every) - LISTED_AT_MOST, 'decision')} more: `privnet report` has all of them"
    if every:
        yield ""


def _said(decision: Decision) -> str:
    by = f"by {decision.by} on {decision.on}"
    if decision.what == "enabled":
        start = f"private network {decision.subject} is enabled on project {decision.project}"
        return f"{start}: terms {decision.version} accepted {by}"
    if decision.what == "enabled on existing project":
        return f"project {decision.project} was not empty: decided {by}"
    return f"HDS application {decision.subject} gets access in project {decision.project}: allowed {by}"
