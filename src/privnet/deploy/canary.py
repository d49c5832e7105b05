"""Which host is changed before any other. Pure.

What fails there stops the run, so its failure has to speak against the change. A host that was broken before would fail
whatever the change is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from privnet.deploy.state import HostState

_AGAIN = ("auto-restart", "auto-restart-queued")
_OWN_UNIT = re.compile(r"privnet-.+|wg-quick@privnet[.]service")


def canary(
    candidates: Mapping[str, HostState], declared: str | None, failed: Collection[str], concerned: Collection[str]
) -> str | None:
    """The declared host, or else the first by name of those that are best fit for it.

    :param candidates: hosts that were judged fit to be changed, and have something to do
    :param failed: hosts that failed in the last run that changed them
    :param concerned: hosts that the change is about; with others, something was wrong before
    """

    def rank(name: str) -> tuple[bool, bool, bool, bool, str]:
        return name != declared, name in failed, _is_broken(candidates[name]), name not in concerned, name

    return min(candidates, key=rank, default=None)


def _is_broken(state: HostState) -> bool:
    """Whether a unit of ours has failed, or fails again and again."""
    failing = (name for name, unit in state.units.items() if unit.active == "failed" or unit.sub in _AGAIN)
    return any(map(_OWN_UNIT.fullmatch, failing))
