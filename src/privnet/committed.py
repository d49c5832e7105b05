"""The lock files that git has of a fleet, for a message that names the right one.

git may be missing, the fleet in no repository, or its history cut short: then there are none, and that is no error.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from privnet.load import LOCK_FILE
from privnet.lock_lines import read_lines
from privnet.model.lock import Version
from privnet.store import lock_versions

COMMITS_AT_MOST = 50
SECONDS = 10


def committed_locks(directory: Path, fleet: str, since: str = "--all") -> Iterator[tuple[str, Sequence[Version]]]:
    """The commits that changed a fleet's lock file, the newest first, each with the versions that it knows.

    :param since: ``--all`` branches and tags, or the commit before which they are
    """
    limit = ("--abbrev-commit", f"--max-count={COMMITS_AT_MOST}")
    for commit in _git(directory, "rev-list", *limit, since, "--", LOCK_FILE).split():
        lock = read_lines(_git(directory, "cat-file", "blob", f"{commit}:./{LOCK_FILE}"))
        if lock is not None and lock.fleet == fleet and lock.serial:
            yield commit, lock_versions(lock)


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("ascii", "replace")
