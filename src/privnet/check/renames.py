"""Hosts that have another name than in the lock file, and say which one they had."""

from __future__ import annotations

from collections.abc import Iterator

from privnet.diagnostics import Place, Problem, nearest, quoted
from privnet.load import Declaration
from privnet.model.fleet import Fleet
from privnet.model.lock import Lock


def renames(fleet: Fleet, lock: Lock) -> dict[str, str]:
    """Old name to new name, of hosts that the lock file has by their old name."""
    return {
        old: name
        for name, host in fleet.hosts.items()
        if (old := host.renamed_from) and old in lock.hosts and name not in lock.hosts and old not in fleet.hosts
    }


def check(declaration: Declaration, lock: Lock | None) -> Iterator[Problem]:
    """Each old name leads to one host, which the lock file has by it; a warning when that is over."""
    known = lock or Lock(declaration.fleet.fleet)
    first: dict[str, str] = {}
    for name, host in declaration.fleet.hosts.items():
        if host.renamed_from is None:
            continue
        place = declaration.place("hosts", name, "renamed_from")
        other = first.setdefault(host.renamed_from, name)
        if other != name:
            yield _cannot_be(
                f"two hosts, `{other}` and `{name}`, are said to have been {quoted(host.renamed_from)}", place,
                "one of them has its numbers and containers: delete the line of the other",
            )  # fmt: skip
        else:
            yield from _of_host(declaration, known, name, host.renamed_from, place)


def _of_host(declaration: Declaration, lock: Lock, name: str, old: str, place: Place) -> Iterator[Problem]:
    if old in declaration.fleet.hosts:
        yield _cannot_be(
            f"`{name}` is said to have been {quoted(old)}, which is a host of the fleet",
            place,
            f"delete the line, or the host `{old}`; another machine may have that name in a later run",
        )
    elif name in lock.hosts and old in lock.hosts:
        yield _cannot_be(
            f"`{name}` is said to have been {quoted(old)}, and the lock file has both: they are two hosts",
            place,
            f"delete the line; if `{old}` is gone, place its containers on other hosts",
        )
    elif name in lock.hosts or not lock.serial:
        yield Problem(
            "PN707",
            f"`{name}` has its name already",
            place,
            f"the lock file has no host `{old}`",
            help="delete the line",
            severity="warning",
        )
    elif old not in lock.hosts:
        undeclared = lock.hosts.keys() - declaration.fleet.hosts.keys()
        yield _cannot_be(
            f"`{name}` is said to have been {quoted(old)}, and the lock file has no such host",
            place,
            nearest(old, undeclared) or "write the name that it has in the lock file, or delete the line if it is new",
        )


def _cannot_be(message: str, place: Place, help: str) -> Problem:
    why = "with its old name a host would lose its mesh address, its keys and its containers"
    return Problem("PN318", message, place, note=why, help=help)
