"""What has become of each host in a run: kept in a file for who started it, said at the end for who watches.

The file is asked for by ``PRIVNET_OUTCOME``; it is rewritten in one step whenever something new is known.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

VARIABLE = "PRIVNET_OUTCOME"
SECONDS_BETWEEN = 0.5
"""A fleet of a thousand hosts has thousands of events; the last state is always written."""


@dataclass(slots=True)
class StageChanges:
    """What a stage does, or would do, to a host."""

    stage: str
    lines: list[str]


@dataclass(slots=True)
class HostOutcome:
    """Where a host stands.

    :param state: ``unreached``, ``unchanged``, ``pending`` (not everything is done), ``changed`` (and confirmed) or
        ``failed``
    :param why: what keeps it from being done
    :param held: containers whose new host was not ready, so that nothing old was taken away for them
    :param applied: serial and checksum of the lock file by which it was changed last, and the run
    """

    state: str = "unreached"
    why: str = ""
    held: list[str] = field(default_factory=list)
    changes: list[StageChanges] = field(default_factory=list)
    applied: str | None = None


@dataclass(slots=True)
class Outcome:
    """A run's outcome.

    :param stopped: why no host is changed any more, and of which kind that is: ``locked``, ``stale`` or ``failed``
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

    def write(self, final: bool = False) -> None:
        """Bring the file up to date; soon, or now."""
        path = os.environ.get(VARIABLE)
        now = time.monotonic()
        if path is None or (not final and now - self._written < SECONDS_BETWEEN):
            return
        self._written = now
        hosts = {name: asdict(host) for name, host in sorted(self.hosts.items())}
        data = {"run": self.run, "serial": self.serial, "stopped": self.stopped, "hosts": hosts}
        temporary = Path(f"{path}.new")
        temporary.write_text(json.dumps(data))
        temporary.rename(path)
