"""What hosts remember of the lock file, compared with the one that is here. Pure.

A host remembers the version by which it was changed last, the lock file those that were before it. A host that was
changed by another one proves that this lock file is an older copy, went its own way, or was begun anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from privnet.deploy.state import Applied, HostState
from privnet.diagnostics import plural
from privnet.load import FLEET_FILE, LOCK_FILE, shown_path
from privnet.model.lock import Version
from privnet.render import ETC

RECORD = f"{ETC}/record.json"
NAMED = 3


def doubt(
    directory: Path, versions: Sequence[Version], states: Mapping[str, HostState], silent: Collection[str]
) -> str | None:
    """Why no host may be changed by this lock file; None when nothing speaks against it.

    :param versions: those that the lock file knows of, itself the last; none without a lock file
    :param silent: hosts of the declaration that were not asked, or have not answered
    """
    log = f"`git log -- {shown_path(directory / LOCK_FILE)}` shows its versions"
    applied = {name: state.applied for name, state in sorted(states.items()) if state.applied}
    why = _newer(versions, applied, log) or _other(versions, applied, log)
    if why is None and not versions:
        having = [name for name, state in sorted(states.items()) if RECORD in state.files]
        why = _begun_anew(directory, having, sorted(silent), log)
    return f"PN509: nothing is changed: {why}" if why else None


def _newer(versions: Sequence[Version], applied: Mapping[str, Applied], log: str) -> str | None:
    known = versions[-1].serial if versions else 0
    found = [name for name, one in applied.items() if one.serial > known]
    if not found:
        return None
    name = max(found, key=lambda one: applied[one].serial)
    have = f"this one has {known}" if versions else "there is none here"
    return (
        f"{name} was changed last by serial {applied[name].serial} of the lock file, and {have}: it is an older copy, "
        f"or was lost. What is newer would be taken away. Take the newest one, {log}; if it is lost, `privnet import` "
        "rebuilds it from the fleet"
    )


def _other(versions: Sequence[Version], applied: Mapping[str, Applied], log: str) -> str | None:
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
        f"copies have been deployed. Take the one of that run, {log}; where each copy has changed hosts, `privnet "
        "import` rebuilds one from the fleet"
    )


def _begun_anew(directory: Path, having: Sequence[str], silent: Sequence[str], log: str) -> str | None:
    """Without a lock file all numbers are given from the first on, and may be those that containers have."""
    missing = f"there is no {LOCK_FILE} in {shown_path(directory)}"
    lost = f"If it was lost: {log}, else `privnet import` rebuilds it from the fleet"
    if having:
        return (
            f"private networks are on {_names(having)} already, and {missing}: what is there would get other numbers. "
            f"{lost}"
        )
    if silent:
        return (
            f"{missing}, and whether private networks are on {_names(silent)} already nobody has said: numbers in use "
            f"there would be given to others. {lost}. If the fleet is new: run without `--limit` while every host "
            f"answers, and leave hosts that are not there yet out of {shown_path(directory / FLEET_FILE)}"
        )
    return None


def _names(hosts: Sequence[str]) -> str:
    more = len(hosts) - NAMED
    return ", ".join(hosts[:NAMED]) + (f" and {plural(more, 'other')}" if more > 0 else "")
