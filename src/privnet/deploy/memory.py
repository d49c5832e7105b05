"""What hosts remember of the lock file, compared with the one that is here. Pure.

A host remembers the version by which it was changed last, the lock file those that were before it. A host that was
changed by another one proves that this lock file is an older copy, went its own way, or was begun anew.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from privnet.deploy.state import Applied, HostState
from privnet.diagnostics import plural
from privnet.load import FLEET_FILE, LOCK_FILE, shown_path
from privnet.model.lock import Version
from privnet.render import ETC

RECORD = f"{ETC}/record.json"
NAMED = 3


def doubt(
    directory: Path,
    versions: Sequence[Version],
    states: Mapping[str, HostState],
    silent: Collection[str],
    committed: Callable[[], Iterable[tuple[str, Sequence[Version]]]] = tuple,
) -> str | None:
    """Why no host may be changed by this lock file; None when nothing speaks against it.

    :param versions: those that the lock file knows of, itself the last; none without a lock file
    :param silent: hosts of the declaration that were not asked, or have not answered
    :param committed: what git has of lock files: commits, the newest first, each with the versions that its one knows
    """
    applied = {name: state.applied for name, state in sorted(states.items()) if state.applied}
    having = [name for name, state in sorted(states.items()) if RECORD in state.files]
    contradicted = _newer(versions, applied) or _other(versions, applied)
    why = contradicted or (None if versions else _begun_anew(directory, having, sorted(silent)))
    if why is None:
        return None
    may_be_new = not (contradicted or having)
    remedy = _remedy(directory, applied, committed()) + (_new(directory) if may_be_new else "")
    return f"PN509: nothing is changed: {why}. {remedy}"


def _newer(versions: Sequence[Version], applied: Mapping[str, Applied]) -> str | None:
    known = versions[-1].serial if versions else 0
    found = [name for name, one in applied.items() if one.serial > known]
    if not found:
        return None
    name = max(found, key=lambda one: applied[one].serial)
    have = f"this one has {known}: it is an older copy, as after `git revert`" if versions else "there is none here"
    return (
        f"{name} was changed last by serial {applied[name].serial} of the lock file, and {have}. What is newer would "
        "be taken away"
    )


def _other(versions: Sequence[Version], applied: Mapping[str, Applied]) -> str | None:
    """A serial of which the lock file knows nothing proves nothing: it is from before its memory, or was rebuilt."""
    known: defaultdict[int, set[str]] = defaultdict(set)
    for version in versions:
        known[version.serial].add(version.checksum)
    found = [name for name, one in applied.items() if one.checksum not in known.get(one.serial, {one.checksum})]
    if not found:
        return None
    first, last = applied[found[0]], versions[-1].serial
    than = "too" if first.serial == last else f"than the one from which this one, of {last}, comes"
    more = f" ({plural(len(found) - 1, 'other host')} likewise)" if found[1:] else ""
    return (
        f"{found[0]} was changed by run {first.run} with another lock file of serial {first.serial} {than}{more}: two "
        "copies have been deployed, as two branches have them"
    )


def _begun_anew(directory: Path, having: Sequence[str], silent: Sequence[str]) -> str | None:
    """Without a lock file all numbers are given from the first on, and may be those that containers have."""
    missing = f"there is no {LOCK_FILE} in {shown_path(directory)}"
    if having:
        return f"private networks are on {_names(having)} already, and {missing}: what is there would get other numbers"
    if silent:
        return (
            f"{missing}, and whether private networks are on {_names(silent)} already nobody has said: numbers in use "
            "there would be given to others"
        )
    return None


def _new(directory: Path) -> str:
    return (
        ". If the fleet is new: run without `--limit` while every host answers, and leave hosts that are not there yet "
        f"out of {shown_path(directory / FLEET_FILE)}"
    )


def _remedy(directory: Path, applied: Mapping[str, Applied], committed: Iterable[tuple[str, Sequence[Version]]]) -> str:
    """How to get a lock file that no host contradicts. The declaration may be an older one: it gets the numbers."""
    file = shlex.quote(shown_path(directory / LOCK_FILE))
    fitting = [(commit, known) for commit, known in committed if not (_newer(known, applied) or _other(known, applied))]
    if not fitting:
        return (
            f"Take the newest lock file and keep the YAML: `git log --all -- {file}` shows its versions, `git checkout "
            f"COMMIT -- {file}` takes one. If it is lost, or each of two copies has changed hosts, `privnet import` "
            "rebuilds it from the fleet"
        )
    commit, known = max(fitting, key=lambda one: one[1][-1].serial)
    return (
        f"Commit {commit} has the newest lock file, of serial {known[-1].serial}. Take it and keep the YAML as it is: "
        f"`git checkout {commit} -- {file}`, then run again"
    )


def _names(hosts: Sequence[str]) -> str:
    more = len(hosts) - NAMED
    return ", ".join(hosts[:NAMED]) + (f" and {plural(more, 'other')}" if more > 0 else "")
