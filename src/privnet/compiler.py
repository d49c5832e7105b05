"""Read this first: everything between the YAML and the files on a host, in order, one line a pass.

Pure from ``allocate`` on. Nothing here depends on which hosts answer, so it works off line and for hosts that do not
exist yet. A phase reports all of its problems and then stops, so no later phase sees what an earlier one refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from privnet.check import check
from privnet.check.renames import renames
from privnet.diagnostics import DeclarationError, Problem, ordered
from privnet.load import Declaration, collector_off, read_declaration
from privnet.model.lock import Lock
from privnet.plan.allocate import allocate
from privnet.plan.consequences import consequences
from privnet.plan.host import Plan, plan_fleet
from privnet.store import load_lock

if TYPE_CHECKING:
    from privnet.render import ManagedFile


@dataclass(frozen=True, slots=True)
class Compiled:
    """A declaration that holds, and what follows from it.

    :param known: the lock file as it stands on disk
    :param renames: hosts that have another name now, old to new
    :param lock: the same with numbers for everything that is new; not saved yet
    :param warnings: what is accepted and seldom meant, in the order of their places
    """

    declaration: Declaration
    known: Lock
    lock: Lock
    plan: Plan
    warnings: tuple[Problem, ...] = ()
    renames: Mapping[str, str] = field(default_factory=dict)

    @property
    def before(self) -> Lock:
        """The lock file as it stands, by the names that hosts have now."""
        return self.known.renamed(self.renames)

    @property
    def lock_changed(self) -> bool:
        """Whether something is declared otherwise than the lock file says; what it does not say is no difference."""
        return not self.lock.same_numbers(self.known.settled_by(self.lock))


def compile_fleet(directory: Path, now: int | None = None) -> Compiled:
    """Everything that a fleet's directory says, ready to be rendered.

    :param now: seconds since the epoch, for quarantines; the clock's time if left out
    Raises DeclarationError with all problems of the first phase that has any.
    """
    with collector_off():
        declaration = read_declaration(directory)  # YAML with positions → frozen models; PN1xx, PN2xx
        known = load_lock(directory, declaration.fleet.fleet)  # numbers given before; PN5xx
        found = [*check(declaration, known, _today())]  # rules across documents; PN3xx, PN4xx
        refuse(found, declaration)
        names = renames(declaration.fleet, known)
        before = known.renamed(names)  # what the lock file says, by the names that hosts have now
        allocation = allocate(declaration, before, int(time.time()) if now is None else now)  # numbers for what is new
        refuse(allocation.problems, declaration)
        plan = plan_fleet(declaration, allocation.lock)  # what every host is to be
        found += consequences(declaration, before, allocation.lock, plan)  # warnings; PN7xx
    return Compiled(declaration, known, allocation.lock, plan, ordered(found), names)


def _today() -> str:
    """The latest day that it is anywhere on earth: clocks are at most 14 hours ahead of UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + 14 * 3600))


def refuse(problems: Iterable[Problem], declaration: Declaration) -> None:
    """Raise DeclarationError if there are any errors; it has the warnings too."""
    found = list(problems)
    if any(problem.severity == "error" for problem in found):
        raise DeclarationError(found, declaration.sources)


def render_fleet(plan: Plan) -> dict[str, tuple[ManagedFile, ...]]:
    """The managed files of every host."""
    from privnet.render import render_host  # Jinja, which a check of the declaration need not wait for

    with collector_off():
        return {name: render_host(host) for name, host in plan.hosts.items()}
