"""What a host sends over SSH, before pyinfra sees it: not endless, without haste, and text.

pyinfra 3.10 takes in a command's output until it ends, as UTF-8 or with a traceback, and prints what failed whole
(`connectors/util.py`, `read_buffer`); paramiko 4.0 looks for the end of a line from its beginning again with each
piece (`file.py`, `readline`), and holds a server neither to the window nor to the size of packets that it was given.

The way in is one that both document: `ssh_paramiko_connect_kwargs` of a host's data, and the `transport_factory` of
paramiko's `SSHClient.connect`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from threading import Event
from typing import Any, cast

from paramiko import Channel, ProxyCommand, SSHException, Transport
from paramiko.buffered_pipe import BufferedPipe
from paramiko.packet import Packetizer

from privnet.deploy.host_keys import Identity, OtherHostKey
from privnet.deploy.proxy import Proxy
from privnet.diagnostics import visible
from privnet.sudo import with_remedy

OUTPUT_AT_MOST = 64 * 2**20
"""Bytes of one command; a host with 10,000 containers answers the one question with some 30 MB."""
ERROR_AT_MOST = 2**20
LINES_AT_MOST = 10**6
"""pyinfra makes an object of each line, however short."""
PACKET_AT_MOST = 2**20
"""OpenSSH sends and takes 256 KiB at most (packet.c, PACKET_MAX_SIZE)."""
GREETING_AT_MOST = 2**14
TURN = 2**18
"""Bytes of one host after which the others have their turn, however fast it sends."""
LINES_IN_TURN = 1000
PIECE = 2**16
LINES_KEPT, WIDTH_KEPT = 10, 300
"""Of what a command that failed has said last: pyinfra prints it."""

# It prints tracebacks of connections that are cut; pyinfra says in a line that they were.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

_PLAIN = bytes(byte if byte in b"\t\n" or 0x20 <= byte < 0x7F else ord("?") for byte in range(256))


def connections_to(identity: Identity) -> Callable[..., Transport]:
    """What makes a connection to a host that may send anything. (pyinfra prints functions, and fails at classes.)"""

    def connection(sock: Any, **arguments: Any) -> Transport:
        """Paramiko calls this."""
        if isinstance(sock, ProxyCommand):
            sock.__class__ = Proxy  # pyinfra makes it
        found = Connection(sock, packetizer_class=Packets, **arguments)
        found.identity = identity
        return found

    return connection


class Packets(Packetizer):
    """The packets of one connection: none is longer than such a packet can be, and others have their turn between."""

    _greeted = _since = 0

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Read so many bytes; paramiko calls this, with whatever a server has said."""
        if n > PACKET_AT_MOST:
            raise SSHException(f"it sends a packet of {n:,} bytes")
        self._since += n
        if self._since > TURN:
            # As long as something has arrived nobody waits, and under gevent nobody else would run.
            self._since = 0
            time.sleep(0)
        return super().read_all(n, check_rekey)

    def _read_timeout(self, timeout: float) -> bytes:
        data: bytes = super()._read_timeout(timeout)  # type: ignore[misc] # the greeting, piece by piece
        self._greeted += len(data)
        if self._greeted > GREETING_AT_MOST:
            raise SSHException(f"its greeting is longer than {GREETING_AT_MOST:,} bytes")
        return data


class Connection(Transport):
    """One connection. What else than privnet uses it, in the same run of pyinfra, is left as it is.

    :param identity: whose key the server has to have
    :param bounding: whether it is privnet who executes something
    :param complaint: what the last execution that failed has said last
    """

    identity: Identity
    bounding = False
    complaint = ""

    def start_client(self, event: Event | None = None, timeout: float | None = None) -> None:
        """Agree on keys with the server, and see who it is; paramiko's client calls this. Raises OtherHostKey."""
        options = self.get_security_options()
        options.key_types = self.identity.preferred(options.key_types)
        try:
            super().start_client(event, timeout)
        except (SSHException, EOFError):
            if isinstance(self.sock, Proxy) and self.sock.why:
                raise SSHException(self.sock.why) from None  # without paramiko's words about a banner
            raise
        if not self.initial_kex_done:
            # paramiko returns when the time is over, and then fails with words about a session.
            self.close()
            raise SSHException(f"it does not answer: nothing of SSH came within {timeout:g} s")
        try:
            self.identity.verify(self.get_remote_server_key())
        except OtherHostKey:
            self.close()
            raise

    def open_session(self, *positional: Any, **arguments: Any) -> Channel:
        """One execution; paramiko's client calls this."""
        channel = super().open_session(*positional, **arguments)
        return Execution.of(channel) if self.bounding else channel


@contextmanager
def bounded(transport: Transport | None) -> Iterator[None]:
    """Bound what is executed over a connection, if it is one that can be."""
    if not isinstance(transport, Connection):
        yield
        return
    transport.bounding, transport.complaint = True, ""
    try:
        yield
    finally:
        transport.bounding = False


class Intake(BufferedPipe):  # type: ignore[type-arg] # it is generic in its type information alone
    """What arrives of one stream. Too much of it ends the connection: a channel that is closed is still fed."""

    def __init__(self, execution: Execution, what: str, bytes_at_most: int) -> None:
        super().__init__()
        self._execution, self._what = execution, what
        self._left = {"bytes": bytes_at_most, "lines": LINES_AT_MOST}
        self._at_most = dict(self._left)

    def feed(self, data: Any) -> None:
        """Take in what has arrived; paramiko calls this where it reads the connection. Raises SSHException."""
        for what, number in ("bytes", len(data)), ("lines", data.count(b"\n")):
            self._left[what] -= number
            if self._left[what] < 0:
                raise SSHException(self._execution.ended(f"{self._what} of more than {self._at_most[what]:,} {what}"))
        super().feed(data)


class Execution(Channel):
    """One execution on a host; it is over before anything of it is told.

    :param excess: what there was too much of
    """

    excess = ""

    @classmethod
    def of(cls, channel: Channel) -> Execution:
        """A channel that was just opened: before it is asked to execute something a server has nothing to say."""
        channel.__class__ = cls  # paramiko makes its channels itself
        execution = cast(Execution, channel)
        execution.in_buffer = Intake(execution, "an answer", OUTPUT_AT_MOST)
        execution.in_stderr_buffer = Intake(execution, "complaints", ERROR_AT_MOST)
        return execution

    def ended(self, excess: str) -> str:
        """Fail, whatever the host has said of how the command has ended; the reason."""
        self.excess = f"it sends {excess}: its connection was closed"
        self.exit_status = -1
        return self.excess

    def makefile(self, *_: Any) -> Said:  # type: ignore[override] # pyinfra goes over its lines, and asks its channel
        """Standard output."""
        return Said(self, self._output)

    def makefile_stderr(self, *_: Any) -> Said:  # type: ignore[override] # likewise
        """Standard error."""
        return Said(self, self._error)

    def _output(self) -> Iterator[str]:
        taken, ended_well = self._taken(self.recv)
        if not ended_well:
            yield from () if self.excess else (with_remedy(_plain(line)) for line in _last(taken))
            return
        for number, line in enumerate(taken):
            if number % LINES_IN_TURN == 0:
                time.sleep(0)
            yield _plain(line)

    def _error(self) -> Iterator[str]:
        taken, ended_well = self._taken(self.recv_stderr)
        lines = map(_shown, taken if ended_well else _last(taken))
        if ended_well:
            yield from lines
            return
        told = [self.excess] if self.excess else [with_remedy(line) for line in lines]
        transport = self.transport
        if not self.excess and self.exit_status == -1 and transport is not None and not transport.is_active():
            why = f"{transport.saved_exception or ''}"
            told.append(f"the connection was lost{f': {why}' if why else ''}")
        if isinstance(transport, Connection):
            transport.complaint = next((line for line in reversed(told) if line.strip()), "")
        yield from told

    def _taken(self, receive: Callable[[int], bytes]) -> tuple[BytesIO, bool]:
        """A stream to its end, and whether the command has ended well."""
        taken = BytesIO()
        while piece := receive(PIECE):
            taken.write(piece)
        taken.seek(0)
        return taken, self.recv_exit_status() == 0


class Said:
    """The lines of one stream, as pyinfra takes them: once, from the beginning to the end."""

    def __init__(self, channel: Channel, lines: Callable[[], Iterator[str]]) -> None:
        self.channel = channel
        self._lines = lines

    def __iter__(self) -> Iterator[str]:
        return self._lines()


def _last(lines: Iterable[bytes]) -> Iterable[bytes]:
    return deque((line[:WIDTH_KEPT] for line in lines), LINES_KEPT)


def _plain(line: bytes) -> str:
    """As the one question's answer is; what programs print is for nobody."""
    return line.rstrip(b"\n").translate(_PLAIN).decode("ascii")


def _shown(line: bytes) -> str:
    return visible(line.rstrip(b"\n").decode("utf-8", "replace"))
