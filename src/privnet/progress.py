"""Which hosts have what the lock file says: a file beside it, which tells a plan how far the last runs have come.

The lock file is written before a host is changed, so by itself it does not know whether a run came to its end. This
file decides nothing. Where it is missing or damaged a plan says that it cannot tell, and the next run writes it anew.
"""

from __future__ import annotations

import atexit
import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

PROGRESS_FILE = "privnet.progress.json"
VERSION = 1
BYTES_AT_MOST = 64 * 2**20
WHY_AT_MOST = 300
SECONDS_BETWEEN = 0.5
"""A fleet of a thousand hosts has thousands of events; the last state is always written."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a host is.

    :param serial: of the lock file that a run has brought the host to and seen confirmed; 0 for none
    :param checksum: of the same
    :param open: why the last run that began something there has not finished it; empty when it has
    :param failed: whether that was the host's own failure
    """

    serial: int = 0
    checksum: str = ""
    open: str = ""
    failed: bool = False


def load_progress(directory: Path, fleet: str) -> dict[str, Progress] | None:
    """Every host that a run has come to; None when that is not known."""
    try:
        with (directory / PROGRESS_FILE).open("rb") as file:
            data = json.loads(file.read(BYTES_AT_MOST))
        if (data["version"], data["fleet"]) != (VERSION, fleet):
            return None
        return {str(name): _read(entry) for name, entry in data["hosts"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _read(entry: Mapping[str, object]) -> Progress:
    found = Progress(**entry)  # type: ignore[arg-type]
    if not (
        type(found.serial) is int
        and isinstance(found.checksum, str)
        and isinstance(found.open, str)
        and type(found.failed) is bool
    ):
        raise ValueError("it has another shape")
    return found


def save_progress(directory: Path, fleet: str, hosts: Mapping[str, Progress]) -> None:
    """Write the file in one step, a line a host: a merge of two branches is one of lines. Raises OSError."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(_written(found))}" for name, found in sorted(hosts.items()))
    text = f'{{\n "version": {VERSION},\n "fleet": {json.dumps(fleet)},\n "hosts": {{\n{lines}\n }}\n}}\n'
    temporary = directory / f".{PROGRESS_FILE}.new"
    temporary.write_text(text, encoding="ascii")
    temporary.rename(directory / PROGRESS_FILE)


def _written(found: Progress) -> dict[str, object]:
    return {name: value for name, value in asdict(found).items() if value is not False}


def unfinished(hosts: Mapping[str, Progress], names: Iterable[str], serial: int, checksum: str) -> dict[str, str]:
    """Hosts of ``names`` that are not known to have this lock file, each with the reason."""
    found = {}
    for name in names:
        host = hosts.get(name, Progress())
        if host.open:
            found[name] = host.open
        elif (host.serial, host.checksum) != (serial, checksum):
            other = "another lock file of that serial" if host.serial == serial else f"serial {host.serial}"
            found[name] = f"it has {other}" if host.serial else "no run has come to its end there"
    return found


class Diary:
    """What a run writes down of its hosts while it changes them."""

    def __init__(
        self, directory: Path, fleet: str, names: Iterable[str], renames: Mapping[str, str] | None = None
    ) -> None:
        self._directory, self._fleet = directory, fleet
        new = renames or {}
        known = {new.get(name, name): found for name, found in (load_progress(directory, fleet) or {}).items()}
        self._hosts = {name: known[name] for name in names if name in known}
        self._written = time.monotonic()
        atexit.register(self._write)

    def begun(self, name: str, serial: int, checksum: str, why: str, failed: bool = False) -> None:
        """Something is done to a host: written down before, unless it is known to be behind anyway."""
        before = self._hosts.get(name, Progress())
        self._hosts[name] = replace(before, open=why[:WHY_AT_MOST], failed=failed)
        if (before.serial, before.checksum, before.open) == (serial, checksum, ""):
            self._write()

    def done(self, name: str, serial: int, checksum: str) -> None:
        """A host has what the lock file says. Who is killed before that is written has a host too many to finish."""
        self._hosts[name] = Progress(serial, checksum)
        if time.monotonic() - self._written > SECONDS_BETWEEN:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        # A run does not end for it: a plan says of what is not written down that it is not known.
        with suppress(OSError):
            save_progress(self._directory, self._fleet, self._hosts)
