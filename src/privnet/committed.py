"""What git has of a fleet: lock files, for a message that names the right one, and the last commit's files.

git may be missing, the fleet in no repository, or its history cut short: then there are none, and that is no error.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from privnet.load import LOCK_FILE
from privnet.lock_lines import read_lines
from privnet.model.lock import Lock, Version
from privnet.store import lock_versions

COMMITS_AT_MOST = 50
SECONDS = 10


def committed_locks(directory: Path, fleet: str) -> Iterator[tuple[str, Sequence[Version]]]:
    """The commits that changed a fleet's lock file, the newest first, each with the versions that it knows."""
    limit = ("--abbrev-commit", f"--max-count={COMMITS_AT_MOST}")
    for commit in _git(directory, "rev-list", *limit, "--all", "--", LOCK_FILE).decode("ascii").split():
        text = _git(directory, "cat-file", "blob", f"{commit}:./{LOCK_FILE}")
        lock = read_lines(text.decode("ascii", "replace"))
        if lock is not None and lock.fleet == fleet and lock.serial:
            yield commit, lock_versions(lock)


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
