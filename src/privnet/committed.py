"""What git has of a fleet: lock files, for a message that names the right one, and the last commit's files.

git may be missing, the fleet in no repository, or its history cut short: then there are none, and that is no error.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from privnet.diagnostics import Place, Problem
from privnet.load import LOCK_FILE, shown_path
from privnet.lock_lines import read_lines
from privnet.model.lock import Lock, Version
from privnet.store import lock_versions

COMMITS_AT_MOST = 50
SECONDS = 10


def committed_locks(directory: Path, fleet: str, above: int = 0) -> Iterator[tuple[str, Sequence[Version]]]:
    """The commits that changed a fleet's lock file, the newest first, each with the versions that it knows.

    :param above: only lock files with a higher serial; the others are not read to their end
    """
    limit = ("--abbrev-commit", f"--max-count={COMMITS_AT_MOST}")
    for commit in _git(directory, "rev-list", *limit, "--all", "--", LOCK_FILE).decode("ascii").split():
        text = _git(directory, "cat-file", "blob", f"{commit}:./{LOCK_FILE}").decode("ascii", "replace")
        serial = text.partition("\nserial: ")[2].partition("\n")[0]
        lock = read_lines(text) if serial.isdigit() and int(serial) > above else None
        if lock is not None and lock.fleet == fleet:
            yield commit, lock_versions(lock)


def newer_committed(directory: Path, known: Lock) -> Iterator[Problem]:
    """A warning when git has a lock file that comes from this one: a run with this one would be refused (PN509)."""
    mine = lock_versions(known)
    later = [found for found in committed_locks(directory, known.fleet, known.serial) if {*mine[-1:]} <= {*found[1]}]
    if not later:
        return
    commit, versions = max(later, key=lambda found: found[1][-1].serial)
    file = shown_path(directory / LOCK_FILE)
    have = f"this one has {known.serial}" if known.serial else "there is none here"
    yield Problem(
        "PN708",
        f"git has a newer lock file: serial {versions[-1].serial} in commit {commit}, and {have}",
        Place(file, 1, 1, 1, 2),
        note="hosts that were changed by it contradict an older one, and a run is refused (PN509)",
        help=f"take it and keep the YAML as it is: `git checkout {commit} -- {shlex.quote(file)}`",
        severity="warning",
    )


def committed_file(directory: Path, name: str) -> bytes:
    """A file of a fleet as it is in the last commit; empty when there is none."""
    return _git(directory, "cat-file", "blob", f"HEAD:./{name}")


def committed_lock(directory: Path, fleet: str) -> Lock | None:
    """The lock file of the last commit."""
    lock = read_lines(committed_file(directory, LOCK_FILE).decode("ascii", "replace"))
    return lock if lock is not None and lock.fleet == fleet else None


def _git(directory: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout
