"""Rules across documents. Each yields problems and never raises; one module a topic.

The shape of each document is right when they run (``privnet.load``), so a rule is a plain loop over frozen
objects.
"""

from __future__ import annotations

from collections.abc import Iterator

from privnet.check import addressing, identity, names, placement, policy, renames, service, underlay
from privnet.diagnostics import Problem
from privnet.load import Declaration
from privnet.model.lock import Lock


def check(declaration: Declaration, lock: Lock | None, today: str = "") -> Iterator[Problem]:
    """Everything that is wrong across the documents, and against what the lock file remembers.

    :param lock: None when there is no lock file: a fleet that never was deployed
    :param today: YYYY-MM-DD, the latest day that a recorded decision may have; empty when days are not judged
    """
    yield from underlay.check(declaration)
    yield from identity.check(declaration)
    yield from service.check(declaration)
    yield from renames.check(declaration, lock)
    yield from placement.check(declaration, lock)
    yield from addressing.check(declaration)
    yield from names.check(declaration)
    yield from policy.check(declaration, lock, today)
