"""What has become of each host in a run, for who started it: in the file that ``PRIVNET_OUTCOME`` names.

``privnet deploy`` names one that is in memory and needs no disk. A run does not end because it cannot be written.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from privnet.diagnostics import plural

VARIABLE = "PRIVNET_OUTCOME"
NAMED_AT_MOST = 30
SECONDS_BETWEEN = 0.5
"""A fleet of a thousand hosts has thousands of events; the last state is always written."""


class State(StrEnum):
    """Where a host stands in a run. A run that comes to its end leaves no host at ``asked`` or ``begun``."""

    unreached = "unreached"
    asked = "asked"
    begun = "begun"
    unchanged = "unchanged"
    pending = "pending"
    changed = "changed"
    held = "held"
    undone = "undone"
    failed = "failed"
    unknown = "unknown"


@dataclass(slots=True)
class StageChanges:
    """What a stage does, or would do, to a host."""

    stage: str
    lines: list[str]


@dataclass(slots=True)
class HostOutcome:
    """Where a host stands.

    :param state: ``begun`` is changed and not confirmed, ``changed`` is confirmed, ``held`` waits for a person who
        confirms it, ``undone`` is rolled back by one, and of a ``pending`` host not everything is done
    :param why: what keeps it from being done
    :param held: containers whose new host was not ready, so that nothing old was taken away for them
    :param applied: serial and checksum of the lock file by which it was changed last, and the run
    """

    state: State = State.unreached
    why: str = ""
    held: list[str] = field(default_factory=list)
    changes: list[StageChanges] = field(default_factory=list)
    applied: str | None = None


@dataclass(slots=True)
class Outcome:
    """A run's outcome.

    :param stopped: why no host is changed any more, and of which kind that is: ``locked``, ``stale``, ``refused`` or
        ``failed``
    """

    run: str
    hosts: dict[str, HostOutcome]
    serial: int = 0
    stopped: dict[str, str] | None = None
    _written: float = 0.0

    @classmethod
    def of(cls, run: str, hosts: Iterable[str]) -> Outcome:
        """Nothing is known of any host yet."""
        return cls(run, {name: HostOutcome() for name in hosts})

    def end(self) -> None:
        """The process is over: write the file, or where nobody reads one, name the hosts that are left half done."""
        self.write(final=True)
        half = [name for name, host in sorted(self.hosts.items()) if host.state is State.begun]
        if half and VARIABLE not in os.environ:
            some = " ".join(half[:NAMED_AT_MOST]) + (" …" if len(half) > NAMED_AT_MOST else "")
            said = f"the run ended before it was over, and the state of {plural(len(half), 'host')} is unknown ({some})"
            with suppress(OSError):
                sys.stderr.write(f"privnet: FAILED: {said}. The same command again finishes what was begun\n")

    def write(self, final: bool = False) -> None:
        """Bring the file up to date; soon, or now."""
        path = os.environ.get(VARIABLE)
        now = time.monotonic()
        if path is None or (not final and now - self._written < SECONDS_BETWEEN):
            return
        self._written = now
        hosts = {name: asdict(host) for name, host in sorted(self.hosts.items())}
        data = {"run": self.run, "serial": self.serial, "stopped": self.stopped, "hosts": hosts}
        with suppress(OSError):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # Never empty again: that would say that no host was changed. What is cut short says that it is.
                os.ftruncate(handle, 1)
                os.write(handle, json.dumps(data).encode())
            finally:
                os.close(handle)
