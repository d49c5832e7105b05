"""The command behind which a host is: `ProxyCommand` of ssh_config(5), as of every host of a lab."""

from __future__ import annotations

import os
from contextlib import suppress
from subprocess import TimeoutExpired
from typing import Any

from paramiko import ProxyCommand, SSHException
from paramiko.ssh_exception import ProxyCommandFailure

from privnet.diagnostics import visible

SAID_AT_MOST = 2000
SECONDS = 1
"""For the end of a process that has closed its output."""


class Proxy(ProxyCommand):
    """A proxy's process, which says why it has ended.

    paramiko 4 ends it twice when a connection is cut, the second time with a traceback; and of one that has ended by
    itself it waits for more.

    :param why: how it has ended, once that is known
    """

    why = ""

    def close(self) -> None:
        """End it, if it has not ended."""
        with suppress(ProcessLookupError):
            super().close()

    def send(self, content: Any) -> int:
        """Paramiko calls this. Raises SSHException."""
        try:
            return super().send(content)
        except ProxyCommandFailure:
            raise SSHException(self._ended()) from None

    def recv(self, size: int) -> bytes:
        """Paramiko calls this, again and again. Raises SSHException; TimeoutError while nothing comes."""
        try:
            if received := super().recv(size):
                return received
        except ProxyCommandFailure:
            pass
        except TimeoutError:
            if self.process.poll() is None:
                raise
        raise SSHException(self._ended())

    def _ended(self) -> str:
        """How it has ended, with the last line that it has said."""
        self.why = self.why or self._how()
        return self.why

    def _how(self) -> str:
        with suppress(TimeoutExpired):
            self.process.wait(SECONDS)
        status = self.process.poll()
        how = "its ProxyCommand has ended" + (f" with status {status}" if status is not None else "")
        said, stream = b"", self.process.stderr
        with suppress(OSError, ValueError):
            if stream is not None:
                # What it has started may have the stream too, and go on.
                os.set_blocking(stream.fileno(), False)
                said = os.read(stream.fileno(), SAID_AT_MOST)
        lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
        return f"{how}: {visible(lines[-1].strip())}" if lines else how
