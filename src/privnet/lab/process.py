"""Running programs, and knowing a process again before ending it.

A process id alone is not an identity: it is given to another process later. The lab records a process as
id and start time (field 22 of /proc/PID/stat, in clock ticks since boot) and signals it only if both agree.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from privnet.lab.errors import LabError

PROC = Path("/proc")
_NSPID_DEPTH_OF_A_HOST = 2


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this machine: `pid`, and `started` in clock ticks since boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this id now, if there is one that is not a zombie."""
        started = _start_time(pid)
        return None if started is None else cls(pid, started)

    @classmethod
    def read(cls, path: Path) -> Process | None:
        """The process recorded in a file as `PID STARTED`, if it still runs."""
        try:
            words = path.read_text().split()
        except FileNotFoundError:
            return None
        if len(words) != 2 or not all(word.isdigit() for word in words):
            return None  # the machine went down while it was written
        process = cls(int(words[0]), int(words[1]))
        return process if process.alive else None

    def record(self, path: Path) -> None:
        path.write_text(f"{self.pid} {self.started}\n")

    @property
    def alive(self) -> bool:
        return _start_time(self.pid) == self.started

    @property
    def age(self) -> float:
        """Seconds since it started."""
        uptime = float((PROC / "uptime").read_text().split()[0])
        return uptime - self.started / os.sysconf("SC_CLK_TCK")

    def signal(self, number: signal.Signals) -> None:
        if not self.alive:
            return
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return  # it ended in between, which is what a signal is for

    def wait(self, timeout: float) -> bool:
        """True when it is gone within `timeout` seconds. Works for processes that are not our children."""
        return wait_until(lambda: not self.alive, timeout)


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = 0.02) -> bool:
    """Whether `condition()`, asked every `interval` seconds, holds within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


def run(
    argv: Sequence[str], *, input: str | None = None, check: bool = True, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program of this machine. Raises LabError with its output when `check` and it fails."""
    try:
        result = subprocess.run(argv, input=input, capture_output=True, text=True, timeout=timeout)
    except FileNotFoundError as error:
        raise LabError(f"the program {argv[0]!r} is not on this machine", help="make setup") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"no end after {timeout} s: {shlex.join(argv)}") from error
    if check and result.returncode:
        said = (result.stderr.strip() or result.stdout.strip())[-2000:]
        raise LabError(f"status {result.returncode} from `{shlex.join(argv)}`: {said}")
    return result


def init_of_namespace(namespace: Path) -> Process | None:
    """The process that is PID 1 of a host whose network namespace lies at this path."""
    try:
        wanted = namespace.stat().st_ino
    except FileNotFoundError:
        return None
    for entry in PROC.iterdir():
        if entry.name.isdigit() and _is_init(entry) and _network_inode(entry) == wanted:
            return Process.of(int(entry.name))
    return None


def _is_init(entry: Path) -> bool:
    try:
        status = (entry / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            numbers = line.split()[1:]
            return len(numbers) == _NSPID_DEPTH_OF_A_HOST and numbers[-1] == "1"
    return False


def _network_inode(entry: Path) -> int | None:
    try:
        return (entry / "ns/net").stat().st_ino
    except (FileNotFoundError, ProcessLookupError):
        return None


def _start_time(pid: int) -> int | None:
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the name before it may hold spaces and brackets
    return None if fields[0] in ("Z", "X") else int(fields[19])
