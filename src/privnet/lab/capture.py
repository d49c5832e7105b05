"""Recording what crosses the underlay."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from privnet.lab.errors import LabError
from privnet.lab.process import run
from privnet.lab.underlay import BRIDGE

# tcpdump gets packets from the kernel in blocks; the last ones need a moment.
_SETTLE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Capture:
    """A pcap file and questions about it."""

    file: Path

    @classmethod
    @contextmanager
    def running(cls, enter: Sequence[str], file: Path, expression: str) -> Iterator[Capture]:
        """Capture on the bridge while the block runs; `enter` runs a program in the fabric's namespace."""
        argv = [*enter, *arguments(file), *expression.split()]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as tcpdump:
            if tcpdump.stderr is None:
                raise LabError("tcpdump has no standard error")
            said = []
            for line in tcpdump.stderr:
                said.append(line)
                if "listening on" in line:
                    break
            else:
                raise LabError(f"tcpdump did not start: {''.join(said).strip()}")
            try:
                yield cls(file)
                time.sleep(_SETTLE_SECONDS)
            finally:
                tcpdump.send_signal(signal.SIGINT)
                tcpdump.stderr.read()

    def lines(self, expression: str = "", *options: str) -> list[str]:
        """One line of tcpdump's per packet that the filter lets through."""
        argv = ["tcpdump", "-nn", *options, "-r", str(self.file), *expression.split()]
        return run(argv).stdout.splitlines()

    def count(self, expression: str = "") -> int:
        """How many packets the filter lets through."""
        return len(self.lines(expression))


def arguments(file: Path) -> list[str]:
    """The tcpdump that writes each packet at once, all of it, and stays root to write where it is told."""
    options = ["-i", BRIDGE, "-nn", "-s", "0", "-U", "--immediate-mode", "-B", "16384", "-Z", "root"]
    return ["tcpdump", *options, "-w", str(file)]
