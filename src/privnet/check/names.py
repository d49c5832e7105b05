"""Names fit into DNS: a label has at most 63 characters (its own rule), a name at most 253, an answer 64 KiB."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from privnet.diagnostics import COUNTED_AT_MOST, Problem, Related
from privnet.load import Declaration
from privnet.model.application import Placement, Spread

NAME_AT_MOST = 253
UDP_AT_MOST = 1232
"""Bytes of an answer that resolvers send in one packet (dnsmasq 2.90, `--edns-packet-max`)."""
TCP_AT_MOST = 65535
HEADER, QUESTION, RECORD = 12, 6, 16
"""Bytes of an answer: its header; a question besides its name's text; an address whose name is a pointer to it.
RFC 1035, sections 4.1 and 4.1.4."""

_ELSEWHERE = {
    "postdeploy": "on platforms with such formations, `postdeploy` is a command that runs once after a deployment",
    "tcp": "on platforms with such formations, `tcp` is the type behind the TCP gateway, which is outside",
}


def check(declaration: Declaration) -> Iterator[Problem]:
    """What is asked has a name that is short enough and an answer that holds it."""
    yield from islice(_internal(declaration), COUNTED_AT_MOST)
    yield from islice(_too_long(declaration), COUNTED_AT_MOST)
    yield from islice(_of_elsewhere(declaration), COUNTED_AT_MOST)
    yield from islice(_large_answers(declaration), COUNTED_AT_MOST)


def _internal(declaration: Declaration) -> Iterator[Problem]:
    """Domains of others, each once, and somebody to ask about them."""
    fleet = declaration.fleet
    first: dict[str, int] = {}
    for number, name in enumerate(fleet.dns.internal):
        place = declaration.place("dns", "internal", number)
        if first.setdefault(name, number) != number:
            help, related = "leave one of them out", declaration.place("dns", "internal", first[name])
            message = f"internal domain {name} is given twice"
            yield Problem("PN315", message, place, help=help, related=(Related(related, "the other is given here"),))
        elif _holds(name, fleet.domain) or _holds(fleet.domain, name):
            yield Problem(
                "PN315",
                f"internal domain {name} {_RELATION[_holds(name, fleet.domain), _holds(fleet.domain, name)]} "
                f"the private domain {fleet.domain}",
                place,
                note="names of the private domain are never asked outside",
                help="leave it out, or give the fleet another `domain:`",
            )
        elif not fleet.dns.upstream:
            yield Problem(
                "PN315",
                f"internal domain {name} has nobody who knows it",
                place,
                note="without `dns.upstream` names outside the private domain are refused",
                help="say which servers know it: `dns: {upstream: [192.0.2.53]}`",
            )


_RELATION = {(True, True): "is", (True, False): "holds", (False, True): "lies in"}
"""Whether the one holds the other, and the other the one."""


def _holds(domain: str, other: str) -> bool:
    return f".{other}".endswith(f".{domain}")


def _types(declaration: Declaration) -> Iterator[tuple[tuple[str, ...], str, Placement]]:
    """Every process type in a private network: its place (the project first), its name without index, its placement."""
    domain = declaration.fleet.domain
    for project in declaration.projects:
        if project.private_network is None:
            continue
        suffix = f"{project.private_network.id}.{domain}"
        for application, details in project.applications.items():
            for process_type, placed in details.formation.items():
                where = (project.project, "applications", application, "formation", process_type)
                yield where, f"{process_type}.{application}.{suffix}", placed


def _count(placed: Placement) -> int:
    return placed.count if isinstance(placed, Spread) else len(placed)


def _too_long(declaration: Declaration) -> Iterator[Problem]:
    """The longest name of each process type is that of its last container."""
    for (project, *keys), shared, placed in _types(declaration):
        count = _count(placed)
        name = f"{count}.{shared}"
        if len(name) > NAME_AT_MOST:
            yield Problem(
                "PN314",
                f"the name of {count}.{keys[-1]} would have {len(name)} characters; "
                f"a DNS name has at most {NAME_AT_MOST}",
                declaration.project_place(project, *keys),
                note=f"it would be {name[:80]}…",
                help="shorten the process type or the fleet's `domain:`",
                related=tuple(_the_domain(declaration)),
            )


def _the_domain(declaration: Declaration) -> Iterator[Related]:
    if declaration.declares("domain"):
        length = len(declaration.fleet.domain)
        yield Related(declaration.place("domain"), f"the domain has {length} characters")


def _of_elsewhere(declaration: Declaration) -> Iterator[Problem]:
    for (project, *keys), _, _ in _types(declaration):
        if keys[-1] in _ELSEWHERE:
            yield Problem(
                "PN701",
                f"process type `{keys[-1]}` has another meaning elsewhere",
                declaration.project_place(project, *keys),
                note=f"{_ELSEWHERE[keys[-1]]}; here it has containers and a name like any other",
                help="give it another name, unless that is what you want",
                severity="warning",
            )


def _large_answers(declaration: Declaration) -> Iterator[Problem]:
    for (project, *keys), name, placed in _types(declaration):
        count = _count(placed)
        if count <= held(name, UDP_AT_MOST):
            continue
        over_tcp = held(name, TCP_AT_MOST)
        if count > over_tcp:
            message = f"{count:,} containers of `{keys[-1]}` have one name, whose answer holds {over_tcp:,} addresses"
            note = "who asks for the process type is not told of the others; each has its own name all the same"
            help = "divide them over more process types, if all are to be found by one name"
        else:
            message = f"{count:,} containers of `{keys[-1]}` have one name, whose answer is too large for UDP"
            note = f"beyond {held(name, UDP_AT_MOST)} addresses it is asked again over TCP, which some clients cannot"
            help = "nothing, if the clients can ask over TCP, as the C library can; else fewer containers of this type"
        yield Problem(
            "PN702", message, declaration.project_place(project, *keys), note=note, help=help, severity="warning"
        )


def held(name: str, size: int) -> int:
    """How many addresses an answer of ``size`` bytes to a question for ``name`` holds."""
    return (size - HEADER - QUESTION - len(name)) // RECORD
